"""The scenarios in the box: each is whole, fits the server that it meets, and can be made shorter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lathe.errors import InvalidInput, NotFound
from lathe.v1 import card_pb2, control_pb2
from lathe_loadtest import boxed
from lathe_loadtest.actions import moments
from lathe_loadtest.scenario import Action, Cameras, Scenario, Shape
from lathe_loadtest.schedule import plans

NAMES = (
    "ab-split",
    "client-kills",
    "degrade-ramp",
    "hot-camera",
    "network-cuts",
    "overload2",
    "overload3",
    "restart",
    "slow-reader",
    "soak",
    "steady",
    "swap-storm",
)


def served(
    *names: str, model: str = "face", task: card_pb2.Task = card_pb2.TASK_DETECTION
) -> list[control_pb2.VariantStatus]:
    """Variants of which each is cheaper than the one before."""
    return [
        control_pb2.VariantStatus(card=card_pb2.Card(model=model, task=task, variant=name, macs=1000 - number))
        for number, name in enumerate(names)
    ]


def test_what_is_in_the_box() -> None:
    assert boxed.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_scenario_that_says_what_it_is_and_what_it_expects(name: str) -> None:
    scenario = boxed.find(name)
    assert scenario.name == name
    assert 40 < len(scenario.about) <= 120
    assert scenario.expect
    groups = {cameras.name for cameras in scenario.cameras}
    assert {one.of for one in scenario.expect} <= groups | {""}
    done = len(moments(scenario))
    assert max(one.actions for one in scenario.expect) <= done, "more is expected than is done"


@pytest.mark.parametrize("name", NAMES)
def test_each_fits_a_server_with_two_variants_and_leaves_nothing_open(name: str) -> None:
    fitted = boxed.fitted(boxed.find(name), served("dear", "cheap"))
    assert "$" not in repr(fitted)
    assert fitted.model == "face"


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_short_and_then_does_the_same_as_often(name: str) -> None:
    scenario = boxed.find(name)
    short = boxed.at_rate(boxed.stretched(scenario, 3.0), 200.0)
    assert len(moments(short)) == len(moments(scenario))
    assert sum(len(plan.due) for plan in plans(short)) > 100


def test_places_are_variants_from_the_dearest_on() -> None:
    action = Action(1.0, "route", weights={"$1": 7, "$2": 3}, degrade=("$3",))
    scenario = Scenario("$model", (Cameras(variant="$2"),), actions=(action,))
    fitted = boxed.fitted(scenario, [*reversed(served("a", "c", "b"))])
    assert fitted.actions[0].weights == {"a": 7, "c": 3}
    assert fitted.actions[0].degrade == ("b",)
    assert fitted.cameras[0].variant == "c"


def test_a_scenario_that_needs_more_variants_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs 2 variants; of face the server has 1"):
        boxed.fitted(boxed.find("ab-split"), served("only"))


def test_of_several_models_the_only_one_that_detects_is_meant() -> None:
    embedding = served("x", "y", "z", model="faces", task=card_pb2.TASK_EMBEDDING)
    tensors = served("any", model="a", task=card_pb2.TASK_TENSORS)
    for models in ([*embedding, *tensors, *served("dear", "cheap")], [*served("dear", "cheap"), *embedding]):
        fitted = boxed.fitted(boxed.find("swap-storm"), models)
        assert fitted.model == "face"
        assert {name for action in fitted.actions for name in action.weights} == {"dear", "cheap"}


@pytest.mark.parametrize("task", [card_pb2.TASK_EMBEDDING, card_pb2.TASK_TENSORS])
def test_an_only_model_that_detects_nothing_is_sent_tensors_alone(task: card_pb2.Task) -> None:
    only = served("any", model="a", task=task)
    with pytest.raises(InvalidInput, match="the server's only model, a, detects nothing"):
        boxed.fitted(boxed.find("steady"), only)
    assert boxed.fitted(replace(boxed.find("steady"), protocol="tensors"), only).model == "a"


def test_of_several_that_detect_one_must_be_named() -> None:
    both = [*served("x", "y", model="plates"), *served("a", "b")]
    with pytest.raises(InvalidInput, match="say by --model which model: the server has face, plates"):
        boxed.fitted(boxed.find("steady"), both)
    neither = [served("x", model=name, task=card_pb2.TASK_EMBEDDING)[0] for name in ("b", "a")]
    with pytest.raises(InvalidInput, match="the server has a, b"):
        boxed.fitted(boxed.find("steady"), neither)
    with pytest.raises(InvalidInput, match="the server has none"):
        boxed.fitted(boxed.find("steady"), [])
    named = Scenario("plates", (Cameras(),), actions=(Action(1.0, "route", weights={"$1": 1}),))
    assert boxed.fitted(named, both).actions[0].weights == {"x": 1}


def test_a_name_that_is_neither_in_the_box_nor_a_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match='did you mean "swap-storm"'):
        boxed.find("swapstorm")
    with pytest.raises(NotFound, match=r"there is no file .*mine\.toml"):
        boxed.find(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text('model = "face"\n[[cameras]]\nfps = 3\n', "utf-8")
    assert boxed.find(str(tmp_path / "mine.toml")).cameras[0].fps == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[expect]]\nlots = 1\n", 'line 5: unknown key "lots"; did you mean "lost"'),
        ("[[expect]]\ndropped_share = 2.0\n", '"dropped_share" is a share'),
        ("[faults]\nloss = 1.0\n", "loss is a share"),
        ("of_capacity = -1\n", '"of_capacity" must be 0 or above'),
        ('[[actions]]\nat_seconds = 1\ndo = "cut"\nhow = "softly"\n', '"how" must be one of'),
        ('[[actions]]\nat_seconds = 1\ndo = "cut"\nshare = 0\n', '"share" must be above 0'),
    ],
)
def test_a_bad_file_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    head = 'model = "face"\n' if text.startswith("[") else f'model = "face"\n{text}'
    path.write_text(f"{head}[[cameras]]\nfps = 3\n{text if text.startswith('[') else ''}", "utf-8")
    with pytest.raises(InvalidInput, match=r"bad\.toml") as caught:
        boxed.find(str(path))
    assert message in caught.value.message


def test_rates_are_shares_of_what_the_server_can_do() -> None:
    scenario = Scenario("face", (Cameras("a", 4, 10.0), Cameras("b", 1, 60.0)), of_capacity=0.5)
    scaled = boxed.scaled(scenario, capacity=400.0)
    assert [cameras.fps for cameras in scaled.cameras] == pytest.approx([20.0, 120.0])
    assert boxed.total_fps(scaled) == pytest.approx(200.0)
    assert boxed.scaled(Scenario("face", (Cameras(),)), 400.0).cameras[0].fps == 10.0
    with pytest.raises(InvalidInput, match="too few cameras for 500000 frames"):
        boxed.scaled(scenario, capacity=1e6)


@pytest.mark.parametrize(("seconds", "warmup"), [(25.0, 2), (30.0, 3), (6.0, 1), (1.0, 0), (0.5, 0)])
def test_a_warm_up_stays_one_of_whole_seconds(seconds: float, warmup: int) -> None:
    steady = Scenario("face", (Cameras(),), seconds=20, warmup_seconds=2)
    assert boxed.stretched(steady, seconds).warmup_seconds == warmup


def test_times_stretch_with_the_length() -> None:
    scenario = Scenario(
        "face",
        (Cameras(joins_seconds=2, leaves_seconds=8),),
        seconds=10,
        warmup_seconds=3,
        shape=Shape("spike", at_seconds=4, for_seconds=2),
        actions=(Action(5, "rollback", every_seconds=2),),
    )
    longer = boxed.stretched(scenario, 100)
    assert (longer.cameras[0].joins_seconds, longer.cameras[0].leaves_seconds) == (20, 80)
    assert (longer.shape.at_seconds, longer.shape.for_seconds) == (40, 20)
    assert longer.warmup_seconds == 30
    assert (longer.actions[0].at_seconds, longer.actions[0].every_seconds) == (50, 20)


def test_cameras_go_and_are_cut_as_often_but_not_all_the_time() -> None:
    kind = Cameras(away_every_seconds=20, away_seconds=4, reconnect_every_seconds=60)
    scenario = Scenario("face", (kind, Cameras("often", reconnect_every_seconds=0.5)), seconds=600)
    half, short = (boxed.stretched(scenario, seconds).cameras for seconds in (300, 6))
    assert (half[0].away_every_seconds, half[0].away_seconds, half[0].reconnect_every_seconds) == (10, 2, 30)
    assert (short[0].away_every_seconds, short[0].away_seconds, short[0].reconnect_every_seconds) == (2, 0.4, 2)
    assert short[1].reconnect_every_seconds == 0.5
    assert short[1].away_every_seconds == 0


def test_a_place_is_a_whole_name() -> None:
    names = ("a", "b", *(f"v{number}" for number in range(3, 11)))
    scenario = Scenario("face", (Cameras(variant="$10"), Cameras("other", variant="my$1")))
    fitted = boxed.fitted(scenario, served(*names))
    assert [cameras.variant for cameras in fitted.cameras] == ["v10", "my$1"]
    assert not boxed.is_open(fitted)


def test_more_cameras_than_there_can_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot have 10001 cameras"):
        boxed.with_cameras(Scenario("face", (Cameras(),)), 10_000.5)
