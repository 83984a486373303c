"""A sample of the answered frames is judged by another variant too, when there is nothing else to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from lathe.agreement import matched_pairs
from lathe.errors import InvalidInput, LatheError, Refused
from lathe.repository import VariantRef
from lathe_server.boundary import internal_error
from lathe_server.facts import facts_of_frame
from lathe_server.frames import Result
from lathe_server.manager import Lease, Manager
from lathe_server.router import Route, Router
from lathe_server.scheduler import Scheduler
from lathe_server.vision import Answer


class Comparison:
    """One frame, judged by two variants: a job.

    Attributes:
        given: the answer that was returned.
        ref: who judged it in the shadow.
        matched: boxes of one that the other has too.
        found: boxes of both.
        failed: the shadow could not judge it.
    """

    is_brief = False
    __slots__ = ("_answer", "_error", "_lease", "_report", "failed", "found", "given", "matched", "ref")

    def __init__(self, given: Result, answer: Answer, lease: Lease, report: Callable[[Comparison], None]) -> None:
        self.given = given
        self.ref = lease.servable.ref
        self.matched = self.found = 0
        self.failed = False
        self._answer = answer
        self._lease = lease
        self._report = report
        self._error: BaseException | None = None

    def run(self) -> None:
        one = self._answer.detections
        try:
            other = self._lease.servable.judge(self.given.frame.asked)
            assert isinstance(other, Answer), "a picture's answer is detections"
            found = other.detections
            self.matched, self.found = matched_pairs(one, found), len(one) + len(found)
        except BaseException as error:  # noqa: BLE001  a worker thread survives anything; done() tells
            self._error = error

    def done(self, queue_seconds: float, seconds: float, cpu_seconds: float) -> None:
        self._lease.release()
        error, self._error = self._error, None  # its traceback holds this object and the picture
        self.failed = error is not None
        if error and not isinstance(error, InvalidInput):  # as of a variant that takes tensors: nothing of ours broke
            internal_error(error, **facts_of_frame(self.given.frame, self.ref))
        self._report(self)


class Shadows:
    """Offers comparisons to the workers.

    Args:
        report: told of each comparison, on the loop.
    """

    def __init__(
        self, router: Router, manager: Manager, scheduler: Scheduler, report: Callable[[Comparison], None]
    ) -> None:
        self._router = router
        self._manager = manager
        self._scheduler = scheduler
        self._report = report
        self._due: defaultdict[str, float] = defaultdict(float)  # by model: comparisons that its share asks for

    def answered(self, given: Result) -> None:
        """A frame has its answer; it may be taken for a comparison, unless it is of embeddings."""
        answer, ref = given.answer, given.ref
        if not (isinstance(answer, Answer) and ref) or answer.embeddings or given.frame.variant or given.degraded:
            return
        choice = self._router.choice(ref.model)
        if choice is None:
            return
        shadow = choice.shadow_of(ref)
        if shadow is None:
            return
        other, share = shadow
        self._due[ref.model] += share
        if self._due[ref.model] < 1:
            return
        self._due[ref.model] -= 1

        def begin() -> Comparison | None:
            return self._begin(given, answer, other)

        self._scheduler.offer_leisure(begin)

    def guard(self, route: Route) -> None:
        """Asked about a route whose variants are in memory.

        Raises:
            Refused: its shadow is an embedding network.
        """
        if route.shadow:
            with self._manager.lease(route.shadow) as servable:
                if servable.embedder:
                    raise Refused(
                        f"embeddings are not compared in the shadow; each variant of {route.model} has its own space"
                    )

    def _begin(self, given: Result, answer: Answer, other: VariantRef) -> Comparison | None:
        try:
            return Comparison(given, answer, self._manager.lease(other), self._report)
        except LatheError:  # the route has changed in between
            return None
