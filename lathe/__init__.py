"""Lathe: real-time vision inference over gRPC on compressed ONNX models that are swapped while they serve.

from lathe import Client

with Client("127.0.0.1:8500") as client:
    result = client.detect("face", open("picture.jpg", "rb").read())
    print(result.detections.xyxy)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lathe.client import AsyncClient, Client
    from lathe.connection import Connection

__all__ = ["AsyncClient", "Client", "Connection"]


def __getattr__(name: str) -> Any:
    """The clients, imported when they are first asked for: the command line starts without gRPC."""
    if name in __all__:
        from lathe import client

        return getattr(client, name)
    raise AttributeError(f"module 'lathe' has no attribute {name!r}")
