"""Swaps: a new route loads what it needs, is written down, replaces the old one, and lets go of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from lathe.errors import Conflict, InvalidInput, LatheError, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2
from lathe_server.events import Events
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.route_message import Named, is_latest, named_ref, to_message, to_route, words
from lathe_server.router import Route, Router, RunningExperiment
from lathe_server.threads import beside


class Unwished(Refused):
    """A route that could be carried out, and would break what depends on the model."""


class Routes:
    """Keeps the router and the manager in step with the repository. One change at a time.

    Attributes:
        turn: whoever changes routes has it.
        server_name: the owner of experiments that run here.
        on_route: told of every route that begins to serve.
        guards: asked, on the event loop, about each route before it serves, when all that it needs is in memory; what
            depends on a model raises `Refused` where the route would break it.
        wishes: guards of what can be broken: not heeded where a model would not be served at all.
    """

    def __init__(
        self,
        repository: Repository,
        router: Router,
        manager: Manager,
        metrics: Metrics,
        events: Events,
        server_name: str = "",
    ) -> None:
        self._events = events
        self._repository = repository
        self.server_name = server_name
        self.on_route: Callable[[Route], Awaitable[None]] = _ignore
        self.guards: list[Callable[[Route], None]] = []
        self.wishes: list[Callable[[Route], None]] = []
        self._router = router
        self._manager = manager
        self._metrics = metrics
        self.turn = asyncio.Lock()
        self._closed = False
        self._kept: set[VariantRef] = set()  # asked for by name, not by a route

    async def set_route(self, request: control_pb2.SetRouteRequest) -> control_pb2.Route:
        """Carries out a swap. Until it succeeds the old route serves, whatever happens.

        Raises:
            InvalidInput: weights that make no route.
            NotFound: a variant that is not published.
            BadVariant: a variant that fails a check on its way into memory.
            Conflict: another revision holds than the caller expects.
            Refused: the server is shutting down.
        """
        async with self._turn():
            return await self._set(request)

    async def rollback(self, request: control_pb2.RollbackRequest) -> control_pb2.Route:
        """Writes and carries out a new revision with the content of the one before the present one.

        Raises:
            Refused: there is none, or the server is shutting down.
            Conflict: another revision holds than the caller expects.
            BadVariant: what it names cannot be read or fails a check.
        """
        async with self._turn():
            revisions = await asyncio.to_thread(self._repository.revisions, request.model)
            if len(revisions) < 2:
                raise Refused(f"the route of {request.model} has no revision to go back to")
            before = await asyncio.to_thread(self._repository.route, request.model, revisions[-2])
            assert before
            for weight in before.weights:
                weight.version *= not weight.latest
            back = control_pb2.SetRouteRequest(
                model=request.model,
                weights=before.weights,
                degrade=before.degrade if before.HasField("degrade") else None,
                shadow=before.shadow if before.HasField("shadow") else None,
                rules=before.rules,
                labels=before.labels,
                expected_revision=request.expected_revision,
                author=request.author,
                reason=request.reason or f"back to revision {before.revision}",
            )
            return await self._set(back)

    async def load(self, model: str, named: Named) -> VariantRef:
        """Brings a variant into memory and keeps it there, whatever the routes need.

        Raises:
            NotFound: it is not published.
            BadVariant: it fails a check.
            Refused: the server is shutting down.
        """
        async with self._turn():
            if self._closed:
                raise Refused("the server is shutting down")
            ref = await asyncio.to_thread(self._published, model, named)
            await self._manager.load(ref)
            self._kept.add(ref)
            return ref

    async def unload(self, model: str, named: Named, *, force: bool, author: str) -> VariantRef:
        """Takes a variant out of memory after its last frame.

        Args:
            force: off the route, too.

        Raises:
            Refused: it is not in memory, or a route needs it and it is not forced, or nothing else is on the route.
        """
        async with self.turn:
            newest = self._manager.ready(model, named.variant)
            ref = named_ref(model, named) if named.version else newest
            if self._manager.states().get(ref) in (None, "failed"):
                raise Refused(f"{ref} is not in memory")
            held = self._router.route(model)
            if held and ref in held.needs():
                if not force:
                    raise Refused(f"{ref} is on the route of {model}; take it off first, or force it")
                _refuse_in_experiment(held)
                left = held.without(ref)
                await self._change(
                    model, lambda revision: replace(left, revision=revision), author=author, reason="unload"
                )
            self._kept.discard(ref)
            await self.settle()
            return ref

    async def begin_experiment(
        self, model: str, running: RunningExperiment, *, baseline: VariantRef, author: str
    ) -> control_pb2.Route:
        """Writes and carries out a revision in which a candidate stands beside the variant that serves alone.

        Raises:
            NotFound: the model is not served, or the candidate not published.
            Refused: the baseline does not serve alone, an experiment runs, or the server is shutting down.
            BadVariant: the candidate fails a check.
        """
        async with self._turn():
            held = self.route(model)
            _refuse_in_experiment(held)
            weighted = [ref for ref, weight in held.weights if weight]
            if weighted != [baseline]:
                names = ", ".join(f"{ref.variant}/{ref.version}" for ref in weighted)
                raise Refused(f"the baseline has to serve {model} alone; its route is {names}")

            def resolve(revision: int) -> Route:
                self._repository.folder(running.candidate)
                return replace(held, revision=revision, experiment=running)

            return await self._change(model, resolve, author=author, reason=f"experiment {running.id}")

    async def end_experiment(self, model: str, serves: VariantRef, *, reason: str) -> control_pb2.Route:
        """Writes and carries out a revision without the experiment, in which one variant serves alone.

        Raises:
            Refused: no experiment is on the route, or the server is shutting down.
            Conflict: somebody else has just written a route.
        """
        async with self._turn():
            held = self.route(model)
            experiment = held.experiment
            if experiment is None:
                raise Refused(f"no experiment runs on {model}")

            def resolve(revision: int) -> Route:
                latest = held.latest & {serves.variant}
                return replace(held, revision=revision, weights=((serves, 1),), experiment=None, latest=latest)

            author = f"experiment {experiment.id}"
            return await self._change(model, resolve, expected=held.revision, author=author, reason=reason[:1024])

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The turn, with what others have written in view.

        Raises:
            Refused: the repository cannot be reached.
        """
        async with self.turn:
            await beside(self._repository.refresh, in_haste=True)
            yield

    async def _set(self, request: control_pb2.SetRouteRequest) -> control_pb2.Route:
        held = self._router.route(request.model)
        if held:
            _refuse_in_experiment(held)
        return await self._change(
            request.model,
            lambda revision: self._resolve(request, revision),
            expected=request.expected_revision,
            author=request.author,
            reason=request.reason,
        )

    async def _change(
        self, model: str, resolve: Callable[[int], Route], *, expected: int = 0, author: str, reason: str
    ) -> control_pb2.Route:
        try:
            route = await self._swap(model, resolve, expected, author, reason)
        except LatheError as error:
            if self._router.route(model):  # names that a caller made up are no labels
                self._metrics.swaps.labels(model, "refused").inc()
                self._events.tell(control_pb2.EVENT_KIND_REFUSED, model, error.message)
            raise
        finally:
            await self.settle()  # without the old variants; after a failure without those that were loaded in vain
        self._metrics.swaps.labels(model, "done").inc()
        return route

    async def _swap(
        self, model: str, resolve: Callable[[int], Route], expected: int, author: str, reason: str
    ) -> control_pb2.Route:
        if self._closed:
            raise Refused("the server is shutting down")
        revision = max(await asyncio.to_thread(self._repository.revisions, model), default=0)
        if len(author) > 256 or len(reason) > 1024:
            raise InvalidInput("author is at most 256, reason at most 1024 characters")
        if expected and expected != revision:
            raise Conflict(f"revision {revision} of the route of {model} holds, not {expected}")
        route = await asyncio.to_thread(resolve, revision + 1)
        await self._prepare(route)
        message = to_message(route)
        message.author, message.reason = author, reason
        message.created_at.FromDatetime(datetime.now(UTC))
        await asyncio.to_thread(self._repository.add_route, message)
        await self._serve(route)
        return message

    def _resolve(self, request: control_pb2.SetRouteRequest, revision: int) -> Route:
        """The request with version 0 made the newest, checked against the repository."""

        return to_route(request, request.model, revision, lambda named: self._published(request.model, named))

    def _published(self, model: str, named: Named) -> VariantRef:
        if is_latest(named) and named.version:
            raise InvalidInput("a weight names a version, or the latest, not both")
        newest = self._repository.newest(model, named.variant)
        ref = named_ref(model, named) if named.version else newest
        self._repository.folder(ref)
        return ref

    async def apply(self, route: Route, *, at_any_rate: bool = False) -> None:
        """Lets a route serve that is written down; the caller has the turn.

        Args:
            at_any_rate: whatever the wishes say.

        Raises:
            BadVariant: a variant on it fails a check; the old route serves on.
            Refused: what depends on the model does not go with it; `Unwished` where that can be broken.
        """
        await self._prepare(route, at_any_rate=at_any_rate)
        await self._serve(route)

    async def _serve(self, route: Route) -> None:
        """Nothing refuses it any more: it is prepared, and it is written down."""
        before = self._router.route(route.model)
        self._router.replace(route)
        for ref, _ in before.weights if before else ():
            self._metrics.set_weight(ref, 0)
        for ref, weight in route.weights:
            self._metrics.set_weight(ref, weight)
        self._metrics.route_revision.labels(route.model).set(route.revision)
        self._events.tell(control_pb2.EVENT_KIND_ROUTED, route.model, words(route), revision=route.revision)
        await self.on_route(route)

    async def _prepare(self, route: Route, *, at_any_rate: bool = False) -> None:
        """Brings a route's variants into memory and asks whether it may serve."""
        await self.settle(route)
        for guard in self.guards:
            guard(route)
        for wish in () if at_any_rate else self.wishes:
            try:
                wish(route)
            except Refused as error:
                raise Unwished(error.message) from None

    async def settle(self, coming: Route | None = None) -> None:
        """Brings memory to hold what the routes need, with one that is about to serve; the caller has the turn.

        Raises:
            LatheError: a variant cannot be loaded; what serves stays as it is.
        """
        needed = coming.needs() if coming else []
        await self._manager.settle([*self._router.wanted(), *self._kept, *needed])

    def route(self, model: str) -> Route:
        """The route that holds.

        Raises:
            NotFound: the model is not served, or it is a pipeline.
        """
        route = self._router.route(model)
        if route is None and (spec := self._router.pipeline(model)):
            raise NotFound(f"{model} is a pipeline; who answers, the routes of {spec.detector} and {spec.embedder} say")
        if route is None:
            raise NotFound("no such model is served here")
        return route

    def close(self) -> None:
        """Refuses swaps from now on."""
        self._closed = True


async def _ignore(route: Route) -> None:
    pass


def _refuse_in_experiment(route: Route) -> None:
    if route.experiment:
        where = "" if route.experiment.is_here else f" on server {route.experiment.owner}"
        raise Refused(f"experiment {route.experiment.id} runs on {route.model}{where}; stop it first")
