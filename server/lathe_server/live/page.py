"""The page, its state and its pictures, for browsers that may see them."""

from __future__ import annotations

import asyncio
import json
import secrets
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from time import monotonic, thread_time, time
from typing import Any

from prometheus_client import CollectorRegistry

from lathe.errors import LatheError
from lathe.repository import VariantRef
from lathe_server.access.gate import Gate
from lathe_server.events import Events
from lathe_server.experiments import Experiments
from lathe_server.http import Page, Reply, Request
from lathe_server.live.cameras import Cameras, Shot
from lathe_server.live.door import turned_away
from lathe_server.live.experiment import all_shown
from lathe_server.live.figures import Figures
from lathe_server.live.pictures import blurred_jpeg, plain_jpeg
from lathe_server.live.state import FRAMES_PATH, classes_of, told_of, told_of_event, told_of_frame
from lathe_server.live.wall import Wall
from lathe_server.manager import Manager
from lathe_server.settings import PLAIN, Settings

FRESH_SECONDS = 0.9
"""However many browsers ask, the server looks no more often than that."""
EVENTS = 12


@dataclass(frozen=True)
class Sources:
    """Where the page has it from: of one server, on its event loop.

    Attributes:
        registry: read on another thread.
        refresh: brings gauges up to date before that.
        scraped: told of the CPU time that reading took.
        name: of the server.
    """

    registry: CollectorRegistry
    refresh: Callable[[], None]
    scraped: Callable[[float], None]
    manager: Manager
    experiments: Experiments
    events: Events
    name: str

    def classes(self, ref: VariantRef) -> Sequence[str]:
        """Names of a variant's classes; none where it is in memory no more."""
        try:
            with self.manager.lease(ref) as servable:
                return list(servable.card.classes)
        except LatheError:
            return ()


class Live:
    """One server's page.

    Args:
        settings: of that server, whose `live` is not off.

    Attributes:
        observe: to be told of each frame's result.
    """

    def __init__(self, settings: Settings, gate: Gate, sources: Sources) -> None:
        self._settings = settings
        self._gate = gate
        self._sources = sources
        self._cameras = Cameras()
        self.observe = self._cameras.observe
        self._wall = Wall(self._encode)
        self._figures = Figures(sources.registry)
        self._prefix = secrets.token_hex(4)
        self._told: asyncio.Task[bytes] | None = None
        self._told_at = -1.0
        self._forgetting: asyncio.TimerHandle | None = None
        self._html, self._policy = page_and_policy()

    def pages(self) -> dict[str, Page]:
        """By their paths."""
        return {
            "/live": self._guarded(self._page),
            "/live/state": self._guarded(self._state),
            FRAMES_PATH: self._guarded(self._picture, is_counted=False),  # there is one for each camera at each look
        }

    def _guarded(self, page: Page, *, is_counted: bool = True) -> Page:
        headers = _headers(self._policy)

        async def answer(request: Request) -> Reply:
            asks = bool(self._settings.tls_client_ca)
            refusal = turned_away(request, self._gate, asks_for_certificate=asks, is_counted=is_counted)
            reply = refusal or await page(request)
            return replace(reply, headers=(*reply.headers, *headers))

        return answer

    async def _page(self, request: Request) -> Reply:
        self._look_soon()
        return Reply(200, self._html, "text/html; charset=utf-8")

    async def _state(self, request: Request) -> Reply:
        if self._told is None or (self._told.done() and monotonic() - self._told_at >= FRESH_SECONDS):
            self._told_at = monotonic()
            self._told = asyncio.create_task(self._tell())
        return Reply(200, await asyncio.shield(self._told), "application/json")

    async def _picture(self, request: Request) -> Reply:
        prefix, _, number = request.path.removeprefix(FRAMES_PATH).partition("-")
        is_one = prefix == self._prefix and number.isascii() and number.isdigit() and len(number) < 20
        jpeg = await self._wall.jpeg(int(number)) if is_one else None
        return Reply(200, jpeg, "image/jpeg") if jpeg else Reply(404, b"no such picture any more\n")

    def _look_soon(self) -> None:
        """Somebody has opened the page: frames are kept for the first look."""
        self._cameras.look()
        self._forget_later()

    async def _tell(self) -> bytes:
        """One look at everything, as JSON; what takes time is done beside the event loop."""
        sources = self._sources
        cameras = self._cameras.look()
        self._forget_later()
        self._wall.hang(camera.shot for camera in cameras if camera.shot)
        classes = classes_of(cameras, sources.classes)
        told: dict[str, Any] = {
            "server": sources.name,
            "mode": self._settings.live,
            "experiments": all_shown(sources.experiments.running()),
            "events": [told_of_event(event) for event in reversed(sources.events.newest(EVENTS))],
        }
        sources.refresh()
        now = monotonic()

        def written() -> tuple[bytes, float]:
            began = thread_time()
            told["now"] = round(time() * 1e3)
            told["figures"] = self._figures.look(now, time())
            told["cameras"] = [told_of(one, self._frame(one.shot, classes) if one.shot else None) for one in cameras]
            return json.dumps(told, allow_nan=False).encode(), thread_time() - began

        content, cpu_seconds = await asyncio.to_thread(written)
        sources.scraped(cpu_seconds)
        return content

    def _frame(self, shot: Shot, classes: dict[VariantRef, Sequence[str]]) -> dict[str, Any]:
        return told_of_frame(
            shot, classes.get(shot.ref, ()) if shot.ref else (), self._prefix, self._settings.max_frame_pixels
        )

    def _encode(self, shot: Shot) -> bytes:
        assert shot.picture, "only pictures are hung"
        if self._settings.live == PLAIN:
            return plain_jpeg(shot.picture, self._settings.max_frame_pixels)
        return blurred_jpeg(shot.picture, shot.detections.xyxy, self._settings.max_frame_pixels)

    def _forget_later(self) -> None:
        if self._forgetting is None:
            wait = max(0.0, self._cameras.seconds_left)
            self._forgetting = asyncio.get_running_loop().call_later(wait, self._forget_if_unseen)

    def _forget_if_unseen(self) -> None:
        self._forgetting = None
        if self._cameras.seconds_left > 0:
            self._forget_later()
            return
        self._cameras.forget()
        self._wall.clear()
        self._figures.forget()
        self._told = None


def page_and_policy() -> tuple[bytes, str]:
    """The page, and the policy by which a browser runs its own script and style, and nothing else."""
    html = files("lathe_server.live").joinpath("page.html").read_bytes()
    script, style = (_hash_of(html, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    return html, policy


def _hash_of(html: bytes, tag: bytes) -> str:
    """Of what stands in the one element of that kind."""
    _, _, after = html.partition(b"<%b>" % tag)
    content, end, _ = after.partition(b"</%b>" % tag)
    assert end, "the page has one script and one style, without attributes"
    return f"sha256-{b64encode(sha256(content).digest()).decode()}"


def _headers(policy: str) -> tuple[tuple[str, str], ...]:
    return (
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    )
