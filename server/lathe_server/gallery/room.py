"""A gallery's life inside a server: opened before anything is served, asked about routes, closed at the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grpc import aio

from lathe.v1 import gallery_pb2_grpc
from lathe_server.access.gate import Gate
from lathe_server.gallery.decision import refuse_strangers
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.eyes import Eyes
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.sealing import read_key
from lathe_server.gallery_service import GalleryService
from lathe_server.manager import Manager
from lathe_server.router import Route
from lathe_server.settings import ON, Settings


class Room:
    """
    Raises:
        Refused: there is no key.
    """

    def __init__(self, settings: Settings, eyes: Eyes, manager: Manager, gate: Gate) -> None:
        own = GallerySettings(
            settings.gallery_keep_faces == ON, settings.gallery_max_records, settings.gallery_retention_days
        )
        self._manager = manager
        self._fmr = settings.gallery_fmr
        self._desk = Desk(Path(settings.gallery), read_key(settings.gallery_key), own)
        self._service = GalleryService(self._desk, eyes, gate, settings.gallery_fmr)
        self._gallery: Gallery | None = None

    async def open(self, port: aio.Server) -> None:
        """
        Args:
            port: that will answer for it.

        Raises:
            Refused: the file cannot be opened, is damaged, or has another key.
        """
        self._gallery = await self._desk.open()
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(self._service, port)
        self._tending = asyncio.create_task(self._desk.tend())

    def guard(self, route: Route) -> None:
        """Asked about a route whose variants are in memory.

        Raises:
            Refused: the gallery could not go on to decide by the vectors that it would make.
        """
        if self._gallery is None or not (enrolled := self._gallery.space):
            return
        if route.model != enrolled.partition("/")[0]:
            return
        for ref in route.needs():
            with self._manager.lease(ref) as servable:
                refuse_strangers([(str(ref), servable.card.embedding)], enrolled, len(self._gallery), self._fmr)

    async def close(self) -> None:
        if self._gallery is not None:
            self._tending.cancel()
            self._gallery = None
        await self._desk.close()
