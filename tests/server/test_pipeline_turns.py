"""A pipeline's frames at their turn: who is to judge them, what is held meanwhile, and what is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from lathe.errors import LatheError, Refused
from lathe.pipeline_file import PipelineSpec
from lathe.repository import VariantRef
from lathe.v1 import control_pb2
from lathe_server.events import Events
from lathe_server.frames import Frame, Outcome, Result
from lathe_server.judgement import Judgement
from lathe_server.loading import load_servable
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.pipeline import Pipeline
from lathe_server.router import Route, Router
from lathe_server.routes import Routes
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.servable import Servable
from tests.server.faces import EMBED, FACE, OTHER_EMBED, SPEC, faces_in_memory, frame, publish_faces


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> dict[VariantRef, Servable]:
    return faces_in_memory(tmp_path_factory.mktemp("faces"))


class Held:
    """A scheduler that keeps what it is offered, and does nothing of it."""

    def offer(
        self, lane: Lane, frame: Frame, begin: Callable[[], Judgement | None], drop: Callable[[Outcome], None]
    ) -> bool:
        self.begin = begin
        return True


class Told(Router):
    """Keeps what it is told of the workers' time."""

    def __init__(self) -> None:
        super().__init__(1)
        self.told: list[tuple[str, float, float | None, int | None]] = []

    def worked(self, model: str, seconds: float, cpu_seconds: float | None, level: int | None) -> None:
        self.told.append((model, seconds, cpu_seconds, level))


class Life:
    """A pipeline's frames up to their turn."""

    def __init__(self, servables: dict[VariantRef, Servable], spec: PipelineSpec = SPEC) -> None:
        self.manager = Manager(lambda ref, reached: servables[ref], load_seconds=5)
        self.router = Told()
        self.router.pipelines = {"face-id": spec}
        self.results: list[Result] = []
        self._held = Held()
        self._pipeline = Pipeline(self.router, self.manager, cast(Scheduler, self._held), Metrics().observe)

    async def serve(self, *refs: VariantRef) -> None:
        for ref in refs:
            await self.manager.load(ref)
            self.router.replace(Route(ref.model, 1, ((ref, 1),)))

    def take(self, one: Frame) -> Judgement | None:
        self._pipeline.submit(Lane(), one, self.results.append)
        return self._held.begin()


def test_variants_are_leased_as_a_set_and_a_swap_of_either_waits(servables: dict[VariantRef, Servable]) -> None:
    async def act() -> None:
        life = Life(servables)
        await life.serve(FACE, EMBED)
        await life.manager.unload(EMBED)
        assert life.take(frame()) is None
        assert "face-embed is not loaded" in str(life.results[0].error)
        await asyncio.wait_for(life.manager.unload(FACE), 5)  # nobody holds it
        await life.serve(FACE, EMBED)
        judgement = life.take(frame())
        assert judgement
        unloads = [asyncio.create_task(life.manager.unload(ref)) for ref in (FACE, EMBED)]
        await asyncio.sleep(0)
        assert set(life.manager.states().values()) == {"draining"}
        judgement.run()
        judgement.done(0.0, 1.0, 1.0)
        await asyncio.wait_for(asyncio.gather(*unloads), 5)

    asyncio.run(act())


def test_variants_that_make_no_pipeline_are_held_by_nobody(servables: dict[VariantRef, Servable]) -> None:
    async def act() -> None:
        spots = VariantRef("spots", "a", 1)
        life = Life(servables, PipelineSpec("spots", "face-embed"))
        await life.serve(spots, EMBED)
        assert life.take(frame()) is None
        assert "gives 0 landmarks" in str(life.results[0].error)
        for ref in (spots, EMBED):
            await asyncio.wait_for(life.manager.unload(ref), 5)

    asyncio.run(act())


def test_a_stage_that_is_not_served_is_named_and_the_frame_is_the_pipelines(
    servables: dict[VariantRef, Servable],
) -> None:
    async def act() -> None:
        life = Life(servables)
        await life.serve(EMBED)
        assert life.take(frame()) is None
        (result,) = life.results
        assert (result.outcome, result.counted_as) == ("rejected", VariantRef("face-id", "", 0))
        assert "pipeline face-id needs the model face, which is not served here" in str(result.error)

    asyncio.run(act())


def test_of_a_workers_time_each_model_is_told_its_part(servables: dict[VariantRef, Servable]) -> None:
    async def act() -> None:
        life = Life(servables)
        await life.serve(FACE, EMBED)
        judgement = life.take(frame())
        assert judgement
        judgement.run()
        judgement.done(0.0, 8.0, 4.0)
        (_, detects, of_detector, _), (_, embeds, of_embedder, _) = life.router.told
        assert [model for model, *_ in life.router.told] == ["face", "face-embed"]
        assert of_detector
        assert of_embedder
        assert (detects, embeds) == pytest.approx((2 * of_detector, 2 * of_embedder))
        assert detects + embeds == pytest.approx(8.0)

    asyncio.run(act())


@pytest.mark.parametrize(("meant", "degraded"), [(EMBED, True), (OTHER_EMBED, False)])
def test_only_what_the_route_does_not_mean_is_degraded(
    servables: dict[VariantRef, Servable], meant: VariantRef, degraded: bool
) -> None:
    """The variant that streams are degraded to has weight, too; as a route that was read has it, twice."""

    async def act() -> None:
        life = Life(servables)
        await life.serve(FACE, EMBED, OTHER_EMBED)
        life.router.level = lambda model: int(model == "face-embed")  # type: ignore[method-assign]
        cheap = replace(OTHER_EMBED)
        life.router.replace(Route("face-embed", 2, ((meant, 1),), degrade=(cheap,), degrade_after_seconds=0.1))
        judgement = life.take(frame())
        assert judgement
        judgement.run()
        judgement.done(0.0, 1.0, 1.0)
        assert [(part.ref, part.degraded) for part in life.results[0].parts] == [(FACE, False), (OTHER_EMBED, degraded)]

    asyncio.run(act())


def test_each_stage_goes_by_its_own_models_route(servables: dict[VariantRef, Servable]) -> None:
    """By the embedder's weights too, as clients foretell; a drop tells of both who would have judged."""

    async def act() -> list[Result]:
        scheduler, router = Scheduler(1, max_waiting=10), Router(1)
        manager = Manager(lambda ref, reached: servables[ref], load_seconds=5)
        for ref in (FACE, EMBED, OTHER_EMBED):
            await manager.load(ref)
        router.replace(Route("face", 1, ((FACE, 1),)))
        router.replace(Route("face-embed", 1, ((EMBED, 1), (OTHER_EMBED, 1))))
        router.pipelines = {"face-id": SPEC}
        life = Pipeline(router, manager, scheduler, Metrics().observe)
        results = []
        for one in [replace(frame(), stream_id=f"camera-{number}") for number in range(16)] + [frame(deadline=0.0)]:
            answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            life.submit(Lane(), one, answer.set_result)
            results.append(await asyncio.wait_for(answer, 10))
        scheduler.close()
        return results

    *answered, dropped = asyncio.run(act())
    route = Route("face-embed", 1, ((EMBED, 1), (OTHER_EMBED, 1)))
    by = [result.parts[1].ref for result in answered]
    assert by == [route.pick(result.frame.stream_id) for result in answered]
    assert set(by) == {EMBED, OTHER_EMBED}
    assert (dropped.outcome, [part.ref and part.ref.model for part in dropped.parts]) == (
        "dropped_deadline",
        ["face", "face-embed"],
    )


def test_turns_of_a_pipelines_streams_degrade_its_models() -> None:
    router = Router(1)
    cheap = VariantRef("face-embed", "b", 1)
    router.replace(Route("face-embed", 1, ((EMBED, 1),), degrade=(cheap,), degrade_after_seconds=0.1))
    router.pipelines = {"face-id": SPEC}
    now = time.monotonic()
    for embeds in (False, True):
        for step in range(1, 40):
            router.turn("face-id", 1.0, now + step / 10, embeds=embeds)
            router.worked("face-embed", 0.1, 0.1, 0)
        assert router.level("face-embed") == int(embeds), "streams that only detect say nothing of the embedder"


def test_a_guard_keeps_a_route_from_serving_and_from_being_written(tmp_path: Path) -> None:
    async def act() -> None:
        repository = publish_faces(tmp_path / "models")
        router, metrics = Router(1), Metrics()

        def load(ref: VariantRef, reached: object) -> Servable:
            return load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8)

        manager = Manager(load, load_seconds=60)
        routes = Routes(repository, router, manager, metrics, Events(metrics))
        await routes.apply(Route("face-embed", 0, ((EMBED, 1),)))

        def keep_space(route: Route) -> None:
            for ref in route.needs():
                with manager.lease(ref) as servable:
                    if servable.card.embedding.space != space:
                        raise Refused("three people are enrolled in another space")

        with manager.lease(EMBED) as held:
            space = held.card.embedding.space
        routes.guards.append(keep_space)
        request = control_pb2.SetRouteRequest(model="face-embed")
        request.weights.add(variant="b", weight=1)
        with pytest.raises(LatheError, match="three people"):
            await routes.set_route(request)
        with pytest.raises(LatheError, match="three people"):
            await routes.apply(Route("face-embed", 7, ((OTHER_EMBED, 1),)))  # as another server has written it
        held_route = router.route("face-embed")
        assert held_route
        assert (held_route.revision, repository.revisions("face-embed")) == (0, [])
        await routes.settle()
        assert list(manager.states()) == [EMBED]

    asyncio.run(act())
