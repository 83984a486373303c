"""Looks at servers again and again, and says what happened between two looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import sleep

from lathe.errors import LatheError, Unavailable
from lathe.overview import Overview, overview
from lathe.scrape import Scrape


@dataclass(frozen=True)
class Sight:
    """What is seen of one server.

    Attributes:
        overview: of the time since the last look; None after the first one, and where there is a problem.
        problem: why nothing is seen, in a line; empty where all is well.
    """

    address: str
    overview: Overview | None = None
    problem: str = ""


class Watch:
    """One server, of which two looks that follow each other make an overview.

    Args:
        fetch: scrapes it.
        clock: seconds on which nobody sets the time.

    Attributes:
        sight: after the last look.
    """

    def __init__(self, address: str, fetch: Callable[[], Scrape], clock: Callable[[], float] = time.monotonic) -> None:
        self.sight = Sight(address)
        self._fetch, self._clock = fetch, clock
        self._last: tuple[Scrape, float] | None = None
        self._lost_at: float | None = None

    def look(self) -> None:
        """Blocks until the server has answered, or has not. Raises nothing: what goes wrong is the sight's problem."""
        address = self.sight.address
        try:
            told = self._told()
        except Exception as error:  # noqa: BLE001  a sight that stayed as it was would look current
            self._lost_at = self._clock() if self._lost_at is None else self._lost_at
            lost_seconds = self._clock() - self._lost_at
            since = f", for {lost_seconds:.0f} s" if lost_seconds >= 1 else ""
            self.sight = Sight(address, problem=f"{_why(error, address)}{since}")
        else:
            self._lost_at = None
            self.sight = Sight(address, told)

    def _told(self) -> Overview | None:
        before, self._last = self._last, None  # where there is no answer: an average over absence would say nothing
        at = self._clock()  # a server tells what it knows when it is asked; to read it takes longer
        seen = self._fetch()
        if not seen.has("lathe_frames_total"):
            raise Unavailable(f"{self.sight.address} has metrics, and is no server of Lathe")
        self._last = (seen, at)
        return overview(before[0], seen, at - before[1], now=time.time()) if before and at > before[1] else None


def _why(error: Exception, address: str) -> str:
    if isinstance(error, LatheError):
        return error.message
    return f"{address} has metrics that cannot be understood ({type(error).__name__})"


def look(watches: Sequence[Watch]) -> tuple[Sight, ...]:
    """Looks at all at once."""
    threads = [threading.Thread(target=watch.look, daemon=True) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tuple(watch.sight for watch in watches)


def looks(watches: Sequence[Watch], every_seconds: float) -> Iterator[tuple[Sight, ...]]:
    """One after each interval, for ever. A look that takes longer than that puts off the next ones."""
    due = time.monotonic()
    while True:
        due = max(due + every_seconds, time.monotonic())
        sleep(max(0.0, due - time.monotonic()))
        yield look(watches)
