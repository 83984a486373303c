"""Which variants are in memory, and who is using them.

State lives on the event loop; loading and closing happen on low-priority threads, beside the frames.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from lathe.errors import BadVariant, Refused
from lathe.repository import VariantRef
from lathe_server import memory
from lathe_server.servable import Servable
from lathe_server.threads import become_loader

T = TypeVar("T")

LOADER_THREAD = "lathe-loader"

State = Literal["loading", "ready", "draining"]


@dataclass(slots=True)
class _Entry:
    """Leases are taken only while ready; a draining one is `drained` with its last lease, then `gone`."""

    servable: Servable
    state: State = "ready"
    leases: int = 0
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Lease:
    """The right to use a servable until `release`; a swap waits for it. Also a context manager."""

    __slots__ = ("_release", "servable")

    def __init__(self, servable: Servable, release: Callable[[], None]) -> None:
        self.servable = servable
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        if self._release:
            self._release()
            self._release = None

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(self, *_: object) -> None:
        self.release()


class Manager:
    """Loads, lends and closes servables.

    Args:
        load: builds a servable; blocking, called on a thread of its own.
        load_seconds: longest time it may take.
        try_first: once the manager is cautious, called before each load, on its thread; what it raises ends the load.
        on_change: called on the loop with a variant after it is ready and after it is gone.
    """

    def __init__(
        self,
        load: Callable[[VariantRef], Servable],
        *,
        load_seconds: float,
        try_first: Callable[[VariantRef], None] = lambda ref: None,
        on_change: Callable[[Servable, bool], None] = lambda servable, loaded: None,
    ) -> None:
        self._load = load
        self._load_seconds = load_seconds
        self._try_first = try_first
        self._is_cautious = False
        self._on_change = on_change
        self._entries: dict[VariantRef, _Entry] = {}
        self._loading: dict[VariantRef, asyncio.Task[Servable]] = {}

    def be_cautious(self) -> None:
        """From now on something serves that a load must not harm."""
        self._is_cautious = True

    def state(self, ref: VariantRef) -> State | None:
        """None where the variant is not in memory."""
        if ref in self._loading:
            return "loading"
        entry = self._entries.get(ref)
        return entry.state if entry else None

    def runtime(self, ref: VariantRef) -> str:
        """What executes a variant; empty where it is not in memory."""
        entry = self._entries.get(ref)
        return entry.servable.runtime if entry else ""

    def loaded(self) -> list[VariantRef]:
        return list(self._entries)

    async def load(self, ref: VariantRef) -> Servable:
        """Brings a variant into memory; of any number of simultaneous calls for one, one does the work.

        Raises:
            NotFound: it is not published.
            BadVariant: it fails a check or takes too long.
        """
        entry = self._entries.get(ref)
        if entry and entry.state == "draining":
            await entry.gone.wait()
        elif entry:
            return entry.servable
        task = self._loading.get(ref)
        if task is None:
            task = asyncio.create_task(self._load_once(ref))
            self._loading[ref] = task
            task.add_done_callback(lambda _: self._loading.pop(ref, None))
        return await asyncio.shield(task)

    async def _load_once(self, ref: VariantRef) -> Servable:
        def load() -> Servable:
            if self._is_cautious:
                self._try_first(ref)
            return self._load(ref)

        try:
            servable = await asyncio.wait_for(_beside(load), self._load_seconds)
        except TimeoutError as error:  # the thread cannot be ended; it finishes or hangs on its own
            raise BadVariant(f"{ref} was not loaded within {self._load_seconds:g} s") from error
        self._entries[ref] = _Entry(servable)
        self._on_change(servable, True)
        return servable

    def lease(self, ref: VariantRef) -> Lease:
        """Lends a servable.

        Raises:
            Refused: it is not in memory, or on its way out.
        """
        entry = self._entries.get(ref)
        if entry is None or entry.state != "ready":
            raise Refused(f"variant {ref.variant} of {ref.model} is not loaded; put it on the route first")
        entry.leases += 1
        return Lease(entry.servable, lambda: self._end_lease(entry))

    def _end_lease(self, entry: _Entry) -> None:
        entry.leases -= 1
        if not entry.leases and entry.state == "draining":
            entry.drained.set()

    async def unload(self, ref: VariantRef) -> None:
        """Takes a variant out of memory after its last lease, and hands the memory back to the system."""
        entry = self._entries.get(ref)
        if entry is None:
            return
        if entry.state == "draining":
            await entry.gone.wait()
            return
        entry.state = "draining"
        if not entry.leases:
            entry.drained.set()
        await entry.drained.wait()
        del self._entries[ref]
        self._on_change(entry.servable, False)
        entry.gone.set()
        del entry
        await _beside(memory.trim)

    def newest_loaded(self, model: str, variant: str) -> VariantRef:
        """The newest version in memory of a variant that a caller pins.

        Raises:
            Refused: there is none.
        """
        refs = [ref for ref in self._entries if (ref.model, ref.variant) == (model, variant)]
        ready = [ref for ref in refs if self._entries[ref].state == "ready"]
        if not ready:
            raise Refused(f"variant {variant} of {model} is not loaded; put it on the route first")
        return max(ready)


async def _beside(work: Callable[[], T]) -> T:
    """Runs work on a low-priority thread: a daemon, because a load that hangs must not hold the exit."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        become_loader()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised where it is awaited
            done.set_exception(error)

    threading.Thread(target=run, name=LOADER_THREAD, daemon=True).start()
    return await asyncio.wrap_future(done)
