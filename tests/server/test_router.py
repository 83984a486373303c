"""Which stream gets which variant: sticky, in proportion, and moving no more than it must."""

from __future__ import annotations

import hashlib
import math

import pytest

from lathe.errors import InvalidInput
from lathe.repository import VariantRef
from lathe_server.router import MAX_WEIGHT, Route, Router, Rule

NAMES = [f"camera-{number}" for number in range(10_000)]


def ref(variant: str, version: int = 1) -> VariantRef:
    return VariantRef("face", variant, version)


def route(**weights: int) -> Route:
    return Route("face", 1, tuple((ref(variant), weight) for variant, weight in weights.items()))


def test_a_stream_keeps_its_variant_while_the_weights_are_the_same() -> None:
    first, again = route(a=1, b=1), Route("face", 99, route(a=1, b=1).weights)
    assert [first.pick(name) for name in NAMES] == [again.pick(name) for name in NAMES]


@pytest.mark.parametrize(
    "weights",
    [{"a": 1, "b": 1}, {"a": 95, "b": 5}, {"a": 1, "b": 2, "c": 7}, {"a": MAX_WEIGHT, "b": MAX_WEIGHT // 9}],
    ids=str,
)
def test_each_variant_gets_its_share_of_the_streams(weights: dict[str, int]) -> None:
    picked = [route(**weights).pick(name).variant for name in NAMES]
    for variant, weight in weights.items():
        share = weight / sum(weights.values())
        sigma = math.sqrt(len(NAMES) * share * (1 - share))
        assert abs(picked.count(variant) - share * len(NAMES)) < 4 * sigma


def test_shifting_weight_between_neighbours_moves_only_the_streams_that_must_move() -> None:
    before, after = route(a=50, b=50), route(a=60, b=40)
    moved = [(before.pick(name).variant, after.pick(name).variant) for name in NAMES]
    changes = [pair for pair in moved if pair[0] != pair[1]]
    assert set(changes) == {("b", "a")}
    assert len(changes) == pytest.approx(1000, abs=4 * math.sqrt(900))


def test_a_client_can_foretell_its_variant() -> None:
    for name in ("", "front door", "Tür 3"):
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        assert route(a=3, b=7).pick(name).variant == ("a" if place < 0.3 else "b")


def test_a_variant_without_weight_gets_no_stream() -> None:
    assert {route(a=0, b=1, c=0).pick(name).variant for name in NAMES} == {"b"}


@pytest.mark.fault(56)
@pytest.mark.parametrize(
    "weights",
    [(), ((ref("a"), 0),), ((ref("a"), -1), (ref("b"), 2)), ((ref("a"), MAX_WEIGHT + 1),), ((ref("a"), 1),) * 2],
    ids=["none", "all zero", "negative", "too large", "twice"],
)
def test_weights_that_make_no_route_are_refused(weights: tuple[tuple[VariantRef, int], ...]) -> None:
    with pytest.raises(InvalidInput):
        Route("face", 1, weights)


def test_two_versions_of_a_variant_may_share_the_streams() -> None:
    shared = Route("face", 1, ((ref("a", 1), 1), (ref("a", 2), 1)))
    assert {shared.pick(name).version for name in NAMES} == {1, 2}


def test_only_what_some_route_gives_weight_is_wanted() -> None:
    router = Router(1)
    router.replace(route(a=1, b=0))
    router.replace(Route("person", 1, ((VariantRef("person", "x", 3), 1),)))
    assert router.wanted() == [ref("a"), VariantRef("person", "x", 3)]
    router.replace(route(b=1))
    assert router.wanted() == [ref("b"), VariantRef("person", "x", 3)]


def test_a_rule_takes_streams_out_of_the_weights_and_the_first_that_fits_decides() -> None:
    ruled = Route("face", 1, route(a=1).weights, rules=(Rule(ref("b"), "lobby-"), Rule(ref("c"), "lob")))
    assert [ruled.pick(name).variant for name in ("lobby-1", "lobster", "gate", "")] == ["b", "c", "a", "a"]
    assert [needed.variant for needed in ruled.needs()] == ["a", "b", "c"]
    assert ruled.without(ref("b")).rules == (Rule(ref("c"), "lob"),)


def test_a_rule_may_look_at_a_header() -> None:
    rules = (Rule(ref("b"), header="x-site", value="gate"), Rule(ref("c"), "gate"))
    ruled = Route("face", 1, route(a=1).weights, rules=rules)
    headers = [("user-agent", "grpc"), ("x-site", "gate")]
    assert ruled.pick("gate-1", headers).variant == "b"
    assert ruled.pick("gate-1", [("x-site", "gate-2"), ("x-site-bin", b"gate")]).variant == "c"
    assert ruled.pick("lobby").variant == "a"


def test_rules_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 64 rules"):
        Route("face", 1, route(a=1).weights, rules=tuple(Rule(ref("b"), f"{n}-") for n in range(65)))
    for said in ({}, {"prefix": "a", "header": "b"}, {"prefix": "a", "value": "b"}, {"header": "b"}):
        with pytest.raises(InvalidInput, match="either the beginning of a stream's name, or a header"):
            Rule(ref("b"), **said)
    for header in ("X-Site", "x-site-bin"):
        with pytest.raises(InvalidInput, match="lower case, and one of text"):
            Rule(ref("b"), header=header, value="gate")
    with pytest.raises(InvalidInput, match="printable"):
        Rule(ref("b"), "lobby\n")
