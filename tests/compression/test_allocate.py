"""How a target is shared out among groups of channels: tables of small cases."""

from __future__ import annotations

import itertools

import pytest

from lathe_compression.allocate import Ranking, allocate, total_cost
from lathe_compression.channels import LayerCost


def even(width: int, loss: float) -> Ranking:
    """Channels of the same worth."""
    return Ranking(range(width), [loss] * width)


TWO = [LayerCost(100, ("cheap",)), LayerCost(100, ("dear",))]


@pytest.mark.parametrize(
    ("why", "rankings", "layers", "target", "round_to", "least", "gone"),
    [
        ("nothing goes where the target is met", {"a": even(16, 1)}, [LayerCost(100, ("a",))], 100, 8, 8, {"a": 0}),
        ("one block goes for a hair", {"a": even(16, 1)}, [LayerCost(100, ("a",))], 99.9, 8, 4, {"a": 8}),
        ("what loses least goes", {"cheap": even(16, 1), "dear": even(16, 9)}, TWO, 150, 8, 8, {"cheap": 8, "dear": 0}),
        ("then what is left", {"cheap": even(16, 1), "dear": even(16, 9)}, TWO, 149, 8, 8, {"cheap": 8, "dear": 8}),
        (
            "of equal loss what saves most goes",
            {"small": even(16, 1), "large": even(16, 1)},
            [LayerCost(10, ("small",)), LayerCost(100, ("large",))],
            60,
            8,
            8,
            {"small": 0, "large": 8},
        ),
        ("odd widths come to the multiple first", {"a": even(20, 1)}, [LayerCost(20, ("a",))], 19, 8, 8, {"a": 4}),
        ("and then go by whole blocks", {"a": even(20, 1)}, [LayerCost(20, ("a",))], 15, 8, 8, {"a": 12}),
        ("single channels, if so asked", {"a": even(10, 1)}, [LayerCost(10, ("a",))], 7, 1, 1, {"a": 3}),
        ("no group goes below the least", {"a": even(32, 1)}, [LayerCost(32, ("a",))], 0, 8, 16, {"a": 16}),
        ("a group at its least gives nothing", {"a": even(8, 1)}, [LayerCost(8, ("a",))], 0, 8, 8, {"a": 0}),
        ("nor does one that is under it", {"a": even(6, 1)}, [LayerCost(6, ("a",))], 0, 8, 8, {"a": 0}),
        (
            "a target of nothing takes all that may go",
            {"a": even(16, 1), "b": even(24, 1)},
            [],
            0,
            8,
            8,
            {"a": 0, "b": 0},
        ),
        ("a group that saves nothing is spared", {"a": even(16, 0)}, [LayerCost(50, ())], 10, 8, 8, {"a": 0}),
        ("no group, nothing to say", {}, [LayerCost(50, ())], 10, 8, 8, {}),
        (
            "the first channels of a ranking count, not the mean",
            {"a": Ranking(range(16), [0] * 8 + [100] * 8), "b": Ranking(range(16), [5] * 16)},
            [LayerCost(16, ("a",)), LayerCost(16, ("b",))],
            24,
            8,
            8,
            {"a": 8, "b": 0},
        ),
    ],
)
def test_allocation(
    why: str,
    rankings: dict[str, Ranking],
    layers: list[LayerCost],
    target: float,
    round_to: int,
    least: int,
    gone: dict[str, int],
) -> None:
    assert allocate(rankings, layers, target, round_to, least) == gone, why


def test_layer_between_two_groups_is_cheaper_by_both() -> None:
    layers = [LayerCost(100, ("a", "b")), LayerCost(10, ("a",)), LayerCost(1, ())]
    assert total_cost(layers, {"a": 0.5, "b": 0.2}) == pytest.approx(10 + 5 + 1)


def test_layer_that_a_group_enters_and_leaves_shrinks_by_its_square() -> None:
    layers = [LayerCost(100, ("a", "a"))]
    assert total_cost(layers, {"a": 0.5}) == 25
    assert allocate({"a": even(16, 1)}, layers, 25, 8, 8) == {"a": 8}


@pytest.mark.parametrize("share", [0.9, 0.6, 0.35])
def test_target_is_met_and_not_by_much(share: float) -> None:
    """Eight groups in a row, each the input of the next; a block is at most a twentieth of the whole."""
    names = [f"group {number}" for number in range(8)]
    rankings = {
        name: Ranking(range(64), [1.0 + place * number for number in range(64)]) for place, name in enumerate(names)
    }
    layers = [LayerCost(100, pair) for pair in itertools.pairwise(names)]
    gone = allocate(rankings, layers, share * 700, 8, 8)
    left = total_cost(layers, {name: 1 - count / 64 for name, count in gone.items()})
    assert share * 700 - 35 < left <= share * 700
