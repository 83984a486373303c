"""Who has changed what: one line for each call of control, in a log of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lathe.errors import LatheError
from lathe_server.access.gate import caller

log = logging.getLogger("lathe.audit")


@contextmanager
def audited(method: str, model: str) -> Iterator[None]:
    """Writes down a call once it is through: who made it, of what model, and what came of it."""
    outcome = "INTERNAL"
    try:
        yield
        outcome = "OK"
    except LatheError as error:
        outcome = error.status
        raise
    finally:
        who = caller.get()
        log.info("%s of %s by %s: %s", method, _word(model), who.name if who else "nobody known", outcome)


def author(claimed: str) -> str:
    """Who is to be kept as the author of a change: whose token it is, before what somebody says of himself."""
    who = caller.get()
    if who is None:
        return claimed
    return f"{who.name} ({claimed})" if claimed and claimed != who.name else who.name


def _word(text: str) -> str:
    """Without what would forge a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:63])
