"""Experiments that this server carries out: it alternates between the sides, counts, and ends with the verdict."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from lathe.errors import InvalidInput, LatheError, Refused
from lathe.experiment import completed, word
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2, control_pb2, experiment_pb2
from lathe.v1.experiment_pb2 import (
    EXPERIMENT_STATE_ENDED,
    EXPERIMENT_STATE_RUNNING,
    VERDICT_INVALID,
    VERDICT_PROMOTE,
    VERDICT_ROLLBACK,
    VERDICT_UNDECIDED,
)
from lathe_server.boundary import detail_of
from lathe_server.events import Events
from lathe_server.frames import Result
from lathe_server.metrics import Metrics
from lathe_server.router import Route, Router, RunningExperiment
from lathe_server.routes import Routes
from lathe_server.running import Running
from lathe_server.shadow import Comparison

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
"""Between two looks at the guardrails."""
STOP_SECONDS, RETRY_SECONDS = 10.0, 5.0


class Experiments:
    """Starts, resumes and ends them; at most one a model.

    Args:
        server_name: by which a server that starts again knows its own.
        is_short_of_memory: asked at every look.
        streams: how many are open; asked at the start.
    """

    def __init__(
        self,
        repository: Repository,
        router: Router,
        routes: Routes,
        metrics: Metrics,
        events: Events,
        server_name: str,
        is_short_of_memory: Callable[[], bool],
        streams: Callable[[], int] = lambda: 0,
    ) -> None:
        self._streams = streams
        self._repository = repository
        self._router = router
        self._routes = routes
        self._metrics = metrics
        self._events = events
        self._server_name = server_name
        self._is_short_of_memory = is_short_of_memory
        self._running: dict[str, Running] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, asked: experiment_pb2.ExperimentSpec, author: str) -> experiment_pb2.Experiment:
        """Begins an experiment; returns when the candidate is in memory.

        Raises:
            InvalidInput: a specification that makes no experiment.
            NotFound: no such model, or a variant that is not published.
            Refused: the baseline does not serve alone, an experiment runs already, or the server is shutting down.
            BadVariant: the candidate fails a check.
        """
        spec = completed(asked, self._streams())
        if len(author) > 256:
            raise InvalidInput("author is at most 256 characters")
        serving = {ref.variant: ref.version for ref, weight in self._routes.route(spec.model).weights if weight}
        if not spec.baseline.version:
            spec.baseline.version = serving.get(spec.baseline.variant, 0)
        for side in (spec.baseline, spec.candidate):
            if not side.version:
                side.version = (await asyncio.to_thread(self._repository.newest, spec.model, side.variant)).version
        if spec.baseline == spec.candidate:
            raise InvalidInput("an experiment needs two variants")
        baseline = VariantRef(spec.model, spec.baseline.variant, spec.baseline.version)
        if (await asyncio.to_thread(self._repository.card, baseline)).task != card_pb2.TASK_DETECTION:
            spec.minimum_agreement = -1  # tensors are not compared, nor are embeddings: two variants have two spaces
            spec.shadow_rounds = 0
        message = experiment_pb2.Experiment(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            spec=spec,
            owner=self._server_name,
            author=author,
            state=EXPERIMENT_STATE_RUNNING,
        )
        message.started_at.GetCurrentTime()
        message.spec.seed = spec.seed or message.id
        await asyncio.to_thread(self._repository.write_experiment, message)
        candidate = VariantRef(spec.model, spec.candidate.variant, spec.candidate.version)
        beside = RunningExperiment(message.id, self._server_name, candidate, is_here=True)
        try:
            await self._routes.begin_experiment(spec.model, beside, baseline=baseline, author=author)
        except LatheError:
            with suppress(LatheError):  # the repository may have gone: the first error tells more
                await asyncio.to_thread(self._repository.remove_experiment, spec.model, message.id)
            raise
        return await self.get(spec.model, message.id)

    async def stop(self, model: str, reason: str, *, promote: bool = False) -> experiment_pb2.Experiment:
        """Ends the one that runs, without a verdict.

        Args:
            promote: the candidate takes the route.

        Raises:
            NotFound: the model is not served.
            Refused: none runs, or it runs on another server.
        """
        experiment = self._routes.route(model).experiment
        if experiment is None:
            raise Refused(f"no experiment runs on {model}")
        running = self._running.get(model)
        if running is None:
            raise Refused(f"experiment {experiment.id} belongs to server {experiment.owner}; stop it there")
        if not running.has_ended:
            running.is_promoted = promote
            self._conclude(running, VERDICT_UNDECIDED, " ".join(reason.split())[:1024] or "it was stopped")
        await asyncio.wait([self._tasks[model]], timeout=STOP_SECONDS)
        return running.copy()

    async def get(self, model: str, name: str) -> experiment_pb2.Experiment:
        """One experiment as far as it is known here.

        Args:
            name: its id; empty takes the newest.

        Raises:
            NotFound: there is none.
        """
        running = self._running.get(model)
        if running and name in ("", running.message.id):
            return running.copy()
        return await asyncio.to_thread(self._repository.experiment, model, name)

    def running(self) -> list[tuple[experiment_pb2.Experiment, float]]:
        """Those that run here, not to be changed, with the seconds since each began."""
        return [(one.message, one.seconds) for one in self._running.values() if not one.has_ended]

    def observe(self, result: Result) -> None:
        """A frame has its result, or a variant its share of one."""
        if self._running and result.ref and (running := self._running.get(result.ref.model)):
            running.observe(result)

    def compared(self, comparison: Comparison) -> None:
        """A frame has been judged in the shadow."""
        if running := self._running.get(comparison.ref.model):
            running.compared(comparison)

    def close(self) -> None:
        """Stops counting; what is kept is where the next start goes on."""
        for task in self._tasks.values():
            task.cancel()

    async def on_route(self, route: Route) -> None:
        """A route begins to serve: with an experiment of this server's, which goes on, or without the one that ran."""
        running, told = self._running.get(route.model), route.experiment
        if running and (told is None or told.id != running.message.id):
            if not running.has_ended:
                self._conclude(running, VERDICT_INVALID, f"revision {route.revision} of the route took its place")
                await self._keep(running)
            running = self._running.pop(route.model) and None
        if told and told.is_here and not running:
            await self._resume(route, told)
        elif running:
            self._router.choose_by(route.model, running)

    async def _resume(self, route: Route, told: RunningExperiment) -> None:
        """Goes on with an experiment, or brings to its end one that ended before the route said so."""
        model = route.model
        try:
            running = Running(await asyncio.to_thread(self._repository.experiment, model, told.id), route.ruled)
        except LatheError as error:
            log.error("experiment %s cannot go on: %s", told.id, error.message, extra=detail_of(error))
            running = Running(_lost(route, told))
        self._running[model] = running
        if not running.has_ended:
            self._router.choose_by(model, running)
            self._metrics.experiment_running.labels(model).set(1)
            self._metrics.set_estimates(model, running.message.estimates)  # none yet, or those before a restart
            text = f"{running.candidate} beside {running.baseline}"
            self._events.tell(control_pb2.EVENT_KIND_EXPERIMENT_BEGUN, model, text, experiment=told.id)
        self._tasks[model] = asyncio.create_task(self._carry_out(running))

    async def _carry_out(self, running: Running) -> None:
        try:
            await self._until_it_ends(running)
        except Exception:  # nobody waits for this task, and an experiment must not go on by itself
            log.exception("experiment %s broke", running.message.id)
            self._conclude(running, VERDICT_INVALID, "the server could not go on with it")
        await self._leave_route(running)

    async def _until_it_ends(self, running: Running) -> None:
        while not running.has_ended:
            if breach := running.breach(is_short_of_memory=self._is_short_of_memory()):
                self._conclude(running, VERDICT_ROLLBACK, breach)
            elif running.seconds_to_go <= 0:
                verdict, reason = running.close_round()
                self._metrics.set_estimates(running.spec.model, running.message.estimates)
                if verdict:
                    self._conclude(running, verdict, reason)
                else:
                    await self._keep(running)
            else:
                await asyncio.sleep(max(0.0, min(TICK_SECONDS, running.seconds_to_go)))

    async def _leave_route(self, running: Running) -> None:
        """Keeps the verdict, and writes the route that follows from it, until that succeeds or another route holds."""
        model, message = running.spec.model, running.message
        promoted = running.is_promoted or (message.verdict == VERDICT_PROMOTE and running.spec.promote)
        serves = running.candidate if promoted else running.baseline
        await self._keep(running)
        while self._running.get(model) is running:
            try:
                route = await self._routes.end_experiment(model, serves, reason=message.reason)
            except LatheError as error:
                log.error("the route cannot say that %s ended: %s", message.id, error.message, extra=detail_of(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                message.route_revision = route.revision
                await self._keep(running)

    def _conclude(self, running: Running, verdict: experiment_pb2.Verdict.ValueType, reason: str) -> None:
        model, message = running.spec.model, running.message
        message.state, message.verdict, message.reason = EXPERIMENT_STATE_ENDED, verdict, reason
        message.ended_at.GetCurrentTime()
        self._router.choose_by(model, None)
        self._metrics.experiment_running.labels(model).set(0)
        said = word(verdict)
        self._metrics.experiments.labels(model, said).inc()
        text = f"{said}: {reason}"
        self._events.tell(control_pb2.EVENT_KIND_EXPERIMENT_ENDED, model, text, experiment=message.id)

    async def _keep(self, running: Running) -> None:
        if not running.message.HasField("started_at"):
            return  # its record is lost, or cannot be read just now
        try:
            await asyncio.to_thread(self._repository.write_experiment, running.copy())
        except LatheError as error:
            log.error("experiment %s cannot be written: %s", running.message.id, error.message, extra=detail_of(error))


def _lost(route: Route, told: RunningExperiment) -> experiment_pb2.Experiment:
    """What stands for an experiment whose record cannot be read."""
    message = experiment_pb2.Experiment(id=told.id, state=EXPERIMENT_STATE_ENDED, verdict=VERDICT_INVALID)
    message.reason = "its record cannot be read"
    baseline = next(ref for ref, weight in route.weights if weight)
    for side, ref in ((message.spec.baseline, baseline), (message.spec.candidate, told.candidate)):
        side.variant, side.version = ref.variant, ref.version
    message.spec.model = route.model
    return message
