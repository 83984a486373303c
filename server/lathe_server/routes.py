"""Swaps: a new route loads what it needs, is written down, replaces the old one, and lets go of the rest.

The repository's newest revision is what should be true. A server that starts, and a server that hears of nothing,
looks there: so any number of servers agree on one folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic

from lathe.errors import BadVariant, Conflict, InvalidInput, LatheError, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2, control_pb2
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics
from lathe_server.router import Route, Router

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks for revisions that others have written; change notification misses network disks."""
RETRY_SECONDS = 30.0
"""Before a revision that could not be carried out is tried again."""
STEPS_BACK = 3
"""Revisions that a start tries, from the newest on, before it goes by what the cards recommend."""


class Routes:
    """Keeps the router and the manager in step with the repository. One change at a time."""

    def __init__(self, repository: Repository, router: Router, manager: Manager, metrics: Metrics) -> None:
        self._repository = repository
        self._router = router
        self._manager = manager
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._closed = False
        self._put_offs: dict[str, tuple[int, float]] = {}  # by model: what could not be carried out, and when to retry

    async def start(self) -> None:
        """Serves every model of the repository by its newest route, or by what its cards recommend.

        Raises:
            Refused: nothing could be loaded.
        """
        models = await asyncio.to_thread(self._repository.models)
        if not models:
            raise Refused("the repository holds no variant; make one with `lathe compress`")
        for model in models:
            await self._resume(model)
        await self._unload_unwanted()  # of routes that failed half-way
        if not self._router.models():
            raise Refused("no model of the repository could be loaded; the log says why")

    async def _resume(self, model: str) -> None:
        """Serves a model by the newest of its routes that can be carried out, or else by what its cards recommend."""
        newest_first = (await asyncio.to_thread(self._repository.revisions, model))[: -STEPS_BACK - 1 : -1]
        for revision in (*newest_first, 0):
            try:
                await self._apply(await asyncio.to_thread(self._stored, model, revision))
                return
            except LatheError as error:
                self._put_off(model, revision, error)

    async def follow(self) -> None:
        """Carries out what other servers, or hands, write into the repository, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                async with self._turn:
                    await self._catch_up()
            except Exception:
                log.exception("looking for new routes failed; the next look comes")

    async def _catch_up(self) -> None:
        behind = False
        for model, revision in (await asyncio.to_thread(self._repository.newest_revisions)).items():
            held = self._router.route(model)
            tried, again_at = self._put_offs.get(model, (0, 0.0))
            if (held and held.revision >= revision) or (tried == revision and monotonic() < again_at):
                continue
            behind = True
            try:
                await self._apply(await asyncio.to_thread(self._stored, model, revision))
                self._metrics.swaps.labels(model, "followed").inc()
            except LatheError as error:
                self._put_off(model, revision, error)
        if behind:
            await self._unload_unwanted()

    def _put_off(self, model: str, revision: int, error: LatheError) -> None:
        self._put_offs[model] = (revision, monotonic() + RETRY_SECONDS)
        what = f"revision {revision} of its route" if revision else "what its cards recommend"
        log.error("model %s cannot be served by %s: %s %s", model, what, error.message, error.detail)

    def _stored(self, model: str, revision: int) -> Route:
        """One revision; for 0 the route that nobody has written, of what the cards recommend."""
        stored = self._repository.route(model, revision) if revision else None
        if stored:
            weights = tuple(
                (VariantRef(model, weight.variant, weight.version), weight.weight) for weight in stored.weights
            )
            degrade = tuple(VariantRef(model, one.variant, one.version) for one in stored.degrade.variants)
            return Route(model, stored.revision, weights, degrade, stored.degrade.after_seconds)
        cards = self._repository.newest_cards(model)
        if not cards:
            raise BadVariant(f"no card of {model} can be read")
        card = recommended(cards)
        log.info("%s serves %s, as its card recommends", card.variant, model)
        return Route(model, 0, ((VariantRef(model, card.variant, card.version), 1),))

    async def set_route(self, request: control_pb2.SetRouteRequest) -> control_pb2.Route:
        """Carries out a swap. Until it succeeds the old route serves, whatever happens.

        Raises:
            InvalidInput: weights that make no route.
            NotFound: a variant that is not published.
            BadVariant: a variant that fails a check on its way into memory.
            Conflict: another revision holds than the caller expects.
            Refused: the server is shutting down.
        """
        async with self._turn:
            return await self._change(request)

    async def rollback(self, request: control_pb2.RollbackRequest) -> control_pb2.Route:
        """Writes and carries out a new revision with the content of the one before the present one.

        Raises:
            Refused: there is none, or the server is shutting down.
            Conflict: another revision holds than the caller expects.
            BadVariant: what it names cannot be read or fails a check.
        """
        async with self._turn:
            revisions = await asyncio.to_thread(self._repository.revisions, request.model)
            if len(revisions) < 2:
                raise Refused(f"the route of {request.model} has no revision to go back to")
            before = await asyncio.to_thread(self._repository.route, request.model, revisions[-2])
            assert before
            back = control_pb2.SetRouteRequest(
                model=request.model,
                weights=before.weights,
                degrade=before.degrade if before.HasField("degrade") else None,
                expected_revision=request.expected_revision,
                author=request.author,
                reason=request.reason or f"back to revision {before.revision}",
            )
            return await self._change(back)

    async def _change(self, request: control_pb2.SetRouteRequest) -> control_pb2.Route:
        try:
            route = await self._swap(request)
        except LatheError:
            if self._router.route(request.model):  # names that a caller made up are no labels
                self._metrics.swaps.labels(request.model, "refused").inc()
            raise
        finally:
            await self._unload_unwanted()  # the old variants; after a failure those that were loaded in vain
        self._metrics.swaps.labels(request.model, "done").inc()
        return route

    async def _swap(self, request: control_pb2.SetRouteRequest) -> control_pb2.Route:
        if self._closed:
            raise Refused("the server is shutting down")
        revision = max(await asyncio.to_thread(self._repository.revisions, request.model), default=0)
        if len(request.author) > 256 or len(request.reason) > 1024:
            raise InvalidInput("author is at most 256, reason at most 1024 characters")
        if request.expected_revision and request.expected_revision != revision:
            raise Conflict(
                f"revision {revision} of the route of {request.model} holds, not {request.expected_revision}"
            )
        route = await asyncio.to_thread(self._resolve, request, revision + 1)
        for ref in route.needs():
            await self._manager.load(ref)
        message = to_message(route)
        message.author, message.reason = request.author, request.reason
        message.created_at.FromDatetime(datetime.now(UTC))
        await asyncio.to_thread(self._repository.add_route, message)
        await self._apply(route)
        return message

    def _resolve(self, request: control_pb2.SetRouteRequest, revision: int) -> Route:
        """The request with version 0 made the newest, checked against the repository."""

        def published(variant: str, version: int) -> VariantRef:
            newest = self._repository.newest(request.model, variant)
            ref = VariantRef(request.model, variant, version) if version else newest
            self._repository.folder(ref)
            return ref

        return Route(
            request.model,
            revision,
            tuple((published(one.variant, one.version), one.weight) for one in request.weights),
            tuple(published(one.variant, one.version) for one in request.degrade.variants),
            request.degrade.after_seconds,
        )

    async def _apply(self, route: Route) -> None:
        for ref in route.needs():
            await self._manager.load(ref)
        before = self._router.route(route.model)
        self._router.replace(route)
        for ref, _ in before.weights if before else ():
            self._metrics.set_weight(ref, 0)
        for ref, weight in route.weights:
            self._metrics.set_weight(ref, weight)
        log.info("route of %s, revision %d: %s", route.model, route.revision, _words(route))

    async def _unload_unwanted(self) -> None:
        wanted = self._router.wanted()
        for ref in self._manager.loaded():
            if ref not in wanted:
                await self._manager.unload(ref)

    def route(self, model: str) -> Route:
        """The route that holds.

        Raises:
            NotFound: the model is not served.
        """
        route = self._router.route(model)
        if route is None:
            raise NotFound("no such model is served here")
        return route

    def close(self) -> None:
        """Refuses swaps from now on."""
        self._closed = True


def recommended(cards: Sequence[card_pb2.Card]) -> card_pb2.Card:
    """The newest recommended card; the first by name where none is recommended."""
    chosen = [card for card in cards if card.recommended] or list(cards)[:1]
    return max(chosen, key=lambda card: card.created_at.ToNanoseconds())


def to_message(route: Route) -> control_pb2.Route:
    """The weights; who set them, when and why stands in the repository only."""
    message = control_pb2.Route(model=route.model, revision=route.revision)
    for ref, weight in route.weights:
        message.weights.add(variant=ref.variant, version=ref.version, weight=weight)
    for ref in route.degrade:
        message.degrade.variants.add(variant=ref.variant, version=ref.version)
    if route.degrade:
        message.degrade.after_seconds = route.degrade_after_seconds
    return message


def _words(route: Route) -> str:
    shares = ", ".join(f"{ref.variant}/{ref.version}={weight}" for ref, weight in route.weights)
    cheaper = ", ".join(f"{ref.variant}/{ref.version}" for ref in route.degrade)
    return f"{shares}; degrades to {cheaper}" if cheaper else shares
