"""What a gallery and the routes of its embedding network ask of each other: that they can go on together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lathe.errors import NotFound, Refused
from lathe.v1 import card_pb2
from lathe_server.gallery.decision import Unmeasured, refuse_stranger, threshold
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.eyes import Eyes
from lathe_server.manager import Manager
from lathe_server.router import Route
from lathe_server.routes import Routes


class Footing:
    """On the event loop.

    Args:
        eyes: of the gallery.
        fmr: false match rate at which the gallery decides.
    """

    def __init__(self, desk: Desk, routes: Routes, manager: Manager, eyes: Eyes, fmr: float) -> None:
        self._desk = desk
        self._routes = routes
        self._manager = manager
        self._eyes = eyes
        self._fmr = fmr
        self._unmeasured: Unmeasured | None = None

    def guard(self, route: Route) -> None:
        """Asked about a route whose variants are in memory.

        Raises:
            Refused: the gallery could not go on to decide by the vectors that it would make.
        """
        enrolled, records = self._desk.enrolled
        if enrolled and route.model == _model_of(enrolled):
            try:
                self._check(route, enrolled, records)
            except Unmeasured as error:
                self._unmeasured = error
                raise

    def check_start(self) -> None:
        """Asked when the routes serve that can.

        Raises:
            Refused: none of the embedding network's does, because nothing was measured at the gallery's rate. Where the
                pipeline has another one than the gallery was enrolled by, nothing is compared.
        """
        model = _model_of(self._desk.enrolled[0])
        if self._unmeasured and self._eyes.looks_by(model) and self._route(model) is None:
            raise Refused(f"the gallery cannot decide at its false match rate: {self._unmeasured.message}")

    @asynccontextmanager
    async def entry(self, made_by: card_pb2.Embedding) -> AsyncIterator[bool]:
        """Whoever enrols a face goes through here: the first one decides the space, so the route has to fit it, and
        none can change meanwhile.

        Yields:
            Whether the face may be the first.

        Raises:
            Refused: the gallery could not decide about the face by the vectors that the present route makes.
        """
        if self._desk.enrolled[0]:
            yield False
            return
        async with self._routes.turn:
            threshold(made_by, made_by.space, self._fmr)
            if route := self._route(_model_of(made_by.space)):
                self._check(route, made_by.space, 1)
            yield True

    def _check(self, route: Route, enrolled: str, records: int) -> None:
        for ref in route.needs():
            with self._manager.lease(ref) as servable:
                refuse_stranger(str(ref), servable.card.embedding, enrolled, records, self._fmr)

    def _route(self, model: str) -> Route | None:
        try:
            return self._routes.route(model)
        except NotFound:
            return None


def _model_of(space: str) -> str:
    return space.partition("/")[0]
