"""`lathe plan`: its table by hand, what it takes from cards and runs, and what it says beside it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lathe import config
from lathe.card import write_card
from lathe.cli import main
from lathe.errors import InvalidInput
from lathe.evidence import Interval
from lathe.v1 import card_pb2
from lathe_loadtest.capacity import Run
from lathe_loadtest.capacity_file import CapacityFile, Search, write_capacity
from lathe_loadtest.plan import (
    Instance,
    Need,
    Prices,
    cameras_carried,
    carded_needs,
    measured_need,
    plan_rows,
)
from lathe_loadtest.result import LoadResult, as_json, write_result
from lathe_loadtest.utilisation import Utilisation, at_capacity, of_variants
from tests.conftest import ROOT
from tests.loadtest.synthetic import synthetic_result

SEVEN_TENTHS = {"int8": 0.7, "fp32": 0.7}
BIG = Instance("big", cores=16, price_per_hour=0.60, speed=0.8)


def need(variant: str, ms: float, low: float = math.nan, high: float = math.nan) -> Need:
    return Need(variant, Interval(ms / 1e3, low / 1e3, high / 1e3, 0.95), "measured")


def idle(result: LoadResult) -> LoadResult:
    """Whose server tells a CPU time of 0 throughout."""
    return replace(result, server=tuple(replace(one, cpu_seconds=0.0) for one in result.server))


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
    rows = plan_rows([need("int8", 5), need("fp32", 20)], [BIG], fps=10, utilisations=SEVEN_TENTHS, cameras_wanted=500)
    assert [(row.need.variant, row.cameras, row.machines) for row in rows] == [("int8", 179, 3), ("fp32", 44, 12)]
    assert [row.camera_month for row in rows] == pytest.approx([438 / 179, 438 / 44])
    assert [row.month for row in rows] == pytest.approx([3 * 438, 12 * 438])


def test_the_measured_interval_goes_through_to_the_cameras() -> None:
    (row,) = plan_rows([need("int8", 5, 4.5, 5.6)], [Instance("small", 4)], fps=10, utilisations={"int8": 0.5})
    assert (row.fewest_cameras, row.cameras, row.most_cameras) == (35, 40, 44)
    assert (row.camera_month, row.month, row.machines) == (None, None, 0), "no price is not a price of 0"


def test_a_machine_that_carries_no_camera_has_no_price_for_one() -> None:
    (row,) = plan_rows(
        [need("fp32", 900)], [Instance("small", 1, 0.1)], fps=10, utilisations=SEVEN_TENTHS, cameras_wanted=5
    )
    assert (row.cameras, row.camera_month, row.machines, row.month) == (0, None, 0, None)


def test_more_frames_than_a_process_takes_need_more_servers() -> None:
    (row,) = plan_rows([need("student", 1)], [Instance("huge", 64)], fps=10, utilisations={"student": 0.7})
    assert (row.cameras, row.servers) == (4480, 23)


@pytest.mark.parametrize("numbers", [{"fps": 0.0}, {"fps": 10, "cameras_wanted": -1}])
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        plan_rows([need("int8", 5)], [BIG], utilisations=SEVEN_TENTHS, **numbers)  # type: ignore[arg-type]


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
        (idle(synthetic_result()), "holds no CPU time of the server"),
        (replace(synthetic_result(), ended="interrupted"), "did not come to its end: interrupted"),
    ],
)
def test_runs_that_tell_no_cpu_time_are_refused(result: LoadResult, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        measured_need(result, "run.json")


def test_cards_count_with_a_cameras_picture_and_what_grpc_takes() -> None:
    found = carded_needs({"int8": card(), "bare": card(variant="bare", infer=0)}, {})
    assert (found.added_seconds, found.is_measured, found.untold) == (0.0007, False, ["bare"])
    assert found.needs["int8"].cpu_seconds.value == pytest.approx(0.0006 + 0.0002 + 0.003 + 0.0002 + 0.0007)


def test_what_runs_took_beyond_their_cards_is_added_to_the_other_cards() -> None:
    cards = {"int8": card(), "fp32": card(variant="fp32", infer=0.011, decode=0.001)}
    found = carded_needs(cards, {"int8": need("int8", 4.5)})
    assert (found.added_seconds, found.is_measured) == (pytest.approx(0.0045 - 0.004), True)
    assert list(found.needs) == ["fp32"]
    assert found.needs["fp32"].cpu_seconds.value == pytest.approx(0.0124 + 0.0005)


def test_what_a_measured_card_without_a_latency_took_beyond_it_is_not_known() -> None:
    cards = {"int8": card(infer=0), "fp32": card(variant="fp32", infer=0.011)}
    found = carded_needs(cards, {"int8": need("int8", 4.5)})
    assert (found.added_seconds, found.is_measured) == (0.0007, False)


def test_the_utilisation_at_capacity_is_the_runs_own() -> None:
    run = synthetic_result(seconds=40)
    variant, found = at_capacity(as_json(run), "run.json", {}, cores=2)
    assert (variant, found.share, found.source) == ("int8", pytest.approx(0.05), "what it used in run.json")
    server = tuple(replace(one, cpu_seconds=(one.cpu_seconds or 0) * 30) for one in run.server)
    with pytest.raises(InvalidInput, match=r"the server used 3\.0 cores, and there are to be 2"):
        at_capacity(as_json(replace(run, server=server)), "run.json", {}, cores=2)


def test_a_run_at_the_capacity_of_a_server_elsewhere_says_nothing_of_this_machine() -> None:
    text = as_json(replace(synthetic_result(seconds=40), address="cam.example:8500"))
    with pytest.raises(InvalidInput, match="give it as --measured, too"):
        at_capacity(text, "run.json", {}, cores=2)
    assert at_capacity(text, "run.json", {"int8": need("int8", 5)}, cores=2)[1].share == pytest.approx(0.05)


def capacity(
    *loads: float, variants: tuple[str, ...] = ("int8",), workers: int = 0, other_fps: float = 0.0
) -> CapacityFile:
    """Args:
    loads: found by a search each; 0 stands for one that found none.
    """
    searches = tuple(
        Search(load, load, load or None, (Run(10.0, True),), "" if load else "every load was carried") for load in loads
    )
    return CapacityFile("face", variants, workers, 10.0, other_fps, 0.1, 0.0, searches)


def text_of(file: CapacityFile, folder: Path) -> str:
    write_capacity(file, folder / "capacity.json")
    return (folder / "capacity.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("file", "share"),
    [
        (capacity(34.0, 32.0), 0.8),  # 32 cameras at 10 fps of 5 ms each are 1.6 of two cores
        (capacity(34.0, 0.0), 0.85),  # the other has found none
        (capacity(30.0, other_fps=20.0), 0.8),
        (capacity(20.4, workers=1), 1.0),  # 1.02 cores of the one that its workers had, and not half of two
        (capacity(18.0, workers=1), 0.9),
    ],
)
def test_the_least_capacity_is_a_share_of_what_the_server_could_use(
    file: CapacityFile, share: float, tmp_path: Path
) -> None:
    variant, found = at_capacity(text_of(file, tmp_path), "capacity.json", {"int8": need("int8", 5)}, cores=2)
    assert (variant, found.share) == ("int8", pytest.approx(share))
    assert ("where it had 1 of 2 cores" in found.source) == (file.workers == 1)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (capacity(), "found no capacity"),
        (capacity(0.0), "found no capacity"),
        (capacity(60.0), "used 3.0 cores, and there are to be 2"),
        (capacity(30.0, variants=("fp32",)), "is of fp32, whose CPU time is not known"),
        (capacity(30.0, variants=("fp32", "int8")), "must be of one variant; answered by: fp32, int8"),
    ],
)
def test_files_without_a_capacity_are_refused(file: CapacityFile, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        at_capacity(text_of(file, tmp_path), "c.json", {"int8": need("int8", 5)}, cores=2)


def test_a_file_that_is_neither_is_refused() -> None:
    for text in ("[]", '{"searches": []}', '{"kind": "capacity", "format": 1}', '{"kind": "capacity", "x": NaN}'):
        with pytest.raises(InvalidInput):
            at_capacity(text, "c.json", {}, cores=2)


def test_each_variant_has_its_own_utilisation_and_others_the_least() -> None:
    found = {"int8": Utilisation(0.9, "seen"), "fp32": Utilisation(0.8, "seen, too")}
    shares = {name: one.share for name, one in of_variants(["int8", "fp32", "student"], found).items()}
    assert shares == {"int8": 0.9, "fp32": 0.8, "student": 0.8}
    assert of_variants(["int8"], {})["int8"].share == 0.7
    assert of_variants(["int8"], {}, asked=0.5)["int8"].source == "as was asked for"


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
        ('currency = ""\n[[instances]]\nname = "a"\ncores = 4', '"currency" is empty'),
        ('currency = "USD"\n[[instances]]\nname = "this machine"\ncores = 4', "give the instance another name"),
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


def test_capacities_that_were_found_set_the_utilisation_of_their_variants(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(repository), "--json", "--at-capacity"]
    for variant, load in (("int8", 60.0), ("fp32", 70.0)):
        write_result(synthetic_result(seconds=40, latency_ms={variant: 20.0}), tmp_path / f"{variant}.json")
        write_capacity(capacity(load, variants=(variant,)), tmp_path / f"{variant}-capacity.json")
        words.append(str(tmp_path / f"{variant}-capacity.json"))
    measured = ["--measured", *(str(tmp_path / f"{variant}.json") for variant in ("int8", "fp32"))]
    assert main([*words, *measured[:2]]) == 1
    assert "fp32-capacity.json is of fp32, whose CPU time is not known" in capsys.readouterr().err
    assert main([*words, *measured]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {row["variant"]: row["cameras"] for row in table["rows"]} == {"int8": 60, "fp32": 70}
    assert [row["utilisation"] for row in table["rows"]] == pytest.approx([0.875, 0.75])  # 70 or 60 × 10 × 0.0025 ÷ 2
    assert any("uses 75% of the cores with int8: what int8 takes" in said for said in table["assumptions"])


def test_a_server_elsewhere_has_cores_that_must_be_said(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(replace(synthetic_result(seconds=40), address="cam.example:8500"), tmp_path / "int8.json")
    words = ["plan", str(repository), "--measured", str(tmp_path / "int8.json")]
    assert main(words) == 1
    assert "does not know how many cores the server at cam.example:8500 has: say --cores" in capsys.readouterr().err
    assert main([*words, "--cores", "4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "On the server's machine int8 carries 112 cameras" in out
    assert "the machine of cam.example:8500" in out
    assert "this machine" not in out.lower()


def test_a_run_that_left_frames_unanswered_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(synthetic_result(seconds=40, drops=0.2), tmp_path / "int8.json")
    assert main(["plan", "--measured", str(tmp_path / "int8.json")]) == 0
    assert "of the frames were answered; what the others took counts as theirs" in " ".join(
        capsys.readouterr().out.split()
    )


def test_json_holds_the_rows_and_the_assumptions(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(repository), "--cores", "4", "--utilisation", "0.5", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {row["variant"]: row["cameras"] for row in table["rows"]} == {"int8": 42, "fp32": 15}
    assert {row["utilisation"] for row in table["rows"]} == {0.5}
    assert any("on one thread" in sentence for sentence in table["assumptions"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a plan needs REPOSITORY/MODEL or --measured"),
        (["REPOSITORY", "--utilisation", "7"], "the utilisation must be above 0"),
        (["REPOSITORY", "--utilisation", "0.5", "--at-capacity", "c.json"], "takes the place of --at-capacity"),
        (["REPOSITORY", "--cores", "0"], "--cores must be 1 or above"),
        (["REPOSITORY", "--prices", "none.toml"], "there is no file none.toml"),
        (["REPOSITORY", "--measured", "none.json"], "there is no file none.json"),
    ],
)
def test_mistakes_are_told_in_a_line(
    repository: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *(str(repository) if word == "REPOSITORY" else word for word in words)]) == 1
    assert message in capsys.readouterr().err
