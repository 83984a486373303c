"""What a server has where it is asked for, and what has to be installed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lathe.errors import Refused
from lathe_server.access.gate import Gate
from lathe_server.calls import Calls
from lathe_server.manager import Manager
from lathe_server.router import Router
from lathe_server.routes import Routes
from lathe_server.settings import Settings

if TYPE_CHECKING:
    from lathe_server.gallery.room import Room
    from lathe_server.tracing import Tracing


def tracing_of(settings: Settings, server_name: str) -> Tracing | None:
    """
    Raises:
        Refused: what sends traces is not installed.
    """
    if not settings.trace_to:
        return None
    try:
        from lathe_server.tracing import tracing_to
    except ImportError as error:
        raise Refused("traces need OpenTelemetry: install lathe[otel]") from error
    return tracing_to(settings.trace_to, settings.trace_share, server_name)


def gallery_of(
    settings: Settings, calls: Calls, router: Router, manager: Manager, routes: Routes, gate: Gate
) -> Room | None:
    """
    Raises:
        Refused: what seals records is not installed, or there is no key.
    """
    if not settings.gallery:
        return None
    try:
        from lathe_server.gallery.room import Room
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise Refused("a gallery needs cryptography: install lathe[gallery]") from error
    from lathe_server.gallery.eyes import Eyes

    eyes = Eyes(settings.gallery_model, calls, router, manager, settings.max_frame_pixels)
    return Room(settings, eyes, manager, routes, gate)
