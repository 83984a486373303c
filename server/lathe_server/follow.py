"""The repository's newest revision is what should be true.

A server that starts, and a server that hears of nothing, looks there: so any number of servers agree on one folder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

from lathe.errors import BadVariant, LatheError, Refused
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_server.boundary import detail_of
from lathe_server.metrics import Metrics
from lathe_server.route_message import Named, is_latest, named_ref, to_route
from lathe_server.router import Route, Router
from lathe_server.routes import Routes, Unwished
from lathe_server.threads import beside

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Before a revision that could not be carried out is tried again."""
STEPS_BACK = 3
"""Revisions that a start tries, from the newest on, before it goes by what the cards recommend."""


class Follower:
    """Carries out what stands in the repository: at the start, and whenever somebody else has written there."""

    def __init__(self, repository: Repository, router: Router, routes: Routes, metrics: Metrics) -> None:
        self._repository = repository
        self._router = router
        self._routes = routes
        self._metrics = metrics
        self._is_away = False  # the repository cannot be reached
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
        await self._routes.settle()  # of routes that failed half-way
        if not self._router.models():
            raise Refused("no model of the repository could be loaded; the log says why")

    async def _resume(self, model: str) -> None:
        """Serves a model by the newest of its routes that can be carried out, or else by what its cards recommend;
        by one that is not wished for only where there is no other."""
        newest_first = (await asyncio.to_thread(self._repository.revisions, model))[: -STEPS_BACK - 1 : -1]
        unwished = []
        for revision in (*newest_first, 0):
            error = await self._carry_out(model, revision)
            if error is None:
                return
            if isinstance(error, Unwished):
                unwished.append(revision)
        for revision in unwished[:1]:
            await self._carry_out(model, revision, at_any_rate=True)

    async def _carry_out(self, model: str, revision: int, *, at_any_rate: bool = False) -> LatheError | None:
        """Lets one revision serve; or what is wrong with it, which is logged."""
        try:
            route = await asyncio.to_thread(self._stored, model, revision)
            await self._routes.apply(route, at_any_rate=at_any_rate)
        except LatheError as error:
            self._put_off(model, revision, error)
            return error
        return None

    async def follow(self) -> None:
        """Carries out what other servers, or hands, write into the repository, until it is cancelled."""
        while True:
            await asyncio.sleep(self._repository.look_seconds)
            try:
                await self._refresh()
                async with self._routes.turn:
                    await self._catch_up()
            except Exception:
                log.exception("looking for new routes failed; the next look comes")

    async def _refresh(self) -> None:
        try:
            await beside(self._repository.refresh, in_haste=True)
            self._is_away = False
        except LatheError as error:
            if not self._is_away:
                log.error("%s; what is known of it serves on", error.message, extra=detail_of(error))
            self._is_away = True

    async def _catch_up(self) -> None:
        behind = False
        for model, revision in (await asyncio.to_thread(self._repository.newest_revisions)).items():
            held = self._router.route(model)
            tried, again_at = self._put_offs.get(model, (0, 0.0))
            is_new = held is None or held.revision < revision or await asyncio.to_thread(self._has_newer, held)
            if not is_new or (tried == revision and monotonic() < again_at):
                continue
            behind = True
            if await self._carry_out(model, revision, at_any_rate=held is None) is None:
                self._metrics.swaps.labels(model, "followed").inc()
        if behind:
            await self._routes.settle()

    def _has_newer(self, route: Route) -> bool:
        """Something has been published that takes its predecessor's place; an experiment goes on with what it has."""
        if route.experiment:
            return False
        return any(
            self._repository.newest(route.model, ref.variant) != ref
            for ref, _ in route.weights
            if ref.variant in route.latest
        )

    def _put_off(self, model: str, revision: int, error: LatheError) -> None:
        self._put_offs[model] = (revision, monotonic() + RETRY_SECONDS)
        what = f"revision {revision} of its route" if revision else "what its cards recommend"
        log.error("model %s cannot be served by %s: %s", model, what, error.message, extra=detail_of(error))

    def _stored(self, model: str, revision: int) -> Route:
        """One revision; for 0 the route that nobody has written, of what the cards recommend."""
        stored = self._repository.route(model, revision) if revision else None
        if stored:

            def find(named: Named) -> VariantRef:
                return self._repository.newest(model, named.variant) if is_latest(named) else named_ref(model, named)

            return to_route(stored, model, revision, find, self._routes.server_name)
        cards = self._repository.newest_cards(model)
        if not cards:
            raise BadVariant(f"no card of {model} can be read")
        card = recommended(cards)
        log.info("%s serves %s, as its card recommends", card.variant, model)
        return Route(model, 0, ((VariantRef(model, card.variant, card.version), 1),))


def recommended(cards: Sequence[card_pb2.Card]) -> card_pb2.Card:
    """The newest recommended card; the first by name where none is recommended."""
    chosen = [card for card in cards if card.recommended] or list(cards)[:1]
    return max(chosen, key=lambda card: card.created_at.ToNanoseconds())
