"""The command line: every mistake is one line on standard error and exit code 1, never a traceback."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import av
import grpc
import numpy as np
import pytest

from lathe.cli import main
from lathe.cli.ctl import parse_weights
from lathe.cli.stream import pace
from lathe.errors import InvalidInput
from lathe.v1 import inference_pb2
from tests.conftest import ROOT, RunningServer
from tests.fakes import FakeStreams, served

NOBODY = "127.0.0.1:1"


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Six frames of 160×128 with one white cell."""
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        pixels = np.zeros((128, 160, 3), np.uint8)
        pixels[60:76, 76:92] = 255
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return tmp_path / "film.mp4"


def error_line(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Runs a command that must fail, and gives its only line."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("lathe: ")
    assert captured.out == ""
    return line.removeprefix("lathe: ")


def test_no_server(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "no server answers at that address"
    assert error_line(capsys, "stream", film, "--server", NOBODY) == told
    assert error_line(capsys, "ctl", "--control", NOBODY, "variants") == told
    assert error_line(capsys, "ctl", "--control", NOBODY, "swap", "face", "int8") == told
    assert error_line(capsys, "ctl", "--control", NOBODY, "route", "face", "int8=1") == told


def test_a_player_waits_until_a_frame_is_due_and_never_less_than_nothing() -> None:
    chance = random.Random(7)
    late = 0
    for _ in range(10_000):
        began, seconds, now = (chance.uniform(0, 1e6) for _ in range(3))
        start, pause = pace(began, seconds, now)
        late += now > began + seconds
        assert pause >= 0
        assert start >= began
        assert start + seconds == pytest.approx(max(now, began + seconds))
        assert now + pause == pytest.approx(start + seconds)
    assert 1000 < late < 9000


def test_less_than_no_frames(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_line(capsys, "stream", film, "--frames", "-3") == "--frames must not be negative"


def test_less_than_no_time(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in ("-1", "nan"):
        assert error_line(capsys, "stream", film, "--reconnect", seconds) == "--reconnect must not be negative"


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file" in error_line(capsys, "compress", tmp_path / "none.toml")
    assert "there is no video" in error_line(capsys, "stream", tmp_path / "none.mp4")
    assert "there is no repository" in error_line(capsys, "serve", tmp_path / "none")
    assert "there is no repository" in error_line(capsys, "evaluate", tmp_path / "none/face/int8", "--data", tmp_path)


def test_repository_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.compression.small_recipe import write_recipe

    recipe = write_recipe(tmp_path)
    (tmp_path / "file").touch()
    assert main(["compress", str(recipe), "--repository", str(tmp_path / "file/models")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("lathe: Not a directory")
    assert not any("Traceback" in line for line in told)


def test_wrong_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.toml").write_text('[model]\nnmae = "face"\n')
    assert error_line(capsys, "compress", tmp_path / "wrong.toml") == (
        'wrong.toml, line 2: unknown key "nmae"; did you mean "name"?'
    )


@pytest.mark.parametrize("words", [["int8"], ["int8="], ["int8=x"], ["int8=-1"], ["int8=1.5"], ["a=1", "b"]])
def test_weights_that_are_none(words: list[str]) -> None:
    with pytest.raises(InvalidInput, match="is not VARIANT=WEIGHT"):
        parse_weights(words)


def test_weights() -> None:
    assert parse_weights(["fp32=3", "int8/2=1"]) == {"fp32": 3, "int8/2": 1}


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["stream"], ["evaluate", "x"], ["serve", "x", "--no"]])
def test_wrong_command_line_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: lathe" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compress", "evaluate", "serve", "stream", "ctl", "demo"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: lathe {command}" in capsys.readouterr().out


def test_stream_prints_a_line_a_frame(
    shared_server: RunningServer, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(film), "--server", shared_server.grpc, "--model", "spots", "--frames", "4"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["seconds"] for line in lines] == [0.0, 0.1, 0.2, 0.3]
    assert {line["outcome"] for line in lines} == {"answered"}
    assert all(line["variant"] == "a" and line["detections"] for line in lines)


def test_stream_goes_on_after_a_cut_unless_it_is_told_not_to(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cut(call: int, frame: inference_pb2.Frame, context: grpc.ServicerContext) -> inference_pb2.Outcome.ValueType:
        if call == 0 and frame.index == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return inference_pb2.OUTCOME_ANSWERED

    with served(FakeStreams(cut)) as address:
        assert main(["stream", str(film), "--server", address]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(line["frame"], line["outcome"]) for line in lines] == [(frame, "answered") for frame in range(6)]
    with served(FakeStreams(cut)) as address:
        assert main(["stream", str(film), "--server", address, "--reconnect", "0"]) == 1
        assert capsys.readouterr().err == "lathe: not now\n"


def test_stream_writes_a_video(shared_server: RunningServer, film: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    command = ["stream", str(film), "--server", shared_server.grpc, "--model", "spots", "--output", str(output)]
    assert main(command) == 0
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6


def test_stream_loops_until_it_has_the_frames_that_are_asked_for(
    shared_server: RunningServer, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["stream", str(film), "--server", shared_server.grpc, "--model", "spots", "--loop", "--frames", "14"]
    assert main(command) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame"] for line in lines] == list(range(14))  # of a film of 6
    assert all(line["detections"] for line in lines)
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(set(seconds))


def test_a_folder_plays_as_several_cameras(
    shared_server: RunningServer, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "footage"
    folder.mkdir()
    (folder / "notes.txt").write_text("no video")
    for name in ("a.mp4", "b.mp4"):
        (folder / name).symlink_to(film)
    command = ["stream", str(folder), "--server", shared_server.grpc, "--model", "spots"]
    assert main([*command, "--stream-id", "gate", "--cameras", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for name in ("gate-1", "gate-2", "gate-3"):
        assert [line["frame"] for line in lines if line["stream"] == name] == list(range(12))
    assert len(lines) == 36


def test_several_cameras_end_with_the_first_that_fails(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = error_line(capsys, "stream", film, "--server", NOBODY, "--cameras", "2")
    assert told == "no server answers at that address"


@pytest.mark.parametrize(
    ("source", "flags", "told"),
    [
        ("rtsp://camera/live", ["--loop"], "--loop and --cameras are for video files and folders of them"),
        ("rtsp://camera/live", ["--cameras", "2"], "--loop and --cameras are for video files and folders of them"),
        ("film.mp4", ["--cameras", "0"], "--cameras must be at least 1"),
        ("film.mp4", ["--cameras", "2", "--output", "out.mp4"], "--output takes one camera"),
    ],
)
def test_cameras_that_cannot_be(source: str, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_line(capsys, "stream", source, *flags) == told


def test_a_folder_without_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no video in" in error_line(capsys, "stream", tmp_path)


def test_stream_to_a_server_without_the_model(
    shared_server: RunningServer, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such model" in error_line(capsys, "stream", film, "--server", shared_server.grpc, "--model", "none")


def test_stream_of_what_is_no_video(shared_server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    told = error_line(capsys, "stream", ROOT / "LICENSE", "--server", shared_server.grpc, "--model", "spots")
    assert "cannot be played" in told


def test_ctl_lists_variants(
    shared_server: RunningServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["ctl", "--control", shared_server.control, "variants"]) == 0
    shown = capsys.readouterr().out
    assert " spots " in shown
    assert " a/1 " in shown
    assert "ready" in shown
    assert "onnxruntime" in shown


def test_as_a_module_with_no_traceback() -> None:
    command = [sys.executable, "-m", "lathe", "ctl", "--control", NOBODY, "variants"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lathe: no server answers at that address\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shadow-rounds", "-1"], "--shadow-rounds is a whole number from 0 up"),
        (["--minimum-agreement", "0"], "--no-agreement does not judge it"),
        (["--minimum-effect", "0"], "--minimum-effect is above 0"),
        (["--split", "60"], "its share in percent is 50"),
        (["--margin", "cpu_seconds"], "is not METRIC=MARGIN"),
    ],
)
def test_a_wrong_experiment_is_said_in_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "start", "face", "--a", "int8", "--b", "fp32", *flags]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
