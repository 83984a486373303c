"""`lathe top`: what it draws, and that it tells of a real server what was sent to it."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lathe.cli import main
from lathe.errors import Unavailable
from lathe.overview import Overview, overview
from lathe.repository import Repository
from lathe.scrape import Scrape
from lathe.top import View
from lathe.watch import Sight, Watch, look
from tests.calls import channel, config, frame, metric, outcomes, stream, until
from tests.certificates import Authority
from tests.conftest import RunningServer, start_server

Sample = tuple[str, dict[str, str], float]
LONG = {"model": "threat-detector", "variant": "student-pruned50-int8", "version": "12"}


def samples(times: float, streams: int = 30) -> Iterator[Sample]:
    """A busy server that has everything to tell; twice as much for twice the times."""
    for variant in ("int8", "pruned-int8"):
        own = {"model": "face", "variant": variant, "version": "1"}
        yield "lathe_frames_total", {**own, "outcome": "answered"}, 200 * times
        yield "lathe_frames_total", {**own, "outcome": "dropped_too_old"}, 4 * times
        yield "lathe_variant_state", {**own, "state": "ready"}, 1
        yield "lathe_route_weight", own, 3
        yield "lathe_cpu_seconds_total", own, 1.25 * times
        yield "lathe_cost_usage_total", {**own, "currency": "EUR"}, 0.0001 * times
        yield "lathe_cost_allocation_total", {**own, "currency": "EUR"}, 0.0003 * times
        yield "lathe_energy_joules_total", {**own, "source": "rapl"}, 12 * times
        yield "lathe_carbon_grams_total", own, 0.01 * times
        yield "lathe_variant_quality", {**own, "metric": "ap_medium", "data": "wider"}, 0.812
        yield "lathe_variant_speedup", own, 2.5
        for end, part in (("0.005", 0), ("0.01", 0.98), ("0.2", 1), ("+Inf", 1)):
            yield "lathe_request_seconds_bucket", {**own, "le": end}, part * 200 * times
    yield "lathe_route_weight", LONG, 0
    yield "lathe_streams", {}, streams
    yield "lathe_workers", {}, 2
    yield "lathe_waiting_frames", {}, 3
    yield "lathe_queue_age_seconds", {}, 0.042
    yield "lathe_objective_seconds", {}, 0.1
    yield "lathe_objective_share", {}, 0.99
    yield "lathe_objective_frames_total", {"model": "face", "result": "met"}, 395 * times
    yield "lathe_objective_frames_total", {"model": "face", "result": "late"}, 5 * times
    yield "lathe_degrade_level", {"model": "face"}, 1
    yield "lathe_experiment_running", {"model": "face"}, 1
    for bound, value in (("value", -0.1), ("low", -0.12), ("high", -0.08)):
        yield "lathe_experiment_estimate", {"model": "face", "metric": "cpu_seconds", "bound": bound}, value
        yield "lathe_experiment_estimate", {"model": "face", "metric": "a_new_one", "bound": bound}, value
    yield "process_resident_memory_bytes", {}, 181e6
    yield "process_cpu_seconds_total", {}, 3 * times
    for number in range(streams):
        name = {"stream": f"camera-{number}"}
        yield "lathe_stream_frames_total", {**name, "outcome": "answered"}, 20 * times
        yield "lathe_stream_last_frame_timestamp_seconds", name, 999.9
    yield "lathe_stream_frames_total", {"stream": "camera-17", "outcome": "failed"}, 6 * times


def busy(streams: int = 30) -> Overview:
    before, after = (Scrape(tuple(samples(times, streams))) for times in (1, 2))
    return overview(before, after, 2.0, now=1000.0)


def drawn(*sights: Sight, width: int = 80, height: int | None = None) -> list[str]:
    """Lines as a terminal without colours has them, which may not be cut at its edge."""
    console = Console(file=io.StringIO(), width=width, height=height or 1000, no_color=True)
    console.print(View(sights, 2.0, height))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(len(line) for line in lines) <= width
    return lines


def row(lines: list[str], name: str) -> list[str]:
    """The words of the line that begins so."""
    (line,) = (line for line in lines if line.split()[:1] == [name])
    return line.split()


def test_all_that_matters_is_read_in_80_columns_and_24_lines() -> None:
    lines = drawn(Sight("127.0.0.1:8501", busy()), height=24)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "…" not in text
    for told in (
        "127.0.0.1:8501",
        "200 frames/s",
        "30 streams",
        "3 waiting, the oldest for 42.0 ms",
        "4.00 dropped/s too old",
        "62 % of 2 workers busy",
        "1.50 cores used",
        "181 MB",
        "EUR 0.36 an hour used, of 1.08",
        "12.0 W (rapl)",
        "36.0 g CO₂ an hour",
        "98.75 % answered within 100 ms, objective 99 %",
        "degraded by 1",
        "CPU time of a prediction: -10.0 % (-12.0 to -8.0)",
        "a_new_one: -0.1 (-0.12 to -0.08)",
        "1 losing, 29 well",
    ):
        assert told in text
    assert row(lines, "face/int8/1") == [
        "face/int8/1",
        "ready",
        "3",
        "100",
        "7.55",
        "105",
        "6.25",
        "0.50",
        "60.0",
        "50.0",
    ]
    assert row(lines, "camera-17")[1:4] == ["losing", "10.0", "0"]
    first = next(number for number, line in enumerate(lines) if line.startswith("camera-"))
    assert lines[first].startswith("camera-17")  # the one with trouble


def test_a_wide_terminal_has_room_for_all_streams_and_for_what_cards_say() -> None:
    lines = drawn(Sight("127.0.0.1:8501", busy(80)), width=200, height=60)
    assert len(lines) <= 60
    text = "\n".join(lines)
    assert all(f"camera-{number} " in text for number in range(80))
    assert row(lines, "face/int8/1")[-3:] == ["2.50×", "ap_medium", "0.812"]


def test_where_streams_do_not_fit_it_says_how_many_are_not_seen() -> None:
    lines = drawn(Sight("127.0.0.1:8501", busy(200)), height=24)
    assert len(lines) <= 24
    seen = sum(line.startswith("camera-") for line in lines)
    assert seen >= 3
    assert any(f"{200 - seen} more have no room here" in line for line in lines)
    assert sum(line.startswith("camera-") for line in drawn(Sight("127.0.0.1:8501", busy(200)))) == 200


def test_names_are_folded_and_never_cut() -> None:
    streams = busy(1).streams
    long = replace(
        busy(), streams=tuple(replace(streams[0], name="rtsp://gate/" + letter * 50) for letter in "abcdefgh")
    )
    lines = drawn(Sight("127.0.0.1:8501", long), height=26)
    assert len(lines) <= 26
    assert "".join(line.split()[0] for line in lines if "aaa" in line) == "rtsp://gate/" + "a" * 50
    at = next(number for number, line in enumerate(lines) if line.startswith("threat-detector/"))
    assert lines[at].split()[0] + lines[at + 1] == "threat-detector/student-pruned50-int8/12"


def test_where_a_graphics_processor_serves_its_time_stands_beside_the_others() -> None:
    labels = {"model": "face", "variant": "int8", "version": "1"}
    both = [(*samples(times), ("lathe_gpu_seconds_total", labels, 0.4 * times)) for times in (1, 2)]
    lines = drawn(Sight("h:1", overview(Scrape(both[0]), Scrape(both[1]), 2.0, now=1000.0)), height=24)
    assert "20 % of the GPU busy" in "\n".join(lines)
    assert row(lines, "face/int8/1")[6:9] == ["6.25", "2.00", "0.50"]
    assert not any("GPU" in line for line in drawn(Sight("h:1", busy())))


def test_an_experiment_with_many_figures_leaves_room_for_streams() -> None:
    told = busy()
    (estimate, *_), first, *others = told.models[0].experiment or (), *told.models
    many = replace(first, experiment=(estimate,) * 9)
    sight = Sight("127.0.0.1:8501", replace(told, models=(many, *others)))
    low, high = drawn(sight, height=24), drawn(sight, height=60)
    assert len(low) <= 24
    assert [sum("CPU time of a prediction" in line for line in lines) for lines in (low, high)] == [2, 9]
    assert any("7 figures more" in line for line in low)
    assert sum(line.startswith("camera-") for line in low) >= 4


def test_variants_that_do_nothing_make_room_for_streams() -> None:
    idle = [{"model": "face", "variant": f"old-{number}", "version": "1"} for number in range(40)]
    both = [(*samples(times), *(("lathe_route_weight", labels, 0.0) for labels in idle)) for times in (1, 2)]
    sight = Sight("127.0.0.1:8501", overview(Scrape(both[0]), Scrape(both[1]), 2.0, now=1000.0))
    low, high = drawn(sight, height=24), drawn(sight, height=80)
    assert len(low) <= 24
    assert not any("old-" in line for line in low)
    assert sum(line.startswith("camera-") for line in low) >= 8
    assert sum("old-" in line for line in high) == 40


def test_what_a_server_does_not_tell_is_not_shown_as_nothing() -> None:
    bare = [("lathe_frames_total", {"model": "face", "variant": "a", "version": "1", "outcome": "answered"}, 5.0)]
    text = "\n".join(drawn(Sight("127.0.0.1:8501", overview(Scrape(()), Scrape(tuple(bare)), 2.0, now=0.0))))
    assert "2.50 frames/s" in text
    assert not any(word in text for word in ("an hour", "CO₂", " W", "mJ", "workers", "/M", "objective"))


def test_several_servers_have_a_line_each_and_a_number_in_the_tables() -> None:
    lost = Sight("10.0.0.7:8501", problem="no metrics at 10.0.0.7:8501, for 12 s")
    lines = drawn(Sight("127.0.0.1:8501", busy()), lost, Sight("127.0.0.1:8601", busy()), height=30)
    assert len(lines) <= 30
    first = next(line for line in lines if line.startswith("1 127.0.0.1:8501"))
    assert first.split()[2:] == ["30", "200", "4.00", "0", "3", "62", "%", "181", "12.0", "0.36"]
    assert "2 no metrics at 10.0.0.7:8501, for 12 s; still trying" in lines
    assert [line[:13] for line in lines if "/int8/1" in line] == ["1 face/int8/1", "3 face/int8/1"]
    assert sum("camera-17" in line for line in lines) == 2


def test_a_server_that_began_anew_is_said_to() -> None:
    after = (*samples(1), ("process_start_time_seconds", {}, 20.0))
    before = (*samples(9), ("process_start_time_seconds", {}, 10.0))
    text = "\n".join(drawn(Sight("h:1", overview(Scrape(before), Scrape(after), 2.0, now=0.0))))
    assert "began anew" in text
    assert "200 frames/s" in text


def test_a_server_that_is_gone_is_looked_for_and_its_absence_is_no_part_of_a_window() -> None:
    answers: list[Scrape | None] = [Scrape(tuple(samples(times))) for times in (1, 2)]
    answers += [None, None, *(Scrape(tuple(samples(times))) for times in (50, 51))]
    seconds = iter(range(0, 1000, 4))

    def fetch() -> Scrape:
        answer = answers.pop(0)
        if answer is None:
            raise Unavailable("no metrics at h:1")
        return answer

    watch = Watch("h:1", fetch, lambda: float(next(seconds)))
    sights = [look([watch])[0] for _ in range(6)]
    assert [sight.overview.totals.answered_per_second if sight.overview else None for sight in sights] == [
        *(None, 100),
        *(None, None),
        *(None, 100),
    ]
    assert sights[2].problem.startswith("no metrics at h:1")
    assert "s" in sights[3].problem.partition(", for ")[2]
    assert sights[4].problem == ""
    assert "no metrics at h:1" in "\n".join(drawn(sights[3]))


def test_names_and_metrics_of_others_are_shown_as_they_are_and_are_no_markup() -> None:
    def told(times: float) -> Scrape:
        own = {"model": "face", "variant": "a[b]", "version": "[/x]"}
        return Scrape(
            (
                ("lathe_frames_total", {**own, "outcome": "answered"}, 5 * times),
                ("lathe_cost_usage_total", {**own, "currency": "[red]EUR"}, times),
                ("lathe_variant_quality", {**own, "metric": "ap[/easy]", "data": "wider"}, 0.8),
                ("lathe_variant_quality", {**own, "metric": "ap [easy] :fire:", "data": "wider"}, 0.7),
                ("lathe_stream_frames_total", {"stream": "[dim]gate[/]", "outcome": "answered"}, 5 * times),
            )
        )

    found = overview(told(1), told(2), 2.0, now=1000.0)
    server, other = "[fe80::1]:8501", "[fe80::2]:8501"
    text = "\n".join(drawn(Sight(server, found), Sight(other, problem=f"no metrics at {other}"), width=160))
    for name in ("face/a[b]/[/x]", "ap[/easy] 0.800, ap [easy] :fire: 0.700", "[dim]gate[/]", "[red]EUR"):
        assert name in text
    assert f"1 {server} " in text
    assert f"2 {other}\n" in text
    assert f"2 no metrics at {other}; still trying" in text


def test_whatever_goes_wrong_in_a_look_is_told_until_it_is_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Scrape:
        raise RuntimeError("its text is for nobody's terminal")

    good, odd = (tuple(samples(2)) for _ in range(2))
    odd = (*odd, ("lathe_streams", {}, math.nan))  # a count that is none
    answers: list[Callable[[], Scrape]] = [
        *(lambda: Scrape(good),) * 2,
        broken,
        *(lambda: Scrape(odd),) * 3,
        *(lambda: Scrape(good),) * 2,
    ]
    seconds = iter(range(0, 1000, 4))
    watch = Watch("h:1", lambda: answers.pop(0)(), lambda: float(next(seconds)))
    died: list[object] = []
    monkeypatch.setattr("threading.excepthook", died.append)
    sights = [look([watch])[0] for _ in range(len(answers))]
    assert died == []
    said = [sight.problem.partition(", for ")[0] for sight in sights]
    runtime, value = (f"h:1 has metrics that cannot be understood ({name})" for name in ("RuntimeError", "ValueError"))
    assert said == ["", "", runtime, "", value, value, "", ""]
    assert [sight.overview is not None for sight in sights] == [False, True, *[False] * 4, True, True]
    assert ", for " in sights[5].problem
    assert f"{value}, for " in "\n".join(drawn(sights[5]))


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What is done while `lathe top` waits between two looks."""

    def instead_of_waiting(act: Callable[[], object]) -> None:
        monkeypatch.setattr("lathe.watch.sleep", lambda seconds: act())

    return instead_of_waiting


def test_it_tells_of_a_real_server_what_was_sent_to_it(
    repository: Repository,
    tmp_path: Path,
    spot_jpeg: bytes,
    sending: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--price-per-core-hour", "36", "--currency", "EUR", "--stream-labels", "gate-*", "--workers", "2")
    with start_server(repository.root, tmp_path / "log", *flags) as server:
        pictures = [spot_jpeg, b"no picture", spot_jpeg, spot_jpeg] * 3

        got: dict[str, Counter[str]] = {}

        def send() -> None:
            with channel(server.grpc) as opened, server.client() as client:
                for number in range(7):
                    assert client.detect("spots", spot_jpeg, variant="ab"[number % 2]).answered
                for name in ("gate-1", "street"):
                    messages = [frame(index, picture) for index, picture in enumerate(pictures)]
                    got[name] = Counter(outcomes(stream(opened, [config(stream_id=name), *messages])))
            before = metric(server, "lathe_cost_allocation_total")
            until(lambda: metric(server, "lathe_cost_allocation_total") > before)  # not each look shares it out

        with server.client() as client:
            client.set_route("spots", {"a": 1, "b": 3})
        sending(send)
        assert main(["top", "--http", server.http, "--once", "--json"]) == 0
        sent = dict(got)
        (told,) = json.loads(capsys.readouterr().out)["servers"]
        assert main(["top", "--http", server.http, "--once"]) == 0
        plain = capsys.readouterr().out
    seen = told["overview"]
    seconds = seen["seconds"]

    def count(per_second: float) -> float:
        return round(per_second * seconds, 6)

    all_sent = sent["gate-1"] + sent["street"]
    assert min(all_sent["answered"], all_sent["rejected"]) > 0
    assert count(seen["totals"]["answered_per_second"]) == 7 + all_sent["answered"]
    assert count(seen["totals"]["rejected_per_second"]) == all_sent["rejected"]
    assert count(seen["totals"]["drops_per_second"]["superseded"]) == all_sent["dropped_superseded"]
    (model,) = seen["models"]
    assert (model["name"], model["degrade_level"], model["experiment"]) == ("spots", 0, None)
    variants = {one["variant"]: one for one in model["variants"]}
    assert [one["weight"] for one in model["variants"]] == [3, 1]
    assert count(sum(one["frames_per_second"] for one in variants.values())) == 7 + all_sent["answered"]
    for one in variants.values():
        assert one["state"] == "ready"
        assert 0 < one["p50_seconds"] <= one["p99_seconds"] < 2.5
        assert one["cost_per_million"] == pytest.approx(one["cpu_ms_per_frame"] * 10)  # 0.01 a CPU second
    assert seen["totals"]["currency"] == "EUR"
    assert seen["totals"]["cost_allocation_per_hour"] >= seen["totals"]["cost_usage_per_hour"] > 0
    assert seen["totals"]["workers"] == 2
    streams = {one["name"]: one for one in seen["streams"]}
    assert set(streams) == {"gate-1", "other"}
    for name, own in (("gate-1", sent["gate-1"]), ("other", sent["street"])):
        assert count(streams[name]["frames_per_second"]) == own["answered"]
        assert count(streams[name]["failures_per_second"]) == own["rejected"]
        assert count(streams[name]["drops_per_second"]) == own["dropped_superseded"]
    assert streams["gate-1"]["silent_seconds"] < 30
    assert "\x1b" not in plain
    assert [word for word in ("spots/a/1", "spots/b/1", "gate-1", "EUR") if word not in plain] == []


def test_it_speaks_tls_where_the_variables_say_so(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair = authority.issue("server")
    flags = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with start_server(repository.root, tmp_path / "log", *flags) as server:
        once = ["top", "--http", server.http, "--once", "--every", "0.1"]
        assert main(once) == 1
        assert "LATHE_CA has to name its root" in capsys.readouterr().err
        monkeypatch.setenv("LATHE_CA", str(stranger.file))
        assert main(once) == 1
        assert "LATHE_CA vouches for" in capsys.readouterr().err
        monkeypatch.setenv("LATHE_CA", str(authority.file))
        assert main(once) == 0
        assert "spots/a/1" in capsys.readouterr().out
    monkeypatch.setenv("LATHE_CA", str(tmp_path / "nowhere.pem"))
    assert main(once) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--http", "127.0.0.1:1"], "no metrics at 127.0.0.1:1"),
        (["--http", "127.0.0.1"], "127.0.0.1 is not HOST:PORT"),
        (["--http", "http://127.0.0.1:8501"], "http://127.0.0.1:8501 is not HOST:PORT"),
        (["--every", "0"], "--every must be above 0"),
        (["--every", "nan"], "--every must be above 0"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *arguments]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"lathe: {said}\n")


def test_another_port_of_the_server_is_told_from_its_metrics(
    shared_server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--http", shared_server.grpc, "--once"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lathe: no metrics at {shared_server.grpc}")
