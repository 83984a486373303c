"""What is done to a server in mid-run, at the scenario's times: a list of moments, and who carries them out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from lathe.errors import LatheError, Refused
from lathe_loadtest.result import Event
from lathe_loadtest.scenario import Action, Scenario

AUTHOR = "lathe load"


@dataclass(frozen=True)
class Moment:
    """An action that is due.

    Attributes:
        turn: how often it was done before.
    """

    at_seconds: float
    action: Action
    turn: int = 0


def moments(scenario: Scenario) -> list[Moment]:
    """All that are due in a run, in order; those of one time in the order of the file.

    >>> from lathe_loadtest.scenario import Cameras
    >>> again = Action(1.0, "rollback", every_seconds=2.0)
    >>> scenario = Scenario("face", (Cameras(),), seconds=6.0, actions=(Action(3.0, "restart"), again))
    >>> [(moment.at_seconds, moment.action.do, moment.turn) for moment in moments(scenario)]
    [(1.0, 'rollback', 0), (3.0, 'restart', 0), (3.0, 'rollback', 1), (5.0, 'rollback', 2)]
    """
    return sorted(_moments(scenario), key=lambda moment: moment.at_seconds)


def _moments(scenario: Scenario) -> Iterator[Moment]:
    for action in scenario.actions:
        turn = 0
        while (at := action.at_seconds + turn * action.every_seconds) < scenario.seconds:
            yield Moment(at, action, turn)
            turn += 1
            if not action.every_seconds:
                break


def weights_of(moment: Moment) -> dict[str, int]:
    """The route that an action sets. Of variants that take turns the first has served before.

    >>> swap = Action(1.0, "swap", weights={"a": 1, "b": 1, "c": 1})
    >>> [weights_of(Moment(1.0, swap, turn)) for turn in range(3)]
    [{'b': 1}, {'c': 1}, {'a': 1}]
    """
    weights = dict(moment.action.weights)
    if moment.action.do != "swap":
        return weights
    names = list(weights)
    return {names[(moment.turn + 1) % len(names)]: 1}


def text_of(moment: Moment) -> str:
    """What is done, in short, for the report."""
    action = moment.action
    if action.do in ("route", "swap"):
        text = " ".join(f"{name}={weight}" for name, weight in weights_of(moment).items())
        return f"{text} degrade {','.join(action.degrade)}" if action.degrade else text
    if action.do == "cut":
        return action.how if action.share == 1 else f"{action.how} {action.share:.0%}"
    return ""


class Performer:
    """Carries out a scenario's actions on a thread of its own, while the context lasts; the next waits for the last.

    Args:
        do: carries one out; what it raises becomes the event's error.
        start: `time.monotonic()` of the run's beginning.

    Attributes:
        events: of what was done so far.
    """

    def __init__(self, scenario: Scenario, do: Callable[[Moment], None], start: float) -> None:
        self._moments = moments(scenario)
        self._do = do
        self._start = start
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._perform, name="actions", daemon=True)
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _perform(self) -> None:
        for moment in self._moments:
            if self._ended.wait(max(0.0, self._start + moment.at_seconds - time.monotonic())):
                return
            began, error = time.monotonic(), ""
            try:
                self._do(moment)
            except LatheError as failed:
                error = failed.message
            except Exception as failed:  # noqa: BLE001  whatever it is, later actions have their turn
                error = f"{type(failed).__name__}: {failed}"
            took = time.monotonic() - began
            self.events.append(Event(began - self._start, moment.action.do, text_of(moment), took, error))


def not_ours(moment: Moment) -> Refused:
    """For who cannot carry an action out."""
    needs = "--serve REPOSITORY, a server of its own" if moment.action.do in ("restart", "kill") else "a proxy"
    return Refused(f'"{moment.action.do}" needs {needs}')
