"""Which pipelines are served, whatever becomes of the repository; and which routes they keep from serving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from lathe.errors import BadVariant, Refused
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec
from lathe.repository import Repository
from lathe.v1 import control_pb2
from lathe_server.events import Events
from lathe_server.follow import Follower
from lathe_server.loading import load_servable
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.router import Router
from lathe_server.routes import Routes
from lathe_server.served_pipelines import Pipelines
from tests.server.faces import publish_faces, publish_without_landmarks

SPEC = PipelineSpec("face", "face-embed", largest=2)


class Parts:
    """Of a server: what decides who serves."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.router = Router(1)
        metrics = Metrics()
        self.manager = Manager(
            lambda ref, reached: load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8),
            load_seconds=60,
        )
        self.told: list[tuple[str, bool]] = []
        self.pipelines = Pipelines(repository, self.router, self.manager, self._on_change)
        self.routes = Routes(repository, self.router, self.manager, metrics, Events(metrics))
        self.routes.wishes.append(self.pipelines.guard)
        self.follower = Follower(repository, self.router, self.routes, metrics)

    def _on_change(self, name: str, *, is_served: bool) -> None:
        self.told.append((name, is_served))

    async def start(self) -> None:
        await self.pipelines.look()
        await self.follower.start()

    def served(self, model: str) -> tuple[str, int]:
        """Variant and revision."""
        route = self.router.route(model)
        assert route
        return route.weights[0][0].variant, route.revision


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(publish_faces(tmp_path / "models"))


def test_while_the_repository_is_gone_its_pipelines_serve_on(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    root = parts.repository.root
    away = root.with_name("away")

    async def act() -> None:
        await parts.pipelines.look()
        root.rename(away)
        for _ in range(3):
            await parts.pipelines.look()
        assert parts.router.pipelines == {"face-id": SPEC}
        away.rename(root)
        await parts.pipelines.look()
        parts.repository.remove_pipeline("face-id")
        await parts.pipelines.look()

    asyncio.run(act())
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "the repository holds nothing any more; the pipelines that are known of serve on"
    ]
    assert (parts.told, parts.router.pipelines) == ([("face-id", True), ("face-id", False)], {})


def _by_hand(repository: Repository) -> None:
    """Somebody copies a model to a pipeline's name."""
    folder = repository.root / "face-id" / "a"
    (repository.root / "face" / "a").rename(folder)


def _unreadable(repository: Repository) -> None:
    (repository.root / "face-id" / PIPELINE_FILE).write_bytes(b"{")


@pytest.mark.parametrize(
    ("harm", "words"), [(_by_hand, "a model has the name face-id"), (_unreadable, "it is not JSON")]
)
def test_a_pipeline_that_cannot_be_read_any_more_serves_on(
    parts: Parts, caplog: pytest.LogCaptureFixture, harm: Callable[[Repository], None], words: str
) -> None:
    async def act() -> None:
        await parts.pipelines.look()
        harm(parts.repository)
        for _ in range(2):
            await parts.pipelines.look()

    asyncio.run(act())
    assert (parts.told, parts.router.pipelines) == ([("face-id", True)], {"face-id": SPEC})
    assert caplog.text.count(words) == 1


def test_a_file_that_cannot_be_looked_at_is_told_of(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bool:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "is_symlink", fail)
    with pytest.raises(BadVariant, match="cannot be read"):
        parts.repository.pipeline("face-id")


def test_a_start_goes_by_the_newest_route_that_no_pipeline_breaks_by(parts: Parts) -> None:
    publish_without_landmarks(parts.repository, "face", "blind")
    for revision, variant in ((1, "a"), (2, "blind")):
        _write(parts.repository, revision, variant)
    asyncio.run(parts.start())
    assert parts.served("face") == ("a", 1)


def test_a_start_serves_a_model_by_its_newest_route_where_a_pipeline_breaks_by_all(parts: Parts) -> None:
    parts.repository.write_pipeline("face-id", PipelineSpec("spots", "face-embed"))
    for variant in ("a", "b"):
        publish_without_landmarks(parts.repository, "spots", variant)
    for revision, variant in ((1, "a"), (2, "b")):
        _write(parts.repository, revision, variant, model="spots")
    asyncio.run(parts.start())
    assert parts.served("spots") == ("b", 2)


def _write(repository: Repository, revision: int, variant: str, model: str = "face") -> None:
    route = control_pb2.Route(model=model, revision=revision)
    route.weights.add(variant=variant, version=1, weight=1)
    repository.add_route(route)


def test_a_route_is_asked_about_once_and_before_it_is_written(parts: Parts) -> None:
    """A dependant that changes its mind in between must not leave a revision that does not serve."""
    asked: list[list[int]] = []

    def guard(route: object) -> None:
        asked.append(parts.repository.revisions("face-embed"))
        if len(asked) > 1:
            raise Refused("no more")

    async def act() -> None:
        await parts.start()
        parts.routes.guards.append(guard)
        request = control_pb2.SetRouteRequest(model="face-embed")
        request.weights.add(variant="b", weight=1)
        await parts.routes.set_route(request)

    asyncio.run(act())
    assert asked == [[]]
    assert parts.served("face-embed") == ("b", 1)
