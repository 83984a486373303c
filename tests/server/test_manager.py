"""Leases and loads: one load for any number of callers, and no closing under somebody's hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lathe.errors import BadVariant, NotFound, Refused
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.engines import default_engine
from lathe_server.lifecycle import State
from lathe_server.manager import KEPT_FAILURES, Manager
from lathe_server.servable import Servable
from lathe_server.vision import Detector
from tests.models import bright_spots

A, A2, B = (VariantRef("face", "a", 1), VariantRef("face", "a", 2), VariantRef("face", "b", 1))


class Shelf:
    """What the manager loads from; counts, and may hold a load up."""

    def __init__(self, detector: Detector) -> None:
        self.loads: list[VariantRef] = []
        self.changes: list[tuple[VariantRef, State | None]] = []
        self.gate = threading.Event()
        self.gate.set()
        self._detector = detector

    def load(self, ref: VariantRef, reached: Callable[[State], None]) -> Servable:
        self.loads.append(ref)
        self.gate.wait(10)
        reached("checking")
        if ref.variant == "broken":
            raise BadVariant("the model file is not an ONNX file")
        reached("warming")
        return Servable(ref, card_pb2.Card(), default_engine(bright_spots(), (160, 128)), self._detector)

    def note(self, ref: VariantRef, state: State | None, text: str) -> None:
        self.changes.append((ref, state))


@pytest.fixture
def shelf(detector: Detector) -> Shelf:
    return Shelf(detector)


def managed(shelf: Shelf, act: Callable[[Manager], Coroutine[Any, Any, None]], load_seconds: float = 10) -> None:
    async def run() -> None:
        manager = Manager(shelf.load, load_seconds=load_seconds, on_change=shelf.note)
        try:
            await act(manager)
        finally:
            shelf.gate.set()

    asyncio.run(run())


@pytest.mark.fault(52)
def test_fifty_callers_cause_one_load(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        shelf.gate.clear()
        calls = [asyncio.create_task(manager.load(A)) for _ in range(50)]
        await asyncio.sleep(0)
        assert manager.states() == {A: "loading"}
        calls[0].cancel()  # one of them goes away; the others still get theirs
        shelf.gate.set()
        servables = await asyncio.gather(*calls[1:])
        assert {id(servable) for servable in servables} == {id(await manager.load(A))}

    managed(shelf, act)
    assert shelf.loads == [A]
    assert shelf.changes == [(A, "loading"), (A, "checking"), (A, "warming"), (A, "ready")]


@pytest.mark.fault(37)
def test_a_load_that_never_ends_is_timed_out_and_the_next_one_works(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        await manager.load(A)
        shelf.gate.clear()
        with pytest.raises(BadVariant, match=r"not loaded within 0\.05 s"):
            await manager.load(B)
        assert (manager.states(), manager.about(B)) == (
            {A: "ready", B: "failed"},
            "face/b/1 was not loaded within 0.05 s",
        )
        with manager.lease(A) as servable:
            assert servable.ref == A
        shelf.gate.set()
        await asyncio.sleep(0.1)  # the load that was given up gets as far as it would have
        assert manager.states()[B] == "failed"
        assert (await manager.load(B)).ref == B

    managed(shelf, act, load_seconds=0.05)


@pytest.mark.fault(31)
def test_a_load_that_fails_leaves_nothing_behind_and_may_be_tried_again(shelf: Shelf) -> None:
    broken = VariantRef("face", "broken", 1)

    async def act(manager: Manager) -> None:
        for _ in range(2):
            with pytest.raises(BadVariant, match="not an ONNX file"):
                await manager.load(broken)
        assert (manager.states(), manager.about(broken)) == ({broken: "failed"}, "the model file is not an ONNX file")
        with pytest.raises(Refused):
            manager.lease(broken)

    managed(shelf, act)
    assert shelf.loads == [broken, broken]
    assert [state for _, state in shelf.changes] == ["loading", "checking", "failed"] * 2


def test_of_many_that_failed_only_the_newest_are_remembered(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        for version in range(1, KEPT_FAILURES + 6):
            with pytest.raises(BadVariant):
                await manager.load(VariantRef("face", "broken", version))
        assert [ref.version for ref in manager.states()] == list(range(6, KEPT_FAILURES + 6))

    managed(shelf, act)


def test_an_unload_waits_for_the_last_lease_and_lends_no_more(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        await manager.load(A)
        leases = [manager.lease(A), manager.lease(A)]
        unload = asyncio.create_task(manager.unload(A))
        await asyncio.sleep(0)
        assert manager.states() == {A: "draining"}
        with pytest.raises(Refused):
            manager.lease(A)
        leases[0].release()
        leases[0].release()  # twice is once
        await asyncio.sleep(0)
        assert not unload.done()
        leases[1].release()
        await asyncio.wait_for(unload, 5)
        assert manager.states() == {}

    managed(shelf, act)
    assert [state for _, state in shelf.changes][-3:] == ["ready", "draining", None]


def test_a_load_during_the_draining_of_the_same_variant_waits_and_loads_anew(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        await manager.load(A)
        lease = manager.lease(A)
        unload = asyncio.create_task(manager.unload(A))
        await asyncio.sleep(0)
        loads = [asyncio.create_task(manager.load(A)) for _ in range(3)]
        await asyncio.sleep(0)
        lease.release()
        await asyncio.gather(unload, *loads)
        assert manager.states() == {A: "ready"}

    managed(shelf, act)
    assert shelf.loads == [A, A]


def test_memory_comes_to_hold_what_is_wanted_and_nothing_else(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        await manager.settle([A, B])
        await manager.settle([A2, B])
        assert manager.states() == {B: "ready", A2: "ready"}
        with pytest.raises(BadVariant):
            await manager.settle([A, VariantRef("face", "broken", 1)])
        assert {ref for ref, state in manager.states().items() if state == "ready"} == {A, A2, B}

    managed(shelf, act)
    assert shelf.loads[:4] == [A, B, A2, A]


def test_what_is_not_in_memory_is_not_lent(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        with pytest.raises(Refused):
            manager.lease(A)
        await manager.unload(A)

    managed(shelf, act)


def test_a_pinned_variant_means_its_newest_version_in_memory(shelf: Shelf) -> None:
    async def act(manager: Manager) -> None:
        with pytest.raises(Refused):
            manager.ready("face", "a")
        await manager.load(A2)
        await manager.load(A)
        assert manager.ready("face", "a") == A2
        await manager.unload(A2)
        assert manager.ready("face", "a") == A

    managed(shelf, act)


def test_a_variant_that_is_not_published_is_not_found(detector: Detector) -> None:
    def load(ref: VariantRef, reached: Callable[[State], None]) -> Servable:
        raise NotFound(f"{ref} is not published")

    async def run() -> None:
        manager = Manager(load, load_seconds=5)
        with pytest.raises(NotFound):
            await manager.load(A)

    asyncio.run(run())
