"""Which variants are in memory, and who is using them.

State lives on the event loop; loading and closing happen on low-priority threads, beside the frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from lathe.errors import BadVariant, LatheError, Refused
from lathe.repository import VariantRef
from lathe_server import memory
from lathe_server.lifecycle import NEXT, State, plan
from lathe_server.servable import Servable
from lathe_server.threads import beside

KEPT_FAILURES = 100
"""Variants of which it is remembered why they were refused."""


@dataclass(slots=True)
class _Entry:
    """One variant's life; `drained` with its last lease, then `gone`."""

    state: State | None = None
    reason: str = ""
    loading: asyncio.Task[Servable] | None = None
    servable: Servable | None = None
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
        load: builds a servable, and says which state it reaches; blocking, called on a thread of its own.
        load_seconds: longest time it may take.
        fetch: brings a variant's files to this machine before it is loaded, for as long as that takes; blocking, on
            such a thread too.
        on_change: called on the loop with a variant's new state, None once it is gone, and a line about it.
    """

    def __init__(
        self,
        load: Callable[[VariantRef, Callable[[State], None]], Servable],
        *,
        load_seconds: float,
        fetch: Callable[[VariantRef], None] = lambda ref: None,
        on_change: Callable[[VariantRef, State | None, str], None] = lambda ref, state, text: None,
    ) -> None:
        self._load = load
        self._load_seconds = load_seconds
        self._fetch = fetch
        self._on_change = on_change
        self._entries: dict[VariantRef, _Entry] = {}

    def states(self) -> dict[VariantRef, State]:
        """Of all that are in memory, on their way in or out, or were refused."""
        return {ref: entry.state for ref, entry in self._entries.items() if entry.state}

    def about(self, ref: VariantRef) -> str:
        """What executes a variant, or why it was refused when it was last loaded; empty in between."""
        entry = self._entries.get(ref)
        if entry is None:
            return ""
        return entry.servable.runtime if entry.servable else entry.reason

    async def settle(self, wanted: Iterable[VariantRef]) -> None:
        """Loads what is wanted and not there, then lets go of what is there and not wanted.

        Raises:
            LatheError: as `load`; nothing is let go of then.
        """
        todo = plan(wanted, self.states())
        for ref in todo.load:
            await self.load(ref)
        for ref in todo.unload:
            await self.unload(ref)

    async def load(self, ref: VariantRef) -> Servable:
        """Brings a variant into memory; of any number of simultaneous calls for one, one does the work.

        Raises:
            NotFound: it is not published.
            BadVariant: it fails a check or takes too long.
        """
        entry = self._entries.get(ref)
        if entry and entry.state == "draining":
            await entry.gone.wait()
            entry = self._entries.get(ref)  # of another caller that has waited
        if entry and entry.servable:
            return entry.servable
        if entry is None:
            entry = self._entries[ref] = _Entry()
        if entry.loading is None:
            entry.reason = ""
            self._move(ref, entry, "loading")
            entry.loading = asyncio.create_task(self._load_once(ref, entry))
        return await asyncio.shield(entry.loading)

    async def _load_once(self, ref: VariantRef, entry: _Entry) -> Servable:
        loop = asyncio.get_running_loop()
        began = monotonic()

        def reach(state: State) -> None:
            if entry.loading and state in NEXT[entry.state]:  # it may have been given up meanwhile
                self._move(ref, entry, state)

        def reached(state: State) -> None:
            with suppress(RuntimeError):  # the load has outlived the loop
                loop.call_soon_threadsafe(reach, state)

        try:
            await beside(lambda: self._fetch(ref))
            servable = await asyncio.wait_for(beside(lambda: self._load(ref, reached)), self._load_seconds)
        except TimeoutError as error:  # the thread cannot be ended; it finishes or hangs on its own
            late = BadVariant(f"{ref} was not loaded within {self._load_seconds:g} s")
            self._fail(ref, entry, late.message)
            raise late from error
        except Exception as error:
            self._fail(ref, entry, error.message if isinstance(error, LatheError) else "an internal error")
            raise
        entry.servable, entry.loading = servable, None
        self._move(ref, entry, "ready", f"on {servable.runtime}, in {monotonic() - began:.2f} s")
        return servable

    def _fail(self, ref: VariantRef, entry: _Entry, reason: str) -> None:
        entry.reason, entry.loading = reason, None
        self._move(ref, entry, "failed", reason)
        self._entries[ref] = self._entries.pop(ref)  # behind those that failed before
        failed = [own for own, state in self.states().items() if state == "failed"]
        for own in failed[:-KEPT_FAILURES]:
            del self._entries[own]

    def _move(self, ref: VariantRef, entry: _Entry, state: State | None, text: str = "") -> None:
        assert state in NEXT[entry.state], f"{ref} went from {entry.state} to {state}"
        entry.state = state
        self._on_change(ref, state, text)

    def lease(self, ref: VariantRef) -> Lease:
        """Lends a servable.

        Raises:
            Refused: it is not in memory, or on its way out.
        """
        entry = self._entries.get(ref)
        if entry is None or entry.servable is None or entry.state != "ready":
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
        if entry is None or entry.servable is None:
            return
        if entry.state == "draining":
            await entry.gone.wait()
            return
        self._move(ref, entry, "draining")
        if not entry.leases:
            entry.drained.set()
        await entry.drained.wait()
        del self._entries[ref]
        self._move(ref, entry, None)
        entry.gone.set()
        del entry
        await beside(memory.trim)

    def ready(self, model: str, variant: str, version: int = 0) -> VariantRef:
        """The version in memory of a variant that a caller pins; 0 means the newest.

        Raises:
            Refused: there is none.
        """
        found = [
            ref
            for ref, entry in self._entries.items()
            if entry.state == "ready" and (ref.model, ref.variant) == (model, variant) and version in (0, ref.version)
        ]
        if not found:
            named = f"{variant}/{version}" if version else variant
            raise Refused(f"variant {named} of {model} is not loaded; put it on the route first")
        return max(found)
