"""The HTTP port: metrics for Prometheus, and whether the server lives and is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from lathe_server.metrics import Metrics


def build_app(metrics: Metrics, is_ready: Callable[[], bool], refresh: Callable[[], None]) -> web.Application:
    """Routes /metrics, /healthz (the process lives) and /readyz (frames are taken).

    Args:
        refresh: brings gauges up to date before a scrape.
    """

    async def scrape(_: web.Request) -> web.Response:
        refresh()
        body = await asyncio.to_thread(metrics.exposition)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if is_ready() else web.Response(status=503, text="not ready\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", scrape), web.get("/healthz", live), web.get("/readyz", ready)])
    return app
