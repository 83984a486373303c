"""Who has changed what: one line for each call of control, in a log of its own."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from typing import TypeVar

from lathe.errors import LatheError
from lathe_server.origin import current

log = logging.getLogger("lathe.audit")

MAX_AUTHOR = 256
T = TypeVar("T")


async def through(method: str, model: str, work: Awaitable[T]) -> T:
    """Carries a change out, whether or not its caller waits for it, and writes down who made it and what came of it."""

    async def whole() -> T:
        outcome = "INTERNAL"
        try:
            done = await work
            outcome = "OK"
        except LatheError as error:
            outcome = error.status
            raise
        finally:
            who = current.get().caller
            facts = {"method": method, "model": _word(model), "outcome": outcome}
            log.info("%s by %s", method, who.name if who else "nobody known", extra=facts)
        return done

    change = asyncio.ensure_future(whole())
    change.add_done_callback(_heard)
    return await asyncio.shield(change)


def _heard(change: asyncio.Future[T]) -> None:
    """What is refused once its caller has gone is no error of ours: asyncio would log it with its traceback."""
    if not change.cancelled():
        change.exception()


def author(claimed: str) -> str:
    """Who is to be kept as the author of a change: whose token it is, before what somebody says of himself."""
    who = current.get().caller
    if who is None:
        return claimed
    return f"{who.name} ({claimed})"[:MAX_AUTHOR] if claimed and claimed != who.name else who.name


def _word(text: str) -> str:
    """A model's or a variant's name, and of anything else nothing that would forge a line."""
    return re.sub(r"[^a-zA-Z0-9._/@-]", "?", text[:127])
