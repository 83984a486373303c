"""Which of a gallery's records are older than they may become, by a wall clock that may be wrong.

What is deleted does not come back when the clock is set right. So where a look finds more than half of the records due,
as after a jump of the clock, they wait for a day, which the gallery's file remembers, and the log says so at each look.
Then they go: a retention that was shortened, or people who came together, look no different.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from lathe_server.gallery.store import Store

log = logging.getLogger(__name__)

DAY_SECONDS = 86_400
DOUBT_SECONDS = DAY_SECONDS
"""For which most of the records wait when they are due at once."""


class Retention:
    """
    Args:
        store: remembers since when most of its records have been due at once.
        days: after which a record is due; at 0 none is.
    """

    def __init__(self, store: Store, days: float) -> None:
        self._store = store
        self._oldest_seconds = days * DAY_SECONDS if days else math.inf

    def due(self, enrolled_at: Mapping[str, int], now: float) -> list[str]:
        """The records that are to go now.

        Args:
            enrolled_at: Unix time by record, of all.
            now: Unix time.

        Raises:
            DiskFull, Refused, Unavailable: the file remembers nothing now.
        """
        due = [name for name, at in enrolled_at.items() if at < now - self._oldest_seconds]
        early = sum(at > now + DAY_SECONDS for at in enrolled_at.values())
        if early and math.isfinite(self._oldest_seconds):
            log.error(
                "%d records of the gallery were enrolled at a time that is yet to come: the clock is wrong, or was, "
                "and then they stay too long: delete them, and enrol these people anew",
                early,
            )
        return [] if self._is_doubtful(len(due), len(enrolled_at), now) else due

    def _is_doubtful(self, due: int, records: int, now: float) -> bool:
        known = self._store.doubted_since()
        since = known if known is None or known <= now else None
        # Once begun it lasts, however many are enrolled meanwhile by a clock that is wrong.
        if not due or (since is None and 2 * due <= records):
            if known is not None:
                self._store.doubt(None)
            return False
        if since is None:
            since = int(now)
            self._store.doubt(since)
        if now >= since + DOUBT_SECONDS:
            return False
        log.error(
            "%d of the gallery's %d records are older than they may become, by the present clock: they are deleted in "
            "%.0f hours, unless the clock is set right or the retention made longer",
            due,
            records,
            math.ceil((since + DOUBT_SECONDS - now) / 3600),
        )
        return True
