"""Clients that vanish, stall, flood or hurry: they harm themselves only."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from lathe.repository import Repository
from lathe.v1 import inference_pb2
from tests.calls import channel, config, frame, inference, metric, outcomes, refusal, stream, until
from tests.conftest import ROOT, RunningServer, start_server
from tests.models import bright_spots, card_for


def silent(opening: bool, until_set: threading.Event) -> Iterator[inference_pb2.DetectStreamRequest]:
    """A stream that stays open and says nothing more."""
    if opening:
        yield config()
    until_set.wait(30)


@pytest.mark.fault(62, 67)
def test_a_client_that_is_killed_leaves_no_stream_behind(server: RunningServer, tmp_path: Path) -> None:
    program = f"""
import sys, time
from tests.calls import *
def requests():
    yield config()
    for index in range(10**6):
        yield frame(index, open(sys.argv[1], "rb").read())
        time.sleep(0.001)
with channel({server.grpc!r}) as opened:
    for result in stream(opened, requests(), None):
        print(result.index, flush=True)
"""
    picture = tmp_path / "picture"
    picture.write_bytes(b"\xff\xd8\xff")
    command = [sys.executable, "-c", program, str(picture)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert client.stdout
    assert client.stdout.readline()
    assert metric(server, "lathe_streams") == 1
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    until(lambda: metric(server, "lathe_streams") == 0)
    until(lambda: metric(server, "lathe_waiting_frames") == 0)


@pytest.mark.fault(67)
def test_streams_that_are_cancelled_leave_nothing_behind(server: RunningServer, spot_jpeg: bytes) -> None:
    with channel(server.grpc) as opened:
        for _ in range(200):
            call = inference(opened).DetectStream(iter([config(), frame(0, spot_jpeg)]))
            call.cancel()
        until(lambda: metric(server, "lathe_streams") == 0)
        assert outcomes(stream(opened, [config(), frame(0, spot_jpeg)])) == ["answered"]


@pytest.mark.fault(66)
@pytest.mark.parametrize("opening", [True, False], ids=["configured", "silent from the first"])
def test_no_more_streams_are_taken_than_allowed(repository: Repository, tmp_path: Path, opening: bool) -> None:
    leave = threading.Event()
    flags = ("--max-streams", "3")
    with start_server(repository.root, tmp_path / "log", *flags) as server, channel(server.grpc) as opened:
        calls = [inference(opened).DetectStream(silent(opening, leave)) for _ in range(3)]

        def code_of_another() -> grpc.StatusCode:
            another = inference(opened).DetectStream(iter([config()]))
            return another.code()  # type: ignore[no-any-return]

        def no_more_are_taken() -> bool:
            for place, call in enumerate(calls):
                if call.done():  # the other one came before it, and had its place
                    calls[place] = inference(opened).DetectStream(silent(opening, leave))
            return code_of_another() is grpc.StatusCode.RESOURCE_EXHAUSTED

        until(no_more_are_taken)
        for call in calls:
            call.cancel()
        until(lambda: code_of_another() is grpc.StatusCode.OK)
        leave.set()


@pytest.mark.fault(65)
def test_a_client_that_never_reads_loses_its_stream_and_harms_nobody(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    def flood() -> Iterator[inference_pb2.DetectStreamRequest]:
        yield config()
        yield from (frame(index, b"no picture") for index in itertools.count())

    flags = ("--max-unread-seconds", "0.3")
    narrow = ("grpc.http2.bdp_probe", 0)  # a window of 64 kB
    with start_server(repository.root, tmp_path / "log", *flags) as server, channel(server.grpc, narrow) as opened:
        deaf = inference(opened).DetectStream(flood())
        until(lambda: metric(server, "lathe_streams") == 1)
        until(lambda: metric(server, "lathe_streams") == 0)
        with server.client() as client:
            results = list(client.detect_stream("spots", [(spot_jpeg, 0.0)] * 5))
        assert {result.outcome for result in results} == {"answered"}
        assert refusal(lambda: list(deaf)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.fault(73)
def test_a_flood_of_frames_is_thinned_out_and_every_frame_has_its_result(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    repository.publish(card_for("slow", "a", recommended=True), bright_spots(work=10))
    count = 2000
    messages = [config("slow"), *(frame(index, spot_jpeg) for index in range(count))]
    with start_server(repository.root, tmp_path / "log") as server, channel(server.grpc) as opened:
        results = list(stream(opened, messages, 60))
        assert [result.index for result in results] == list(range(count))
        assert set(outcomes(results)) == {"answered", "dropped_superseded"}
        assert outcomes(results)[-1] == "answered"


@pytest.mark.fault(68)
def test_a_deadline_that_has_passed_or_soon_will_is_exceeded_and_a_distant_one_is_not(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    """The model takes tens of milliseconds: gRPC rounds deadlines up, and a fast answer may come before its timer."""
    repository.publish(card_for("slow", "a", recommended=True), bright_spots(work=40))
    whole = inference_pb2.DetectRequest(model="slow", frame=inference_pb2.Frame(encoded=spot_jpeg))
    with start_server(repository.root, tmp_path / "log") as server, channel(server.grpc) as opened:
        for seconds in (0, -5, 0.000_001):
            error = refusal(lambda s=seconds: inference(opened).Detect(whole, timeout=s))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        century = 100 * 365 * 86_400
        assert len(inference(opened).Detect(whole, timeout=century).result.detections.score) == 1
        assert outcomes(stream(opened, [config("slow"), frame(0, spot_jpeg)], century)) == ["answered"]


@pytest.mark.fault(68)
def test_a_stream_past_its_deadline_ends_and_frees_its_place(server: RunningServer) -> None:
    leave = threading.Event()
    with channel(server.grpc) as opened:
        error = refusal(lambda: list(stream(opened, silent(True, leave), 0.2)))
        leave.set()
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: metric(server, "lathe_streams") == 0)


@pytest.mark.fault(69)
def test_two_clients_with_one_stream_id_are_two_streams_on_one_variant(server: RunningServer, spot_jpeg: bytes) -> None:
    """Each has its own slot, indices and results; the name only decides the variant."""
    with server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1})

    def requests(turn: threading.Event, other: threading.Event) -> Iterator[inference_pb2.DetectStreamRequest]:
        yield config(stream_id="lobby")
        for index in range(5):
            yield frame(index, spot_jpeg)
            other.set()
            turn.wait(5)
            turn.clear()
            time.sleep(0)
        other.set()

    turns = [threading.Event(), threading.Event()]
    results: list[list[inference_pb2.Result]] = [[], []]

    def film(number: int) -> None:
        with channel(server.grpc) as opened:
            results[number] += stream(opened, requests(turns[number], turns[1 - number]))

    threads = [threading.Thread(target=film, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [result.index for own in results for result in own] == [0, 1, 2, 3, 4] * 2
    assert len({result.served_by.variant for own in results for result in own if result.served_by.variant}) == 1
