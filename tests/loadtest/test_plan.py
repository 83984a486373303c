"""`lathe plan`: its table by hand, what it takes from cards and runs, and what it says beside it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lathe import config
from lathe.card import write_card
from lathe.cli import main
from lathe.errors import InvalidInput
from lathe.evidence import Interval
from lathe.v1 import card_pb2
from lathe_loadtest.plan import (
    Instance,
    Need,
    Prices,
    cameras_carried,
    carded_needs,
    measured_need,
    plan_rows,
    utilisation_found,
    utilisation_of,
)
from lathe_loadtest.result import LoadResult, write_result
from tests.conftest import ROOT
from tests.loadtest.synthetic import synthetic_result

BIG = Instance("big", cores=16, price_per_hour=0.60, speed=0.8)


def need(variant: str, ms: float, low: float = math.nan, high: float = math.nan) -> Need:
    return Need(variant, Interval(ms / 1e3, low / 1e3, high / 1e3, 0.95), "measured")


def card(*, variant: str = "int8", decode: float = 0.0001, infer: float = 0.003) -> card_pb2.Card:
    one = card_pb2.Card(
        model="face",
        variant=variant,
        version=1,
        task=card_pb2.TASK_DETECTION,
        sha256="0" * 64,
        size_multiple=32,
        serving_size=card_pb2.PictureSize(width=320, height=256),
    )
    if infer:
        latency = one.latency.add(cpu="A processor", runtime="onnxruntime", runs=60)
        latency.size.CopyFrom(one.serving_size)
        for stage, seconds in {"decode": decode, "preprocess": 0.0002, "infer": infer, "postprocess": 0.0002}.items():
            setattr(latency.stages, stage, seconds)
    return one


@pytest.mark.parametrize(
    ("cores", "utilisation", "cpu_ms", "fps", "cameras"),
    [
        (2, 0.7, 3.5, 10, 40),  # 40 × 10 × 3.5 ms = 1.4 s of CPU a second, which is 0.7 of two cores
        (2, 0.7, 3.51, 10, 39),
        (16, 1.0, 10, 16, 100),
        (1, 0.5, 600, 1, 0),
    ],
)
def test_cameras_are_what_fits_into_the_cores(
    cores: int, utilisation: float, cpu_ms: float, fps: float, cameras: int
) -> None:
    assert cameras_carried(cores, utilisation, cpu_ms / 1e3, fps) == cameras


def test_the_table_is_as_by_hand() -> None:
    """16 cores of 0.8 at 70 % are 8.96 s of CPU a second; at 10 fps a camera takes 50 and 200 ms of it: 179 and 44.
    A month is 438."""
    rows = plan_rows([need("int8", 5), need("fp32", 20)], [BIG], fps=10, cameras_wanted=500)
    assert [(row.need.variant, row.cameras, row.machines) for row in rows] == [("int8", 179, 3), ("fp32", 44, 12)]
    assert [row.camera_month for row in rows] == pytest.approx([438 / 179, 438 / 44])
    assert [row.month for row in rows] == pytest.approx([3 * 438, 12 * 438])


def test_the_measured_interval_goes_through_to_the_cameras() -> None:
    (row,) = plan_rows([need("int8", 5, 4.5, 5.6)], [Instance("small", 4)], fps=10, utilisation=0.5)
    assert (row.fewest_cameras, row.cameras, row.most_cameras) == (35, 40, 44)
    assert (row.camera_month, row.month, row.machines) == (None, None, 0), "no price is not a price of 0"


def test_a_machine_that_carries_no_camera_has_no_price_for_one() -> None:
    (row,) = plan_rows([need("fp32", 900)], [Instance("small", 1, 0.1)], fps=10, cameras_wanted=5)
    assert (row.cameras, row.camera_month, row.machines, row.month) == (0, None, 0, None)


def test_more_frames_than_a_process_takes_need_more_servers() -> None:
    (row,) = plan_rows([need("student", 1)], [Instance("huge", 64)], fps=10, utilisation=0.7)
    assert (row.cameras, row.servers) == (4480, 23)


@pytest.mark.parametrize("numbers", [{"fps": 0.0}, {"fps": 10, "utilisation": 1.1}, {"fps": 10, "cameras_wanted": -1}])
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        plan_rows([need("int8", 5)], [BIG], **numbers)  # type: ignore[arg-type]


def test_a_run_of_one_variant_tells_its_cpu_time() -> None:
    found = measured_need(synthetic_result(seconds=40))  # 0.1 cores for 40 frames a second
    assert (found.variant, found.source) == ("int8", "measured")
    assert found.cpu_seconds.value == pytest.approx(0.0025)
    assert found.cpu_seconds.low <= 0.0025 <= found.cpu_seconds.high


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (synthetic_result(latency_ms={"int8": 20, "fp32": 60}), "must be of one variant"),
        (synthetic_result(why_invalid=("the sender was late",)), "is invalid: the sender was late"),
        (replace(synthetic_result(), server=()), "holds no CPU time of the server"),
    ],
)
def test_runs_that_tell_no_cpu_time_are_refused(result: LoadResult, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        measured_need(result, "run.json")


def test_cards_count_with_a_cameras_picture_and_what_grpc_takes() -> None:
    needs, added, untold = carded_needs({"int8": card(), "bare": card(variant="bare", infer=0)}, {})
    assert (added, untold) == (0.0007, ["bare"])
    assert needs["int8"].cpu_seconds.value == pytest.approx(0.0006 + 0.0002 + 0.003 + 0.0002 + 0.0007)


def test_what_runs_took_beyond_their_cards_is_added_to_the_other_cards() -> None:
    cards = {"int8": card(), "fp32": card(variant="fp32", infer=0.011, decode=0.001)}
    needs, added, _ = carded_needs(cards, {"int8": need("int8", 4.5)})
    assert added == pytest.approx(0.0045 - 0.004)
    assert list(needs) == ["fp32"]
    assert needs["fp32"].cpu_seconds.value == pytest.approx(0.0124 + 0.0005)


def test_the_utilisation_at_capacity_is_the_runs_own() -> None:
    run = synthetic_result(seconds=40)
    assert utilisation_of(run, cores=2) == pytest.approx(0.05)
    server = tuple(replace(one, cpu_seconds=one.cpu_seconds * 30) for one in run.server)
    with pytest.raises(InvalidInput, match=r"the server used 3\.0 cores, and there are to be 2"):
        utilisation_of(replace(run, server=server), cores=2)


def test_the_least_capacity_of_several_searches_counts() -> None:
    """32 cameras at 10 fps of 5 ms each are 1.6 of two cores."""
    found = {"fps": 10.0, "searches": [{"load": 34.0, "why_not": ""}, {"load": 32.0, "why_not": ""}]}
    assert utilisation_found(found, need("int8", 5), cores=2) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"fps": 10.0, "searches": []}, "holds no capacity"),
        ([], "holds no capacity"),
        ({"fps": 10.0, "searches": [{"load": 3.0, "why_not": "60 runs do not agree"}]}, "found no capacity"),
        ({"fps": 10.0, "searches": [{"load": 60.0}]}, "would use 3.0 cores of 2"),
    ],
)
def test_files_without_a_capacity_are_refused(table: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        utilisation_found(table, need("int8", 5), cores=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('currency = "USD"\n[[instances]]\nname = "a"\ncores = 0', '"cores" of a must be 1 or more'),
        ('currency = "USD"\n[[instances]]\nname = "a"\ncores = 4\nprice = 1', 'unknown key "price"'),
        ('[[instances]]\nname = "a"\ncores = 4', 'the key "currency" is missing'),
        (
            'currency = "USD"\n[[instances]]\nname = "a"\ncores = 4\nprice_per_hour = -1',
            '"price_per_hour" of a must be',
        ),
    ],
)
def test_bad_tables_of_prices_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as raised:
        config.load(Prices, path)
    assert message in raised.value.message


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for one in (card(), card(variant="fp32", infer=0.011)):
        folder = tmp_path / "models/face" / one.variant / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"")
        write_card(one, folder / "card.json")
    return tmp_path / "models/face"


def test_the_command_says_cameras_prices_and_assumptions(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(synthetic_result(seconds=40), tmp_path / "int8.json")
    prices = ROOT / "recipes/prices.toml"
    words = ["plan", repository, "--measured", tmp_path / "int8.json", "--prices", prices, "--cameras", 100]
    assert main([str(word) for word in words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "On this machine int8 carries 56 cameras at 10 fps" in out  # 2 × 0.7 ÷ 0.0025 ÷ 10
    assert "USD a camera-month" in out
    assert "EXAMPLE" in prices.read_text("utf-8")
    for said in ("70% of the cores", "A month has 730 hours", "memory, the network and its price are not counted"):
        assert said in out


def test_a_capacity_that_was_found_sets_the_utilisation(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(synthetic_result(seconds=40), tmp_path / "int8.json")
    (tmp_path / "capacity.json").write_text(json.dumps({"fps": 10.0, "searches": [{"load": 60.0, "why_not": ""}]}))
    words = ["plan", str(repository), "--at-capacity", str(tmp_path / "capacity.json"), "--json"]
    assert main(words) == 1
    assert "give --measured of that one alone" in capsys.readouterr().err
    assert main([*words, "--measured", str(tmp_path / "int8.json")]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["utilisation"] == pytest.approx(60 * 10 * 0.0025 / 2)
    assert {row["variant"]: row["cameras"] for row in table["rows"]}["int8"] == 60


def test_json_holds_the_rows_and_the_assumptions(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(repository), "--cores", "4", "--utilisation", "0.5", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {row["variant"]: row["cameras"] for row in table["rows"]} == {"int8": 42, "fp32": 15}
    assert table["utilisation"] == 0.5
    assert any("on one thread" in sentence for sentence in table["assumptions"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a plan needs REPOSITORY/MODEL or --measured"),
        (["REPOSITORY", "--utilisation", "7"], "the utilisation must be above 0"),
        (["REPOSITORY", "--cores", "0"], "--cores must be 1 or above"),
        (["REPOSITORY", "--prices", "none.toml"], "there is no file none.toml"),
        (["REPOSITORY", "--measured", "none.json"], "there is no result none.json"),
    ],
)
def test_mistakes_are_told_in_a_line(
    repository: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *(str(repository) if word == "REPOSITORY" else word for word in words)]) == 1
    assert message in capsys.readouterr().err
