"""Where a gallery's calls take turns: a thread of its own, and a line in the audit log for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lathe.errors import LatheError, Overloaded, Unavailable
from lathe_server.boundary import detail_of
from lathe_server.gallery.audit import Audit, Entry, audit_file
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")
EXPIRY_SECONDS = 3600.0
MOST_WAITING, KEPT_FOR_CHANGES = 256, 256
"""Calls in the line, and how many more where the next one changes something."""


class Desk:
    """On the event loop; what it does is done on the one thread that has the gallery, in the order of the calls.

    Args:
        path: the gallery's file; the audit log lies beside it.
        key: 32 bytes.
    """

    def __init__(self, path: Path, key: bytes, settings: GallerySettings) -> None:
        self._open = lambda: _opened(path, key, settings)
        self._thread = ThreadPoolExecutor(1, "lathe-gallery")
        self._gallery: Gallery | None = None
        self._waiting = 0

    async def open(self) -> None:
        """Reads the file, and lets go of what is too old.

        Raises:
            Refused: the file cannot be opened, is damaged, or has another key.
        """
        gallery, self._audit = await self._on_thread(self._open)
        self._gallery = gallery
        about = (("people", gallery.people), ("records", len(gallery)))
        await self.do(Entry("open", is_change=True, about=about), lambda gallery: None)
        await self._tend()

    async def do(
        self,
        entry: Entry,
        work: Callable[[Gallery], T],
        outcome: Callable[[T], str] = lambda done: "OK",
        after: Callable[[Gallery], None] = lambda gallery: None,
    ) -> T:
        """Does something with the gallery and writes it down, whether or not its caller waits for it.

        Args:
            outcome: of what `work` returns, for the audit log.
            after: done after the work when that is written, or could not be.

        Raises:
            Overloaded: the line is full; nothing was done, and nothing is written down.
            LatheError: of the work, or of what comes after; or its line cannot be written, and then what was changed
                stays so.
        """
        if self._waiting >= MOST_WAITING + KEPT_FOR_CHANGES * entry.is_change:
            raise Overloaded("the gallery has more calls than it can answer soon; send less, or later")

        def whole() -> T:
            said = "INTERNAL"
            with contextlib.ExitStack() as then:
                try:
                    gallery = self._held()
                    done = work(gallery)
                    then.callback(after, gallery)
                    said = outcome(done)
                except LatheError as error:
                    said = error.status
                    raise
                finally:
                    self._audit.write(entry, said)
            return done

        return await self._on_thread(whole)

    async def ask(self, work: Callable[[Gallery], T]) -> T:
        """As `do`, of what nobody needs to know later."""
        return await self._on_thread(lambda: work(self._held()))

    async def expire(self) -> None:
        """Deletes what is older than it may become, with a line for each record; and leaves nothing of what was
        deleted, now or before, in the file's log of changes.

        Raises:
            DiskFull, Refused, Unavailable: part of that was not possible.
        """

        def whole() -> int:
            gallery = self._held()
            try:
                if subjects := gallery.expire():
                    gone = (Entry("expire", subject=subject, is_change=True) for subject in subjects)
                    self._audit.write_all(gone, "OK")
            finally:
                gallery.tidy()
            return len(subjects)

        if count := await self._on_thread(whole):
            log.info("%d records of the gallery were older than they may become, and are deleted", count)

    async def tend(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            try:
                await self._tend()
            except Exception:
                log.exception("looking after the gallery failed; the next look comes")

    async def _tend(self) -> None:
        try:
            await self.expire()
        except LatheError as error:
            log.error("what is too old in the gallery cannot go for good: %s", error.message, extra=detail_of(error))
        await self.ask(Gallery.arrange)

    async def close(self) -> None:
        gallery, self._gallery = self._gallery, None
        if gallery is not None:  # an empty one, too
            await self._on_thread(gallery.close)
        self._thread.shutdown()

    @property
    def enrolled(self) -> tuple[str, int]:
        """The templates' embedding space, and how many there are; none before `open` and after `close`."""
        return self._gallery.enrolled if self._gallery is not None else ("", 0)

    def _held(self) -> Gallery:
        if self._gallery is None:
            raise Unavailable("the server is shutting down")
        return self._gallery

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """A caller that goes away goes when it is done: what he holds meanwhile, as the routes' turn, it relies on."""
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._waiting += 1
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            while not job.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([job])
            if not job.cancelled():
                job.exception()  # looked at, or asyncio complains that nobody has
            raise
        finally:
            self._waiting -= 1


def _opened(path: Path, key: bytes, settings: GallerySettings) -> tuple[Gallery, Audit]:
    store = Store(path, key)
    try:
        return Gallery(store, settings), Audit(audit_file(path), store.pseudonym)
    except BaseException:
        store.close()
        raise
