"""What is done to a server in mid-run, and a note of how it went."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence

from lathe.client import Client
from lathe.connection import Connection
from lathe.errors import LatheError, Refused
from lathe_loadtest.result import Event
from lathe_loadtest.scenario import Action

AUTHOR = "load test"
Perform = Callable[[Action, int], str]
"""Does an action for the n-th time, and says in words what it did."""


def times(actions: Sequence[Action], seconds: float) -> list[tuple[float, Action, int]]:
    """When each is done, in order, and for the how many-th time.

    >>> [(at, n) for at, _, n in times([Action(1, "rollback", every_seconds=2)], 6)]
    [(1, 0), (3, 1), (5, 2)]
    """

    def of(action: Action) -> list[tuple[float, Action, int]]:
        if not action.every_seconds:
            return [(action.at_seconds, action, 0)]
        moments = itertools.takewhile(
            lambda one: one[0] < seconds,
            ((action.at_seconds + n * action.every_seconds, action, n) for n in itertools.count()),
        )
        return list(moments)

    return list(heapq.merge(*map(of, actions), key=lambda one: one[0]))


def on_server(address: str, control: str, connection: Connection, model: str) -> Perform:
    """Does routes, swaps and rollbacks over the control port."""

    def perform(action: Action, number: int) -> str:
        with Client(address, control, connection) as client:
            if action.do == "route":
                route = client.set_route(model, dict(action.weights), degrade=action.degrade, author=AUTHOR)
            elif action.do == "swap":
                variant = list(action.weights)[number % len(action.weights)]
                route = client.set_route(model, {variant: 1}, degrade=action.degrade, author=AUTHOR)
            elif action.do == "rollback":
                route = client.rollback(model, author=AUTHOR)
            else:
                raise Refused("a restart is for who has started the server; this run has not")
        weights = ", ".join(f"{one.variant} {one.weight}" for one in route.weights if one.weight)
        return f"revision {route.revision}: {weights}"

    return perform


class Actions:
    """Does what a scenario says when it says so, one after the other, on a thread of its own."""

    def __init__(self, actions: Sequence[Action], seconds: float, perform: Perform, start: float) -> None:
        self._times = times(actions, seconds)
        self._perform = perform
        self._start = start
        self._found: list[Event] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> tuple[Event, ...]:
        """What has not begun is not done."""
        self._is_over.set()
        self._thread.join()
        return tuple(self._found)

    def _run(self) -> None:
        for at, action, number in self._times:
            if self._is_over.wait(max(0.0, self._start + at - time.monotonic())):
                return
            began = time.monotonic()
            text = error = ""
            try:
                text = self._perform(action, number)
            except LatheError as caught:
                error = caught.message
            took = time.monotonic() - began
            self._found.append(Event(began - self._start, action.do, text, took, error))
