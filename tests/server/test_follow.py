"""Several servers on one folder agree; what cannot be carried out leaves what serves serving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from lathe.client import ServerError
from lathe.repository import Repository
from lathe.v1 import control_pb2
from tests.calls import metric, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for


def serving(server: RunningServer, picture: bytes) -> str:
    """The variant that answers."""
    with server.client() as client:
        return client.detect("spots", picture).variant


@pytest.fixture
def two(repository: Repository, tmp_path: Path) -> Iterator[tuple[RunningServer, RunningServer]]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(start_server(repository.root, tmp_path / name)) for name in ("1", "2"))
        yield first, second


@pytest.mark.fault(50)
def test_two_servers_on_one_folder_follow_one_route(two: tuple[RunningServer, RunningServer], spot_jpeg: bytes) -> None:
    first, second = two
    with first.client() as client:
        client.set_route("spots", {"b": 1})
    until(lambda: serving(second, spot_jpeg) == "b")
    assert metric(second, "lathe_swaps_total", result="followed") == 1
    until(lambda: metric(second, "lathe_variant_state", variant="a", state="ready") == 0)
    with second.client() as client:
        assert client.route("spots").revision == 1
        client.set_route("spots", {"a": 1})
    until(lambda: serving(first, spot_jpeg) == "a")
    with first.client() as client:
        assert client.route("spots").revision == 2


def test_a_server_that_was_down_agrees_when_it_is_back(
    repository: Repository, two: tuple[RunningServer, RunningServer], tmp_path: Path, spot_jpeg: bytes
) -> None:
    first, second = two
    assert second.stop() == 0
    with first.client() as client:
        client.set_route("spots", {"b": 1})
    with start_server(repository.root, tmp_path / "again") as again:
        assert serving(again, spot_jpeg) == "b"


def test_a_model_that_another_server_routes_first_is_served_too(
    repository: Repository, two: tuple[RunningServer, RunningServer], spot_jpeg: bytes
) -> None:
    first, second = two
    repository.publish(card_for("dots", "a"), bright_spots())
    with first.client() as client:
        client.set_route("dots", {"a": 1})
    with second.client() as client:
        until(lambda: "dots" in {status.card.model for status in client.variants() if status.weight})
        assert client.detect("dots", spot_jpeg).answered


def test_a_revision_that_cannot_be_carried_out_leaves_the_old_one_serving_and_the_next_one_heals(
    repository: Repository, server: RunningServer, spot_jpeg: bytes
) -> None:
    gone = control_pb2.Route(model="spots", revision=1, weights=[{"variant": "lost", "version": 1, "weight": 1}])
    repository.add_route(gone)
    until(lambda: "cannot be served by revision 1 of its route" in server.log.read_text("utf-8"))
    assert serving(server, spot_jpeg) == "a"
    with server.client() as client:
        assert client.route("spots").revision == 0
        assert client.set_route("spots", {"b": 1}).revision == 2
    assert serving(server, spot_jpeg) == "b"


@pytest.mark.parametrize("damage", [b"{", b""], ids=["half a file", "empty"])
def test_an_unreadable_newest_route_holds_up_neither_the_start_nor_the_next_swap(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes, damage: bytes
) -> None:
    repository.add_route(
        control_pb2.Route(model="spots", revision=1, weights=[{"variant": "b", "version": 1, "weight": 1}])
    )
    (repository.root / "spots/routes/2.json").write_bytes(damage)
    with start_server(repository.root, tmp_path / "log") as server, server.client() as client:
        assert serving(server, spot_jpeg) == "b"
        assert client.route("spots").revision == 1
        assert client.set_route("spots", {"a": 1}).revision == 3


def test_where_no_route_can_be_carried_out_the_cards_decide(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    for revision in (1, 2):
        lost = [{"variant": "lost", "version": 1, "weight": 1}]
        repository.add_route(control_pb2.Route(model="spots", revision=revision, weights=lost))
    with start_server(repository.root, tmp_path / "log") as server:
        assert serving(server, spot_jpeg) == "a"


def test_a_rollback_is_a_new_revision_with_the_content_of_the_one_before(
    server: RunningServer, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 3, "b": 1}, degrade=["b"], degrade_after_seconds=0.2)
        client.set_route("spots", {"b": 1})
        back = client.rollback("spots", author="a test")
        assert back.revision == 3
        assert [(one.variant, one.version, one.weight) for one in back.weights] == [("a", 1, 3), ("b", 1, 1)]
        assert [one.variant for one in back.degrade.variants] == ["b"]
        assert (back.author, back.reason) == ("a test", "back to revision 1")
        assert client.route("spots").created_at.seconds > 0
        again = client.rollback("spots", reason="to see")
        assert [one.variant for one in again.weights] == ["b"]
        assert again.reason == "to see"
    assert serving(server, spot_jpeg) == "b"


@pytest.mark.fault(55)
@pytest.mark.parametrize("revisions", [0, 1])
def test_without_a_revision_before_there_is_nothing_to_go_back_to(server: RunningServer, revisions: int) -> None:
    with server.client() as client:
        for _ in range(revisions):
            client.set_route("spots", {"b": 1})
        with pytest.raises(ServerError, match="no revision to go back to") as refused:
            client.rollback("spots")
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.fault(61)
def test_a_rollback_from_a_revision_that_no_longer_holds_is_aborted(server: RunningServer) -> None:
    with server.client() as client:
        for variant in "ab":
            client.set_route("spots", {variant: 1})
        with pytest.raises(ServerError, match="revision 2") as refused:
            client.rollback("spots", expected_revision=1)
        assert refused.value.code is grpc.StatusCode.ABORTED
        assert client.route("spots").revision == 2


def test_a_rollback_to_what_is_no_longer_there_leaves_the_present_serving(
    repository: Repository, server: RunningServer, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1})
        client.set_route("spots", {"b": 1})
        until(lambda: metric(server, "lathe_variant_state", variant="a", state="ready") == 0)
        (repository.root / "spots/a/1/model.onnx").unlink()
        with pytest.raises(ServerError):
            client.rollback("spots")
        assert client.route("spots").revision == 2
    assert serving(server, spot_jpeg) == "b"


def test_a_route_that_follows_the_latest_swaps_when_a_newer_version_is_published(
    repository: Repository, server: RunningServer, spot_jpeg: bytes
) -> None:
    def version() -> int:
        with server.client() as client:
            return client.detect("spots", spot_jpeg).version

    with server.client() as client:
        route = client.set_route("spots", {"a@latest": 1})
        assert (route.revision, route.weights[0].version, route.weights[0].latest) == (1, 1, True)
        repository.publish(card_for("spots", "a"), bright_spots(box_pixels=14.0))
        until(lambda: version() == 2)
        route = client.route("spots")
        assert (route.revision, route.weights[0].version) == (1, 2), "what should be true has not changed, what is has"
        repository.publish(card_for("spots", "a"), b"no network")
        until(lambda: "cannot be served by revision 1 of its route" in server.log.read_text("utf-8"))
        assert version() == 2
        with pytest.raises(ServerError, match="not both") as caught:
            client.set_route("spots", {"a/1@latest": 1})
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_other_routes_do_not_follow_what_is_published(
    repository: Repository, server: RunningServer, spot_jpeg: bytes
) -> None:
    with server.client() as client:
        client.set_route("spots", {"a": 1})
        repository.publish(card_for("spots", "a"), bright_spots(box_pixels=14.0))
        client.set_route("spots", {"a/1": 1, "b": 1})
        route = client.rollback("spots")
        assert [(one.version, one.latest) for one in route.weights] == [(1, False)]
        assert client.detect("spots", spot_jpeg).version == 1
