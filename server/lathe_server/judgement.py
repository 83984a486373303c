"""A frame on its worker: what it takes to judge it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from lathe.errors import InvalidInput, LatheError
from lathe_server.boundary import internal_error
from lathe_server.engines.meter import gpu_seconds
from lathe_server.facts import facts_of_frame
from lathe_server.frames import Frame, Outcome, Result, fate
from lathe_server.passage import Passage
from lathe_server.servable import Servable
from lathe_server.tensors import NetworkFails, TensorAnswer
from lathe_server.vision import Answer


class _Late(Exception):
    """While its picture was decoded a frame has become one that is dropped."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Judgement:
    """One frame on one worker thread: a job.

    Args:
        judge: the variant that has it, or its passage through several; leased.
        release: ends the leases.
        finish: told of the result, and of the seconds that a worker was busy with it.
        degraded: which of the variants are cheaper ones than their routes say.
    """

    __slots__ = ("_answer", "_degraded", "_error", "_finish", "_frame", "_gpu_seconds", "_judge", "_late", "_release")

    def __init__(
        self,
        frame: Frame,
        judge: Servable | Passage,
        release: Callable[[], None],
        finish: Callable[[Result, float], None],
        *,
        degraded: Sequence[bool],
    ) -> None:
        self._frame = frame
        self._judge = judge
        self._release = release
        self._finish = finish
        self._degraded = degraded
        self._answer: Answer | TensorAnswer | None = None
        self._late: Outcome | None = None
        self._error: BaseException | None = None
        self._gpu_seconds = 0.0

    @property
    def is_brief(self) -> bool:
        return self._judge.is_brief(self._frame.asked)

    def run(self) -> None:
        before = gpu_seconds()
        try:
            self._stop_if_late()
            self._answer = self._judge.judge(self._frame.asked, self._stop_if_late)
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
        judge = self._judge
        if self._answer:
            judge.ran(self._frame.asked, cpu_seconds)
        self._release()
        # An error's traceback holds this object, the pixels and the network: it must not be held in turn.
        broken, self._error = self._error, None
        error: LatheError | None = None
        outcome: Outcome = self._late or "answered"
        if isinstance(broken, InvalidInput):
            outcome, error = "failed" if isinstance(broken, NetworkFails) else "rejected", broken
        elif broken:
            at = judge.at if isinstance(judge, Passage) else judge.ref
            outcome, error = "failed", internal_error(broken, **facts_of_frame(self._frame, at))
        result = Result(
            self._frame,
            outcome,
            judge.ref,
            self._answer,
            queue_seconds,
            cpu_seconds,
            monotonic() - self._frame.captured,
            error,
            degraded=outcome == "answered" and any(self._degraded),
            gpu_seconds=self._gpu_seconds,
        )
        if isinstance(judge, Passage):
            result = judge.shared_out(result, self._degraded)
        self._finish(result, seconds)
