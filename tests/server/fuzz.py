"""A fuzz of one server: rounds of calls that a seed decides, what came of them, and what they left in the process."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.calls import SECONDS, channel, metric, until
from tests.conftest import RunningServer
from tests.server import http_calls, wire_calls
from tests.server.good_requests import requests, scenes, words
from tests.server.http_calls import HttpCall
from tests.server.messages import Messages, mixed
from tests.server.vitals import Vitals, vitals
from tests.server.wire_calls import METHODS, Call, Calls, Outcome

AnyCall: TypeAlias = Call | HttpCall

BESIDE = 2
"""Calls of any kind that may be under way beside one."""
DEEP = ("Detect", "DetectStream", "ModelInfer", "ModelStreamInfer", "SetRoute", "StartExperiment", "infer")
DEEP_SHARE = 3
ENDING_SECONDS = 0.2
"""From the last connection of a process that ends to its end."""


class Broken(BaseException):
    """The server is gone, or hangs. No `Exception`, after which hypothesis would try smaller messages on it."""


def _subjects() -> Mapping[str, SearchStrategy[AnyCall]]:
    """Calls by what they ask."""
    calls = Calls(Messages(words()), requests(), scenes())
    return {
        **{str(method): calls.of(method) for method in METHODS},
        **{f"http {kind}": strategy for kind, strategy in http_calls.http_calls().items()},
    }


SUBJECTS = _subjects()
ANY: SearchStrategy[AnyCall] = mixed(
    {calls: DEEP_SHARE if name.endswith(DEEP) else 1 for name, calls in SUBJECTS.items()}
)


@dataclass
class Fuzz:
    """Attributes:
    messages: sent, by what they asked.
    ends: calls by what they asked and how they ended.
    answered: what was answered at least once.
    held: by the process after each round.
    """

    server: RunningServer
    messages: Counter[str] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    held: list[Vitals] = field(default_factory=list)

    def round(self, number: int, examples: int) -> None:
        """Sends so many batches of calls that the number decides; then the server is idle, and is looked at."""
        subject = list(SUBJECTS.values())[number % len(SUBJECTS)]
        with channel(self.server.grpc) as inference, channel(self.server.control) as control:
            opened = {"grpc": inference, "control": control}

            @seed(number)
            @settings(
                max_examples=examples,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            )
            @given(subject, st.lists(ANY, max_size=BESIDE))
            def send(call: AnyCall, beside: list[AnyCall]) -> None:
                self._send(opened, [call, *beside])

            send()
        until(lambda: metric(self.server, "lathe_streams") == 0)
        until(lambda: metric(self.server, "lathe_waiting_frames") == 0)
        until(lambda: vitals(self.server.process.pid).children == 0)
        self.held.append(vitals(self.server.process.pid))

    def _send(self, opened: Mapping[str, grpc.Channel], batch: list[AnyCall]) -> None:
        calls = [call for call in batch if isinstance(call, Call)]
        complaints = [self._ended(one, self._begun(opened, one)) for call in calls for one in call.before]
        begun = [(call, self._begun(opened, call)) for call in calls]
        complaints += [self._replied(call) for call in batch if isinstance(call, HttpCall)]
        complaints += [self._ended(call, end) for call, end in begun]
        wrong = [complaint for complaint in complaints if complaint]
        if wrong:
            self._see_that_it_lives(batch)
        assert not wrong, "\n".join(wrong)

    def _see_that_it_lives(self, batch: list[AnyCall]) -> None:
        with suppress(subprocess.TimeoutExpired):
            code = self.server.process.wait(ENDING_SECONDS)
            raise Broken(f"the server ended with {code} after {batch}")

    def _begun(self, opened: Mapping[str, grpc.Channel], call: Call) -> Callable[[], Outcome]:
        return call.begin(opened[call.method.port])

    def _ended(self, call: Call, end: Callable[[], Outcome]) -> str:
        """What is wrong with how it did."""
        outcome = end()
        if wire_calls.is_hanging(call, outcome):
            raise Broken(f"no end within {SECONDS:g} s of {call}")
        is_answered = outcome.status == "OK" or bool(outcome.answers)
        self._count(str(call.method), len(call.messages), outcome.status, is_answered=is_answered)
        wrong = wire_calls.complaint(call, outcome)
        return f"{wrong}: {call} ended by {outcome}" if wrong else ""

    def _replied(self, call: HttpCall) -> str:
        """What is wrong with the reply."""
        try:
            status, body = call.send(self.server.http)
        except TimeoutError as error:
            raise Broken(f"no reply within {SECONDS:g} s to {call}") from error
        self._count(f"http {call.kind}", 1, str(status), is_answered=status == 200)
        wrong = http_calls.complaint(call, status, body)
        return f"{wrong}: {call} was answered by {status} {body!r}" if wrong else ""

    def _count(self, asked: str, messages: int, status: str, *, is_answered: bool) -> None:
        self.messages[asked] += messages
        self.ends[asked, status] += 1
        if is_answered:
            self.answered.add(asked)

    def table(self) -> Iterator[str]:
        """Messages and ends, a line for each that was asked."""
        for asked, messages in sorted(self.messages.items()):
            ends = sorted((status, ended) for (own, status), ended in self.ends.items() if own == asked)
            yield f"{messages:8}  {asked}: " + ", ".join(f"{ended} {status}" for status, ended in ends)
        yield f"{self.messages.total():8}  messages in {self.ends.total()} calls"
