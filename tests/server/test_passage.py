"""A frame's way through a pipeline: who bears what, and where it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lathe.detections import Detections
from lathe.errors import LatheError, Refused
from lathe.pipeline_file import PipelineSpec
from lathe.repository import VariantRef
from lathe.v1 import control_pb2
from lathe_server.events import Events
from lathe_server.frames import Frame, Result
from lathe_server.judgement import Judgement
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.passage import Passage
from lathe_server.pipeline import Pipeline
from lathe_server.router import Route, Router
from lathe_server.routes import Routes
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.servable import Servable, load_servable
from lathe_server.vision import EncodedPicture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.decoders import Outputs
from lathe_server.vision.faces import largest
from tests.server.faces import crowd_jpeg, publish_faces, publish_without_landmarks

FACE, EMBED, OTHER = VariantRef("face", "a", 1), VariantRef("face-embed", "a", 1), VariantRef("face-embed", "b", 1)
SPEC = PipelineSpec("face", "face-embed", largest=2)
ONE = crowd_jpeg((320, 240))


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> dict[VariantRef, Servable]:
    repository = publish_faces(tmp_path_factory.mktemp("faces") / "models")
    publish_without_landmarks(repository, "spots", "a")
    refs = [FACE, EMBED, OTHER, VariantRef("spots", "a", 1)]
    return {ref: load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8) for ref in refs}


def frame(picture: bytes = ONE, **how: float) -> Frame:
    now = time.monotonic()
    return Frame("face-id", "camera", "", 0, EncodedPicture(picture), now, now, embeddings=True, **how)


def judged(passage: Passage, one: Frame, cpu_seconds: float = 1.0) -> Result:
    results: list[Result] = []
    judgement = Judgement(
        one, passage, lambda: None, lambda result, seconds: results.append(result), degraded=[False, True]
    )
    judgement.run()
    judgement.done(0.0, cpu_seconds, cpu_seconds)
    return results[0]


class Network:
    """Stands in for an engine, and does something before it runs."""

    def __init__(self, engine: object, before: Callable[[], object]) -> None:
        self._engine = engine
        self._before = before

    def run(self, tensor: np.ndarray) -> Outputs:
        self._before()
        outputs: Outputs = self._engine.run(tensor)  # type: ignore[attr-defined]
        return outputs


def changed(servable: Servable, before: Callable[[], object]) -> Servable:
    """Of an embedding network."""
    assert servable.embedder
    network = Network(servable.embedder.network, before)
    return replace(servable, embedder=replace(servable.embedder, network=network))


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_each_variant_bears_its_part_of_the_processors_time(servables: dict[VariantRef, Servable]) -> None:
    def work() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass

    passage = Passage(SPEC, servables[FACE], changed(servables[EMBED], work))
    result = judged(passage, frame(), cpu_seconds=1.0)
    detection, embedding = result.parts
    assert (result.outcome, result.ref, result.counted_as) == ("answered", FACE, VariantRef("face-id", "", 0))
    assert [part.ref for part in result.parts] == [FACE, EMBED]
    assert 0.02 <= embedding.cpu_seconds < 0.2
    assert detection.cpu_seconds + embedding.cpu_seconds == pytest.approx(1.0)
    assert [part.degraded for part in result.parts] == [False, True]
    assert result.answer
    assert detection.answer
    assert embedding.answer
    stages = [one.answer.stages for one in (detection, embedding) if one.answer]
    assert result.answer.stages.infer == pytest.approx(sum(one.infer for one in stages))


def test_a_frame_without_faces_is_the_detectors_alone(servables: dict[VariantRef, Servable]) -> None:
    passage = Passage(SPEC, servables[FACE], changed(servables[EMBED], raising(AssertionError("it is not asked"))))
    result = judged(passage, frame(crowd_jpeg()))
    assert (result.outcome, result.parts, result.degraded) == ("answered", (result,), False)


@pytest.mark.fault(74)
def test_what_breaks_while_a_face_is_embedded_is_the_embedders_failure(
    servables: dict[VariantRef, Servable], caplog: pytest.LogCaptureFixture
) -> None:
    result = judged(Passage(SPEC, servables[FACE], changed(servables[EMBED], raising(MemoryError()))), frame())
    assert (result.outcome, result.error and result.error.status) == ("failed", "INTERNAL")
    detection, embedding = result.parts
    assert (detection.outcome, detection.error, bool(detection.answer)) == ("answered", None, True)
    assert (embedding.outcome, embedding.answer, embedding.degraded) == ("failed", None, False)
    assert getattr(caplog.records[-1], "variant", None) == "face-embed/a"


def test_a_frame_that_becomes_late_while_its_faces_are_found_is_not_embedded(
    servables: dict[VariantRef, Servable],
) -> None:
    detector = servables[FACE]
    assert detector.detector
    one = frame(deadline=time.monotonic() + 60)
    late = Network(detector.detector.network, lambda: object.__setattr__(one, "deadline", 0.0))
    slow = replace(detector, detector=replace(detector.detector, network=late))
    result = judged(Passage(SPEC, slow, changed(servables[EMBED], raising(AssertionError("too late")))), one)
    assert (result.outcome, result.answer) == ("dropped_deadline", None)
    assert [part.outcome for part in result.parts] == ["answered", "dropped_deadline"]


def test_variants_that_make_no_pipeline_are_refused(servables: dict[VariantRef, Servable]) -> None:
    spots = servables[VariantRef("spots", "a", 1)]
    for detector, embedder, reason in (
        (spots, servables[EMBED], "gives 0 landmarks"),
        (servables[EMBED], servables[EMBED], "detects nothing"),
        (servables[FACE], spots, "embeds nothing"),
    ):
        with pytest.raises(Refused, match=reason):
            Passage(SPEC, detector, embedder)


def test_the_largest_faces_that_can_be_aligned_are_embedded() -> None:
    """Sides of the boxes; the face of 90 has its landmarks on one spot."""
    sides = np.array([20, 60, 90, 50, 70, 70], np.float32)
    xyxy = np.stack((0 * sides, 0 * sides, sides, sides), axis=1)
    landmarks = (TEMPLATES["dlib"] * sides[:, None, None]).astype(np.float32)
    landmarks[2] = 5
    found = Detections(xyxy, np.ones(6, np.float32), np.zeros(6, np.int64), landmarks)
    assert largest(found, 3, 32).tolist() == [4, 5, 1]
    assert largest(found, 9, 0).tolist() == [4, 5, 1, 3, 0]
    assert largest(found, 9, 60.5).tolist() == [4, 5]
    assert largest(Detections.none(5), 4, 32).tolist() == []


def test_variants_are_leased_as_a_set_and_a_swap_of_either_waits(servables: dict[VariantRef, Servable]) -> None:
    async def act() -> None:
        manager = Manager(lambda ref, reached: servables[ref], load_seconds=5)
        await manager.load(FACE)
        with pytest.raises(Refused, match="face-embed is not loaded"):
            manager.lease_all([FACE, EMBED])
        await asyncio.wait_for(manager.unload(FACE), 5)  # nobody holds it
        for ref in (FACE, EMBED):
            await manager.load(ref)
        leases = manager.lease_all([FACE, EMBED])
        unloads = [asyncio.create_task(manager.unload(ref)) for ref in (FACE, EMBED)]
        await asyncio.sleep(0)
        assert set(manager.states().values()) == {"draining"}
        for lease in leases:
            lease.release()
        await asyncio.wait_for(asyncio.gather(*unloads), 5)

    asyncio.run(act())


def test_each_stage_goes_by_its_own_models_route(servables: dict[VariantRef, Servable]) -> None:
    """By the embedder's weights too, as clients foretell; a drop tells of both who would have judged."""

    async def act() -> list[Result]:
        scheduler, router = Scheduler(1, max_waiting=10), Router(1)
        manager = Manager(lambda ref, reached: servables[ref], load_seconds=5)
        for ref in (FACE, EMBED, OTHER):
            await manager.load(ref)
        router.replace(Route("face", 1, ((FACE, 1),)))
        router.replace(Route("face-embed", 1, ((EMBED, 1), (OTHER, 1))))
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
    route = Route("face-embed", 1, ((EMBED, 1), (OTHER, 1)))
    by = [result.parts[1].ref for result in answered]
    assert by == [route.pick(result.frame.stream_id) for result in answered]
    assert set(by) == {EMBED, OTHER}
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
    for step in range(1, 40):
        router.turn("face-id", 1.0, now + step / 10)
        router.worked("face-embed", 0.1, 0.1, 0)
    assert router.level("face-embed") == 1


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
            await routes.apply(Route("face-embed", 7, ((OTHER, 1),)))  # as another server has written it
        held_route = router.route("face-embed")
        assert held_route
        assert (held_route.revision, repository.revisions("face-embed")) == (0, [])
        await routes.settle()
        assert list(manager.states()) == [EMBED]

    asyncio.run(act())
