"""What happens to a frame on its worker: it breaks, or becomes too late while it is decoded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import cast

import numpy as np
import pytest

from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server import judgement, scheduler
from lathe_server.engines import Engine
from lathe_server.frames import Frame, Result
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.pipeline import Pipeline
from lathe_server.router import Route, Router
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.servable import Servable
from lathe_server.vision import Detector, EncodedPicture
from lathe_server.vision.decoders import Outputs
from lathe_server.vision.detections import Thresholds

A = VariantRef("spots", "a", 1)


class Breaking:
    """A network that raises what it is given, one after the other, and works when nothing is left."""

    runtime = "a stand-in"

    def __init__(self, network: object, errors: list[BaseException]) -> None:
        self._network = network
        self._errors = errors

    def run(self, tensor: np.ndarray) -> Outputs:
        if self._errors:
            raise self._errors.pop(0)
        outputs: Outputs = self._network.run(tensor)  # type: ignore[attr-defined]
        return outputs


def frame(jpeg: bytes, **how: float) -> Frame:
    now = monotonic()
    return Frame("spots", "camera", "", 0, EncodedPicture(jpeg), now, now, **how)


def judged(detector: Detector, frames: Sequence[Frame]) -> list[Result]:
    """One after the other, on one worker."""

    async def act() -> list[Result]:
        turns = Scheduler(1, max_waiting=10)
        servable = Servable(A, card_pb2.Card(), cast(Engine, detector.network), detector)
        manager = Manager(lambda ref, reached: servable, load_seconds=5)
        router = Router(1)
        await manager.load(A)
        router.replace(Route("spots", 1, ((A, 1),)))
        life = Pipeline(router, manager, turns, Metrics().observe)
        results = []
        for one in frames:
            answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            life.submit(Lane(), one, answer.set_result)
            results.append(await asyncio.wait_for(answer, 10))
        await asyncio.wait_for(turns.settled(), 10)
        turns.close()
        return results

    return asyncio.run(act())


@pytest.mark.fault(74)
def test_worker_survives_whatever_breaks_in_it(
    detector: Detector, spot_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = [MemoryError(), SystemExit(1), KeyboardInterrupt(), RecursionError("deep"), OSError()]
    count = len(errors)
    network = Breaking(detector.network, errors)
    broken = Detector(network, "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)

    with caplog.at_level(logging.ERROR):
        *failed, last = judged(broken, [frame(spot_jpeg) for _ in range(count + 1)])
    assert [result.outcome for result in failed] == ["failed"] * count
    assert {result.error.status for result in failed if result.error} == {"INTERNAL"}
    assert last.outcome == "answered"
    assert caplog.text.count("internal error") == count


@pytest.mark.parametrize(
    ("how", "outcome"), [({"deadline": 1.0}, "dropped_deadline"), ({"max_age_seconds": 1.0}, "dropped_too_old")]
)
def test_frame_that_becomes_late_while_it_is_decoded_does_not_reach_the_network(
    detector: Detector, spot_jpeg: bytes, monkeypatch: pytest.MonkeyPatch, how: dict[str, float], outcome: str
) -> None:
    ran: list[int] = []

    class Counting:
        runtime = "a stand-in"

        def run(self, tensor: np.ndarray) -> Outputs:
            ran.append(1)
            return detector.network.run(tensor)

    counting = Detector(Counting(), "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)
    monkeypatch.setattr(scheduler, "monotonic", lambda: 0.5)  # when its turn comes
    monkeypatch.setattr(judgement, "monotonic", lambda: 1.5)  # when it is decoded
    late = Frame("spots", "camera", "", 0, EncodedPicture(spot_jpeg), 0.0, 0.0, **how)
    (result,) = judged(counting, [late])
    assert (result.outcome, result.answer, ran) == (outcome, None, [])
    monkeypatch.undo()
    assert judged(counting, [frame(spot_jpeg)])[0].outcome == "answered"
    assert ran == [1]
