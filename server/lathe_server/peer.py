"""Where a call comes from."""

from __future__ import annotations

from typing import Any

from grpc import aio


def is_here(context: aio.ServicerContext[Any, Any]) -> bool:
    """Its caller is on this machine."""
    return context.peer().startswith(("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:"))
