"""The life of a frame inside the server: route, lease, turn, judgement, one result, one observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from lathe.errors import InvalidInput, LatheError, NotFound, Overloaded, TooLate, Unavailable
from lathe.pipeline_file import PipelineSpec
from lathe.repository import VariantRef
from lathe_server.frames import Frame, Outcome, Result
from lathe_server.judgement import Judgement
from lathe_server.manager import Manager
from lathe_server.origin import Headers
from lathe_server.passage import Passage
from lathe_server.router import Router
from lathe_server.scheduler import Lane, Scheduler
from lathe_server.servable import Servable

LABEL = "@"
"""Before a label that a request pins instead of a variant."""


class _Chosen(NamedTuple):
    """Who judges a frame.

    Attributes:
        ref: the variant.
        level: that its model is degraded to; None where the variant is pinned.
        degraded: it is a cheaper one than the route says.
    """

    ref: VariantRef
    level: int | None
    degraded: bool


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
            finish(self._result(frame, outcome, self._refs_or_none(frame)))

        def begin() -> Judgement | None:
            chosen: Sequence[_Chosen] = ()
            try:
                spec, meant = self._meant(frame)
                chosen = [self._degraded(ref, frame.variant) for ref in meant]
                judge, release = self._leased(spec, chosen)
            except LatheError as error:
                refs = [one.ref for one in chosen] or self._refs_or_none(frame)
                finish(self._result(frame, "rejected", refs, error))
                return None

            def judged(result: Result, seconds: float) -> None:
                self._tell_worked(result, seconds, chosen)
                finish(result)

            return Judgement(frame, judge, release, judged, degraded=[one.degraded for one in chosen])

        if self._draining:
            drop("dropped_draining")
        elif self._is_short_of_memory():
            self.reject(frame, Overloaded("the server is short of memory; send less, or later"), reply)
        elif not self._scheduler.offer(lane, frame, begin, drop):
            self.reject(frame, Overloaded("too many frames wait; send less, or later"), reply)

    def reject(self, frame: Frame, error: LatheError, reply: Callable[[Result], None]) -> None:
        """Answers a frame that cannot be judged at all."""
        reply(self._observed(self._result(frame, "rejected", self._refs_or_none(frame), error)))

    def _observed(self, result: Result) -> Result:
        if self._trace and (trace_id := self._trace(result)):
            result = replace(result, trace_id=trace_id)
        self._observe(result)
        return result

    def cancel(self, lane: Lane) -> None:
        """The caller of a lane went away."""
        self._scheduler.clear(lane, "dropped_cancelled")

    def choose(self, model: str, stream_id: str, pinned: str, headers: Headers) -> VariantRef:
        """The variant that answers a stream now; of a pipeline the one that detects.

        Raises:
            NotFound: no such model is served, or not the one that detects.
            Refused: the pinned variant is not loaded.
            InvalidInput: a pipeline's variant is pinned.
        """
        if spec := self._router.pipeline(model):
            if pinned:
                raise InvalidInput(f"{model} is a pipeline: the routes of {spec.detector} and {spec.embedder} decide")
            return self._of_stage(model, spec.detector, stream_id, headers)
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

    def check_embeddings(self, model: str, stream_id: str, headers: Headers) -> None:
        """Sees whether a pipeline could embed the faces of a stream's frames now.

        Raises:
            InvalidInput: it is no pipeline.
            NotFound: a model of it is not served.
            Refused: its models do not go together.
        """
        spec = self._router.pipeline(model)
        if spec is None:
            raise InvalidInput(f"model {model} is no pipeline, and a stream's embeddings are a pipeline's")
        refs = self._of_stages(model, spec, stream_id, headers)
        _, release = self._leased(spec, [_Chosen(ref, None, degraded=False) for ref in refs])
        release()

    def is_pipeline(self, model: str) -> bool:
        return self._router.pipeline(model) is not None

    def _meant(self, frame: Frame) -> tuple[PipelineSpec | None, list[VariantRef]]:
        """Who judges a frame by the routes, one after the other; and the pipeline that makes several of them one."""
        stream_id, headers = frame.stream_id, frame.origin.headers
        spec = self._router.pipeline(frame.model) if frame.embeddings else None
        if spec:
            return spec, self._of_stages(frame.model, spec, stream_id, headers)
        return None, [self.choose(frame.model, stream_id, frame.variant, headers)]

    def _of_stages(self, name: str, spec: PipelineSpec, stream_id: str, headers: Headers) -> list[VariantRef]:
        return [self._of_stage(name, stage, stream_id, headers) for stage in (spec.detector, spec.embedder)]

    def _of_stage(self, name: str, stage: str, stream_id: str, headers: Headers) -> VariantRef:
        choice = self._router.choice(stage)
        if choice is None:
            raise NotFound(f"pipeline {name} needs the model {stage}, which is not served here")
        return choice.pick(stream_id, headers)

    def _degraded(self, meant: VariantRef, pinned: str) -> _Chosen:
        level = None if pinned else self._router.level(meant.model)
        ref = self._router.degraded(meant, level) if level else meant
        return _Chosen(ref, level, ref != meant)

    def _leased(
        self, spec: PipelineSpec | None, chosen: Sequence[_Chosen]
    ) -> tuple[Servable | Passage, Callable[[], None]]:
        """What judges, all of it leased or nothing, and what ends the leases.

        Raises:
            Refused: a variant is not in memory, or several make no pipeline.
        """
        if spec is None:
            lease = self._manager.lease(chosen[0].ref)
            return lease.servable, lease.release
        with ExitStack() as leases:
            passage = Passage(spec, *(leases.enter_context(self._manager.lease(one.ref)) for one in chosen))
            return passage, leases.pop_all().close

    def _tell_worked(self, result: Result, seconds: float, chosen: Sequence[_Chosen]) -> None:
        """What a frame took of a worker, and of that each variant by its part of the processor's time."""
        for part, one in zip(result.parts, chosen, strict=False):  # without faces nobody embeds
            share = part.cpu_seconds / result.cpu_seconds if result.shares and result.cpu_seconds else 1.0
            cost = part.cpu_seconds if part.answer else None
            self._router.worked(one.ref.model, seconds * share, cost, one.level)

    async def drain(self) -> None:
        """Takes no new frames and waits until the ones in hand are answered."""
        self._draining = True
        await self._scheduler.settled()

    @property
    def draining(self) -> bool:
        return self._draining

    def _refs_or_none(self, frame: Frame) -> list[VariantRef]:
        try:
            return self._meant(frame)[1]
        except LatheError:
            return [VariantRef(frame.model, "", 0)] if self.is_pipeline(frame.model) else []

    @staticmethod
    def _result(frame: Frame, outcome: Outcome, refs: Sequence[VariantRef], error: LatheError | None = None) -> Result:
        """Of a frame that nobody judges; it is nobody's, or that of all who would have."""
        ref = refs[0] if refs else None
        result = Result(frame, outcome, ref, age_seconds=monotonic() - frame.captured, error=error)
        return replace(result, shares=tuple(replace(result, ref=one) for one in refs)) if len(refs) > 1 else result


def as_error(result: Result) -> LatheError:
    """The status of a unary call whose frame was not answered."""
    if result.error:
        return result.error
    if result.outcome == "dropped_deadline":
        return TooLate("the deadline passed before the frame was judged")
    return Unavailable("the server is shutting down")
