"""Workers that break: the frame in hand is answered as failed, and the thread takes the next one."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from lathe.repository import VariantRef
from lathe.v1 import card_pb2
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

    def __init__(self, network: object, errors: list[BaseException]) -> None:
        self._network = network
        self._errors = errors

    def run(self, tensor: np.ndarray) -> Outputs:
        if self._errors:
            raise self._errors.pop(0)
        outputs: Outputs = self._network.run(tensor)  # type: ignore[attr-defined]
        return outputs


@pytest.mark.fault(74)
def test_worker_survives_whatever_breaks_in_it(
    detector: Detector, spot_jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = [MemoryError(), SystemExit(1), KeyboardInterrupt(), RecursionError("deep"), OSError()]
    count = len(errors)
    network = Breaking(detector.network, errors)
    broken = Detector(network, "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)

    async def act() -> list[Result]:
        scheduler = Scheduler(1, max_waiting=10)
        manager = Manager(lambda ref: Servable(ref, card_pb2.Card(), broken, "a stand-in"), load_seconds=5)
        router = Router(1)
        await manager.load(A)
        router.replace(Route("spots", 1, ((A, 1),)))
        pipeline = Pipeline(router, manager, scheduler, Metrics())
        results = []
        for index in range(count + 1):
            answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            frame = Frame("spots", "camera", "", index, EncodedPicture(spot_jpeg), 0.0, 0.0)
            pipeline.submit(Lane(), frame, answer.set_result)
            results.append(await asyncio.wait_for(answer, 10))
        await asyncio.wait_for(scheduler.settled(), 10)
        scheduler.close()
        return results

    with caplog.at_level(logging.ERROR):
        *failed, last = asyncio.run(act())
    assert [result.outcome for result in failed] == ["failed"] * count
    assert {result.error.status for result in failed if result.error} == {"INTERNAL"}
    assert last.outcome == "answered"
    assert caplog.text.count("internal error") == count
