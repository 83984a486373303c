"""Where a gallery's calls take turns: a thread of its own, and a line in the audit log for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lathe.errors import LatheError, Unavailable
from lathe_server.boundary import detail_of
from lathe_server.gallery.audit import Audit, audit_file
from lathe_server.gallery.gallery import Gallery, GallerySettings
from lathe_server.gallery.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")
EXPIRY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What the audit log says of a call.

    Attributes:
        who: has made it.
        about: more, nothing biometric.
    """

    what: str
    who: str = ""
    subject: str = ""
    is_change: bool = False
    about: tuple[tuple[str, str | int | float], ...] = ()


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

    async def open(self) -> Gallery:
        """Reads the file, and lets go of what is too old.

        Returns:
            The gallery, of which others than this thread may ask how large it is, and which space it has.

        Raises:
            Refused: the file cannot be opened, is damaged, or has another key.
        """
        gallery, self._audit = await self._on_thread(self._open)
        self._gallery = gallery
        about = (("people", gallery.people), ("records", len(gallery)))
        await self.do(Entry("open", is_change=True, about=about), lambda gallery: None)
        await self.expire()
        return gallery

    async def do(
        self, entry: Entry, work: Callable[[Gallery], T], outcome: Callable[[T], str] = lambda done: "OK"
    ) -> T:
        """Does something with the gallery and writes it down, whether or not its caller waits for it.

        Args:
            outcome: of what `work` returns, for the audit log.

        Raises:
            LatheError: of the work; or its line cannot be written, and then what was changed stays so.
        """

        def whole() -> T:
            said = "INTERNAL"
            try:
                done = work(self._held())
                said = outcome(done)
            except LatheError as error:
                said = error.status
                raise
            finally:
                self._audit.write(
                    entry.what,
                    said,
                    who=entry.who,
                    subject=entry.subject,
                    is_change=entry.is_change,
                    **dict(entry.about),
                )
            return done

        return await self._on_thread(whole)

    async def ask(self, work: Callable[[Gallery], T]) -> T:
        """As `do`, of what nobody needs to know later."""
        return await self._on_thread(lambda: work(self._held()))

    async def expire(self) -> None:
        """Deletes what is older than it may become, with a line for each record."""

        def whole() -> int:
            subjects = self._held().expire()
            for subject in subjects:
                self._audit.write("expire", "OK", subject=subject, is_change=True)
            return len(subjects)

        if count := await self._on_thread(whole):
            log.info("%d records of the gallery were older than they may become, and are deleted", count)

    async def tend(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            try:
                await self.expire()
            except LatheError as error:
                log.error("old records of the gallery cannot be deleted: %s", error.message, extra=detail_of(error))

    async def close(self) -> None:
        gallery, self._gallery = self._gallery, None
        if gallery:
            await self._on_thread(gallery.close)
        self._thread.shutdown()

    def _held(self) -> Gallery:
        if self._gallery is None:
            raise Unavailable("the server is shutting down")
        return self._gallery

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _opened(path: Path, key: bytes, settings: GallerySettings) -> tuple[Gallery, Audit]:
    store = Store(path, key)
    try:
        return Gallery(store, settings), Audit(audit_file(path), store.pseudonym)
    except BaseException:
        store.close()
        raise
