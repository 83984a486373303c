"""The life of a frame inside the server: route, lease, turn, judgement, one result, one observation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from lathe.errors import InvalidInput, LatheError, NotFound, Overloaded, TooLate, Unavailable
from lathe.repository import VariantRef
from lathe_server.boundary import internal_error
from lathe_server.engines.meter import gpu_seconds
from lathe_server.facts import facts_of_frame
from lathe_server.frames import Frame, Outcome, Result, fate
from lathe_server.manager import Lease, Manager
from lathe_server.origin import Headers
from lathe_server.router import Router
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.tensors import NetworkFails, TensorAnswer
from lathe_server.vision import Answer

LABEL = "@"
"""Before a label that a request pins instead of a variant."""


class Pipeline:
    """Takes frames and gives each exactly one `Result`.

    Args:
        observe: told of every result, once.
        trace: records a result if it is one of the sample, and returns the trace's id.
    """

    def __init__(
        self,
        router: Router,
        manager: Manager,
        scheduler: Scheduler,
        observe: Callable[[Result], None],
        is_short_of_memory: Callable[[], bool] = lambda: False,
        trace: Callable[[Result], str] | None = None,
    ) -> None:
        self._trace = trace
        self._router = router
        self._manager = manager
        self._scheduler = scheduler
        self._observe = observe
        self._is_short_of_memory = is_short_of_memory
        self._draining = False

    def submit(self, lane: Lane, frame: Frame, reply: Callable[[Result], None]) -> None:
        """Gives a frame to the scheduler; `reply` is called once, on the loop, maybe at once.

        Raises nothing: what is wrong with a frame is in its result.
        """

        def finish(result: Result) -> None:
            reply(self._observed(result))

        def drop(outcome: Outcome) -> None:
            finish(self._result(frame, outcome, self._ref_or_none(frame)))

        def begin() -> _Judgement | None:
            try:
                level = None if frame.variant else self._router.level(frame.model)
                meant = self.choose(frame.model, frame.stream_id, frame.variant, frame.origin.headers)
                ref = self._router.degraded(meant, level or 0)
                lease = self._manager.lease(ref)
            except LatheError as error:
                finish(self._result(frame, "rejected", None, error))
                return None

            def judged(result: Result, seconds: float) -> None:
                cost = result.cpu_seconds if result.answer else None
                self._router.worked(frame.model, seconds, cost, level)
                finish(result)

            return _Judgement(frame, lease, judged, degraded=ref != meant)

        if self._draining:
            drop("dropped_draining")
        elif self._is_short_of_memory():
            self.reject(frame, Overloaded("the server is short of memory; send less, or later"), reply)
        elif not self._scheduler.offer(lane, frame, begin, drop):
            self.reject(frame, Overloaded("too many frames wait; send less, or later"), reply)

    def reject(self, frame: Frame, error: LatheError, reply: Callable[[Result], None]) -> None:
        """Answers a frame that cannot be judged at all."""
        reply(self._observed(self._result(frame, "rejected", self._ref_or_none(frame), error)))

    def _observed(self, result: Result) -> Result:
        if self._trace and (trace_id := self._trace(result)):
            result = replace(result, trace_id=trace_id)
        self._observe(result)
        return result

    def cancel(self, lane: Lane) -> None:
        """The caller of a lane went away."""
        self._scheduler.clear(lane, "dropped_cancelled")

    def choose(self, model: str, stream_id: str, pinned: str, headers: Headers) -> VariantRef:
        """The variant that answers a stream now.

        Raises:
            NotFound: no such model is served.
            Refused: the pinned variant is not loaded.
        """
        choice = self._router.choice(model)
        if choice is None:
            raise NotFound("no such model is served here")
        if pinned.startswith(LABEL):
            route = self._router.route(model)
            assert route, "whoever chooses does it on a route"
            return route.labelled(pinned.removeprefix(LABEL))
        if pinned:
            variant, _, version = pinned.partition("/")
            return self._manager.ready(model, variant, int(version or 0))
        return choice.pick(stream_id, headers)

    async def drain(self) -> None:
        """Takes no new frames and waits until the ones in hand are answered."""
        self._draining = True
        await self._scheduler.settled()

    @property
    def draining(self) -> bool:
        return self._draining

    def _ref_or_none(self, frame: Frame) -> VariantRef | None:
        try:
            return self.choose(frame.model, frame.stream_id, frame.variant, frame.origin.headers)
        except LatheError:
            return None

    @staticmethod
    def _result(frame: Frame, outcome: Outcome, ref: VariantRef | None, error: LatheError | None = None) -> Result:
        return Result(frame, outcome, ref, age_seconds=monotonic() - frame.captured, error=error)


class _Late(Exception):
    """While its picture was decoded a frame has become one that is dropped."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Judgement:
    """One frame on one worker thread, with the lease on its variant."""

    __slots__ = ("_answer", "_degraded", "_error", "_finish", "_frame", "_gpu_seconds", "_late", "_lease")

    def __init__(self, frame: Frame, lease: Lease, finish: Callable[[Result, float], None], *, degraded: bool) -> None:
        self._frame = frame
        self._lease = lease
        self._finish = finish
        self._degraded = degraded
        self._answer: Answer | TensorAnswer | None = None
        self._late: Outcome | None = None
        self._error: BaseException | None = None
        self._gpu_seconds = 0.0

    @property
    def is_brief(self) -> bool:
        return self._lease.servable.is_brief(self._frame.asked)

    def run(self) -> None:
        before = gpu_seconds()
        try:
            self._stop_if_late()
            self._answer = self._lease.servable.judge(self._frame.asked, self._stop_if_late)
        except _Late as late:
            self._late = late.outcome
        except InvalidInput as bad:
            self._error = bad.with_traceback(None)
        except BaseException as error:  # noqa: BLE001  a worker thread survives anything; done() tells
            self._error = error
        self._gpu_seconds = gpu_seconds() - before

    def _stop_if_late(self) -> None:
        if reason := fate(self._frame, monotonic()):
            raise _Late(reason)

    def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
        servable = self._lease.servable
        ref = servable.ref
        if self._answer:
            servable.ran(self._frame.asked, cpu_seconds)
        self._lease.release()
        # An error's traceback holds this object, the pixels and the network: it must not be held in turn.
        broken, self._error = self._error, None
        error: LatheError | None = None
        outcome: Outcome = self._late or "answered"
        if isinstance(broken, InvalidInput):
            outcome, error = "failed" if isinstance(broken, NetworkFails) else "rejected", broken
        elif broken:
            outcome, error = "failed", internal_error(broken, **facts_of_frame(self._frame, ref))
        result = Result(
            self._frame,
            outcome,
            ref,
            self._answer,
            queue_seconds,
            cpu_seconds,
            monotonic() - self._frame.captured,
            error,
            degraded=self._degraded and outcome == "answered",
            gpu_seconds=self._gpu_seconds,
        )
        self._finish(result, seconds)


def as_error(result: Result) -> LatheError:
    """The status of a unary call whose frame was not answered."""
    if result.error:
        return result.error
    if result.outcome == "dropped_deadline":
        return TooLate("the deadline passed before the frame was judged")
    return Unavailable("the server is shutting down")
