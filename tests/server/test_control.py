"""ControlService over a real port: what it refuses, and with which status."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from lathe.client import ServerError
from lathe.repository import Repository
from lathe.v1 import control_pb2
from tests.calls import channel, control, exposition, metric, refusal
from tests.conftest import RunningServer
from tests.models import bright_spots, card_for


def request(
    model: str = "spots", revision: int = 0, author: str = "", reason: str = "", **weights: int
) -> control_pb2.SetRouteRequest:
    return control_pb2.SetRouteRequest(
        model=model,
        expected_revision=revision,
        author=author,
        reason=reason,
        weights=[control_pb2.RouteWeight(variant=name, weight=weight) for name, weight in weights.items()],
    )


WRONG = {
    "no weights": (request(), "INVALID_ARGUMENT"),
    "all weights zero": (request(a=0), "INVALID_ARGUMENT"),
    "a weight too large": (request(a=2**32 - 1), "INVALID_ARGUMENT"),
    "a bad model's name": (request("../x", a=1), "INVALID_ARGUMENT"),
    "no model's name": (request("", a=1), "INVALID_ARGUMENT"),
    "a bad variant's name": (request(**{"../../etc": 1}), "INVALID_ARGUMENT"),
    "the folder of routes": (request(routes=1), "NOT_FOUND"),
    "an unknown model": (request("faces", a=1), "NOT_FOUND"),
    "an unknown variant": (request(z=1), "NOT_FOUND"),
    "a long reason": (request(reason="x" * 1025, a=1), "INVALID_ARGUMENT"),
    "a long author": (request(author="x" * 257, a=1), "INVALID_ARGUMENT"),
    "a variant twice": (
        control_pb2.SetRouteRequest(
            model="spots",
            weights=[control_pb2.RouteWeight(variant="a", version=number, weight=1) for number in (0, 1)],
        ),
        "INVALID_ARGUMENT",
    ),
    "a stale revision": (request(revision=7, a=1), "ABORTED"),
}


@pytest.mark.fault(54, 56, 61)
@pytest.mark.parametrize("what", WRONG)
def test_a_route_that_cannot_be_is_refused(shared_server: RunningServer, what: str) -> None:
    wrong, status = WRONG[what]
    with channel(shared_server.control) as opened:
        assert refusal(lambda: control(opened).SetRoute(wrong)).code().name == status


def test_an_unknown_version_is_not_found(shared_server: RunningServer) -> None:
    wrong = control_pb2.SetRouteRequest(
        model="spots", weights=[control_pb2.RouteWeight(variant="a", version=2**32 - 1, weight=1)]
    )
    with channel(shared_server.control) as opened:
        assert refusal(lambda: control(opened).SetRoute(wrong)).code().name == "NOT_FOUND"


@pytest.mark.fault(50, 61)
def test_of_two_callers_with_one_revision_in_mind_one_wins(server: RunningServer) -> None:
    def attempt(number: int) -> str:
        with channel(server.control) as opened:
            call = control(opened).SetRoute.future(request(revision=1, **{"ab"[number % 2]: 1}))
            return str(call.code().name)

    with channel(server.control) as opened:
        assert control(opened).SetRoute(request(a=1)).route.revision == 1
        with ThreadPoolExecutor(8) as pool:
            codes = sorted(pool.map(attempt, range(8)))
        assert codes == ["ABORTED"] * 7 + ["OK"]
        assert control(opened).GetRoute(control_pb2.GetRouteRequest(model="spots")).route.revision == 2


@pytest.mark.fault(52)
def test_fifty_callers_who_want_the_same_variant_cause_one_load(server: RunningServer) -> None:
    with channel(server.control) as opened:
        calls = [control(opened).SetRoute.future(request(b=1)) for _ in range(50)]
        assert sorted(call.result().route.revision for call in calls) == list(range(1, 51))
    assert server.log.read_text().count("loaded: spots/b/1") == 1


def test_the_newest_version_is_taken_where_none_is_named(server: RunningServer, repository: Repository) -> None:
    repository.publish(card_for("spots", "a"), bright_spots(box_pixels=20))
    with channel(server.control) as opened:
        assert control(opened).SetRoute(request(a=1)).route.weights[0].version == 2


def test_what_serves_is_listed_though_a_newer_version_is_published(
    server: RunningServer, repository: Repository
) -> None:
    repository.publish(card_for("spots", "a"), bright_spots(box_pixels=20))
    with server.client() as client:
        listed = {(s.card.variant, s.card.version): (s.state, s.weight) for s in client.variants("spots")}
    assert listed == {
        ("a", 1): (control_pb2.SERVABLE_STATE_READY, 1),
        ("a", 2): (control_pb2.SERVABLE_STATE_FOUND, 0),
        ("b", 1): (control_pb2.SERVABLE_STATE_FOUND, 0),
    }


def test_a_variant_of_weight_0_is_on_the_route_and_not_in_memory(server: RunningServer) -> None:
    with channel(server.control) as opened:
        control(opened).SetRoute(request(a=1, b=0))
        route = control(opened).GetRoute(control_pb2.GetRouteRequest(model="spots")).route
    assert [(weight.variant, weight.weight) for weight in route.weights] == [("a", 1), ("b", 0)]
    assert metric(server, "lathe_variant_state", variant="b", state="ready") == 0


def test_only_a_route_that_somebody_set_says_when_it_was_set(server: RunningServer) -> None:
    asked = control_pb2.GetRouteRequest(model="spots")
    with channel(server.control) as opened:
        assert not control(opened).GetRoute(asked).route.HasField("created_at")
        made = control(opened).SetRoute(request(a=1, author="me", reason="why")).route
        assert made.HasField("created_at")
        assert control(opened).GetRoute(asked).route == made


def test_what_was_loaded_for_a_swap_that_failed_is_given_back(server: RunningServer, repository: Repository) -> None:
    repository.publish(card_for("spots", "bad"), b"no model")
    with channel(server.control) as opened:
        assert refusal(lambda: control(opened).SetRoute(request(b=1, bad=1))).code().name == "FAILED_PRECONDITION"
    assert metric(server, "lathe_variant_state", variant="a", state="ready") == 1
    assert metric(server, "lathe_variant_state", variant="b", state="ready") == 0


@pytest.mark.fault(82)
def test_made_up_models_are_no_labels(shared_server: RunningServer) -> None:
    with channel(shared_server.control) as opened:
        for number in range(5):
            refusal(lambda n=number: control(opened).SetRoute(request(f"made-up-{n}", a=1)))
    assert "made-up" not in exposition(shared_server)


@pytest.mark.fault(16, 59)
def test_the_control_service_is_not_on_the_inference_port(shared_server: RunningServer) -> None:
    with channel(shared_server.grpc) as opened:
        error = refusal(lambda: control(opened).SetRoute(request(a=1)))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_variant_that_is_loaded_by_name_stays_until_it_is_unloaded(server: RunningServer, spot_jpeg: bytes) -> None:
    with server.client() as client:

        def state() -> int:
            return {status.card.variant: status.state for status in client.variants("spots")}["b"]

        assert client.load("spots", "b") == "b/1"
        client.set_route("spots", {"a": 1})
        assert state() == control_pb2.SERVABLE_STATE_READY, "no route needs it, and it stays"
        assert client.detect("spots", spot_jpeg).variant == "a"
        assert client.detect("spots", spot_jpeg, variant="b").variant == "b"
        assert client.unload("spots", "b/1") == "b/1"
        assert state() == control_pb2.SERVABLE_STATE_FOUND
        for call, why in (
            (lambda: client.unload("spots", "b"), "FAILED_PRECONDITION"),
            (lambda: client.load("spots", "lost"), "NOT_FOUND"),
            (lambda: client.load("spots", "B"), "INVALID_ARGUMENT"),
        ):
            with pytest.raises(ServerError) as caught:
                call()
            assert caught.value.code.name == why


@pytest.mark.fault(54)
def test_what_is_on_a_route_is_unloaded_by_force_only_and_the_last_one_never(
    server: RunningServer, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1}, degrade=["b"], degrade_after_seconds=1.0)
        with pytest.raises(ServerError, match="on the route of spots; take it off first, or force it"):
            client.unload("spots", "b")
        client.unload("spots", "b", force=True)
        route = client.route("spots")
        assert [weight.variant for weight in route.weights] == ["a"]
        assert not route.degrade.variants
        with pytest.raises(ServerError, match="is the only one on the route of spots") as caught:
            client.unload("spots", "a", force=True)
        assert caught.value.code.name == "FAILED_PRECONDITION"
        assert client.detect("spots", spot_jpeg).variant == "a"
