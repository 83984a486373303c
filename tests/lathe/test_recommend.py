"""The recommendation, as a table, and the figures that feed it."""

from __future__ import annotations

import pytest

from lathe.carded_figures import compare_cards
from lathe.errors import InvalidInput, NotFound
from lathe.evidence import Interval
from lathe.figures import Comparison, Figures, Quality, Rates, common_reference, lineage, load_cards, reference_first
from lathe.fronts import check_limits, choose, fronts
from lathe.recommend import Candidate, Limits, recommend
from lathe.repository import Repository
from lathe.v1 import card_pb2
from tests.models import card_for

FP32 = Candidate("fp32", quality=0.61, latency_ms=6.0, size_mb=7.3, cost=2.0)
INT8 = Candidate("int8", quality=0.60, latency_ms=3.0, size_mb=2.2, cost=1.0)
SMALL = Candidate("small", quality=0.50, latency_ms=1.0, size_mb=1.0, cost=0.4)
ALL = [FP32, INT8, SMALL]


def alike(one: str, other: str) -> bool:
    """fp32 and int8 cannot be told apart."""
    return {one, other} == {"fp32", "int8"}


@pytest.mark.parametrize(
    ("limits", "is_equal", "chosen"),
    [
        (Limits(), lambda one, other: False, "fp32"),
        (Limits(), alike, "int8"),
        (Limits(), lambda one, other: True, "small"),
        (Limits(max_latency_ms=3), alike, "int8"),
        (Limits(max_latency_ms=2.9), alike, "small"),
        (Limits(max_size_mb=7), alike, "int8"),
        (Limits(min_ap=0.605), alike, "fp32"),
        (Limits(min_ap=0.6, max_latency_ms=5), alike, "int8"),
    ],
)
def test_best_quality_within_the_limits_and_the_cheapest_of_equals(limits, is_equal, chosen) -> None:  # type: ignore[no-untyped-def]
    assert recommend(ALL, limits, is_equal).variant == chosen


@pytest.mark.parametrize(
    ("limits", "nearest", "told"),
    [
        (Limits(max_latency_ms=0.9), "small", "No variant keeps to at most 0.9 ms. Nearest is small: 1.00 ms is more"),
        (Limits(min_ap=0.7), "fp32", "No variant keeps to an AP of at least 0.7. Nearest is fp32: an AP of 0.610"),
        (Limits(max_size_mb=0.5), "small", "No variant keeps to at most 0.5 MB."),
        (Limits(min_ap=0.605, max_latency_ms=5), "int8", "Each limit is met by some variant, but no variant meets"),
        (Limits(min_ap=0.9, max_size_mb=0.5), "small", "an AP of at least 0.9 or at most 0.5 MB."),
    ],
)
def test_where_none_is_within_the_limits_it_tells_which_and_the_nearest(
    limits: Limits, nearest: str, told: str
) -> None:
    found = recommend(ALL, limits)
    assert (found.variant, found.nearest) == ("", nearest)
    assert told in " ".join(found.reasons)
    assert found.failed


def test_of_the_same_quality_the_cheaper_is_best() -> None:
    found = recommend([Candidate("a", 0.6, 2, 1, 2), Candidate("b", 0.6, 1, 1, 1)], Limits())
    assert found.variant == "b"


def test_nothing_to_choose_from() -> None:
    assert not recommend([], Limits()).variant


@pytest.mark.parametrize(
    "limits", [{"max_latency_ms": 0.0}, {"max_size_mb": -1.0}, {"min_ap": 1.1}, {"max_latency_ms": float("nan")}]
)
def test_limits_that_make_no_sense(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Limits(**limits)


def measured(
    card: card_pb2.Card, infer: float, *, agreement: float = 0.0, ap50: float = 0.0, version: int = 1
) -> card_pb2.Card:
    card.version = version
    card.size_bytes = 1000
    latency = card.latency.add(speedup=2.0, reference_variant="fp32", runs=40, cpu="a cpu", runtime="ort")
    latency.size.CopyFrom(card.serving_size)
    latency.stages.infer = infer
    if agreement:
        card.quality.add(metric="agreement", value=agreement, size=card.serving_size)
    if ap50:
        card.quality.add(metric="ap50", data="dev medium", value=ap50, size=card.serving_size)
    return card


def test_cards_without_precision_are_compared_by_agreement() -> None:
    cards = {
        "int8": measured(card_for("spots", "int8", parent="fp32"), 0.002, agreement=0.9, ap50=0.6),
        "fp32": measured(card_for("spots", "fp32"), 0.004),
    }
    comparison = compare_cards(cards)
    assert (comparison.reference, list(comparison.cards)) == ("fp32", ["fp32", "int8"])
    assert comparison.quality_name == "agreement"
    assert [one.quality for one in comparison.figures.values()] == [1.0, 0.9]
    with pytest.raises(InvalidInput, match="give --data with labels"):
        check_limits(comparison, Limits(min_ap=0.5))


def test_cards_that_all_have_precision_are_compared_by_it() -> None:
    cards = {
        "fp32": measured(card_for("spots", "fp32"), 0.004, ap50=0.6),
        "int8": measured(card_for("spots", "int8", parent="fp32"), 0.002, agreement=0.9, ap50=0.59),
    }
    comparison = compare_cards(cards)
    check_limits(comparison, Limits(min_ap=0.5))
    assert comparison.quality_name == "AP@.5 dev medium"
    assert choose(comparison, Limits()).variant == "fp32"
    assert choose(comparison, Limits(max_latency_ms=3)).variant == "int8"


def test_a_card_without_figures_is_in_no_front() -> None:
    cards = {"fp32": measured(card_for("spots", "fp32"), 0.004), "bare": card_for("spots", "bare", parent="fp32")}
    comparison = compare_cards(cards)
    assert [front.best for front in fronts(comparison, Rates(0.04, 5))] == [["fp32"]] * 4
    assert "in no plot: bare" in " ".join(comparison.source)


def test_latencies_of_different_machines_are_said_to_be_so() -> None:
    cards = {"a": measured(card_for("spots", "a"), 0.004), "b": measured(card_for("spots", "b"), 0.004)}
    cards["b"].latency[0].cpu = "another"
    assert "different machines or runtimes and not comparable" in " ".join(compare_cards(cards).source)


def test_lineage_orders_the_variants() -> None:
    parents = {"a-small": "pruned", "pruned": "fp32", "fp32": "", "other": ""}
    cards = {name: card_for("spots", name, parent=parent) for name, parent in parents.items()}
    assert common_reference(cards) == "fp32"
    assert list(reference_first(cards, "fp32")) == ["fp32", "other", "pruned", "a-small"]
    assert lineage("a-small", cards) == ["fp32", "pruned", "a-small"]
    circle = {"a": card_for("spots", "a", parent="b"), "b": card_for("spots", "b", parent="a")}
    assert common_reference(circle) in circle
    assert lineage("a", circle) == ["b", "a"]


@pytest.mark.parametrize(
    ("low", "high", "chosen"), [(-0.001, 0.02, "int8"), (0.002, 0.02, "fp32"), (float("nan"), float("nan"), "fp32")]
)
def test_equal_is_what_the_paired_interval_says(low: float, high: float, chosen: str) -> None:
    cards = {name: card_for("spots", name) for name in ("fp32", "int8")}
    figures = {
        "fp32": Figures([Quality("AP@.5", 0.61)], 6.0, 8.0, 1.0),
        "int8": Figures([Quality("AP@.5", 0.60)], 3.0, 4.0, 2.0),
    }
    differences = {("fp32", "int8"): Interval(0.01, low, high, 0.95)}
    comparison = Comparison("fp32", cards, figures, "AP@.5", ["measured"], differences)
    assert choose(comparison, Limits()).variant == chosen


def test_agreement_is_equal_where_one_interval_holds_the_other() -> None:
    cards = {name: card_for("spots", name) for name in ("a", "b")}
    figures = {
        "a": Figures([Quality("agreement", 0.95, Interval(0.95, 0.93, 0.97, 0.95))], 6.0, 8.0, 1.0),
        "b": Figures([Quality("agreement", 0.94, Interval(0.94, 0.92, 0.96, 0.95))], 3.0, 4.0, 2.0),
    }
    assert choose(Comparison("a", cards, figures, "agreement", ["measured"]), Limits()).variant == "b"


def test_rates_must_be_numbers_from_zero_up() -> None:
    assert Rates(0.0, 0.0).cost_per_million(5) == 0
    for price, watts in ((-1.0, 5.0), (0.04, float("inf"))):
        with pytest.raises(InvalidInput):
            Rates(price, watts)


def test_variants_that_are_still_copied_are_not_seen(repository: Repository) -> None:
    (repository.root / "spots/half/1").mkdir(parents=True)
    assert list(load_cards(repository, "spots")) == ["a", "b"]
    with pytest.raises(NotFound, match="there is no model dots"):
        load_cards(repository, "dots")
