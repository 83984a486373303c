"""A gallery's life inside a server: opened before anything is served, closed at the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grpc import aio

from lathe.v1 import gallery_pb2_grpc
from lathe_server.access.gate import Gate
from lathe_server.gallery.desk import Desk
from lathe_server.gallery.eyes import Eyes
from lathe_server.gallery.footing import Footing
from lathe_server.gallery.gallery import GallerySettings
from lathe_server.gallery.inverted import index_of
from lathe_server.gallery.sealing import read_key
from lathe_server.gallery_service import GalleryService
from lathe_server.manager import Manager
from lathe_server.routes import Routes
from lathe_server.settings import ON, Settings


class Room:
    """
    Attributes:
        guard: of routes.
        check_start: asked when the routes serve.

    Raises:
        Refused: there is no key, or what shall search is not installed.
    """

    def __init__(self, settings: Settings, eyes: Eyes, manager: Manager, routes: Routes, gate: Gate) -> None:
        own = GallerySettings(
            settings.gallery_keep_faces == ON,
            settings.gallery_max_records,
            settings.gallery_retention_days,
            index_of(settings.gallery_search),
        )
        self._desk = Desk(Path(settings.gallery), read_key(settings.gallery_key), own)
        footing = Footing(self._desk, routes, manager, eyes, settings.gallery_fmr)
        self.guard, self.check_start = footing.guard, footing.check_start
        self._service = GalleryService(
            self._desk, eyes, footing, gate, settings.gallery_fmr, keeps_faces=own.keep_faces
        )
        self._tending: asyncio.Task[None] | None = None

    async def open(self, port: aio.Server) -> None:
        """
        Args:
            port: that will answer for it.

        Raises:
            Refused: the file cannot be opened, is damaged, or has another key.
        """
        await self._desk.open()
        gallery_pb2_grpc.add_GalleryServiceServicer_to_server(self._service, port)
        self._tending = asyncio.create_task(self._desk.tend())

    async def close(self) -> None:
        if self._tending:
            self._tending.cancel()
        await self._desk.close()
