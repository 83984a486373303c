"""Which frames of a stream have their result, which goes next, and which were lost: it decides, `resuming` acts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

import grpc

from lathe.v1 import inference_pb2

Message = inference_pb2.DetectStreamRequest

CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""gRPC says the second of calls that come in while a server closes."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class Ledger(ABC):
    """The frames of one stream over all its calls.

    A frame is drawn from the source, sent on a call, and settled by its one result, each in order of index.

    Attributes:
        drawn: how many frames were drawn: the index of the next one.
        settled: how many have their result: the index that the next result is for.
        is_open: there is a call that takes frames.
    """

    def __init__(self) -> None:
        self.drawn = 0
        self.settled = 0
        self.is_open = False

    @property
    def is_full(self) -> bool:
        """No frame may be drawn now."""
        return False

    @property
    def is_owed(self) -> bool:
        """The present call has passed over frames that the next one must answer."""
        return False

    @property
    def lost(self) -> int:
        """How many frames are to be settled without a server, before anything else."""
        return 0

    @property
    @abstractmethod
    def waits(self) -> bool:
        """There is a frame for the next call."""

    @abstractmethod
    def draw(self, frame: Message) -> None:
        """Takes the frame with the index `drawn`."""

    @abstractmethod
    def send(self) -> Message | None:
        """The next frame for the call; None where there is none, or no call."""

    @abstractmethod
    def settle(self, outcome: inference_pb2.Outcome.ValueType) -> bool:
        """Whether a server's result is the one result of the next frame; otherwise it is nobody's."""

    def settle_lost(self) -> int:
        """The index of a lost frame, which is settled by that."""
        self.settled += 1
        return self.settled - 1

    @abstractmethod
    def open(self) -> None:
        """A new call takes frames."""

    def cut(self) -> None:
        """The call takes no frames any more; results of it may still come."""
        self.is_open = False


class Recording(Ledger):
    """Every frame is to be answered: what has no result when a call ends goes again on the next.

    Args:
        ahead: most frames that are drawn and not settled.
        again: there may be a next call, so a frame that a server drops because it is going is not settled by that.
    """

    def __init__(self, ahead: int, *, again: bool = True) -> None:
        super().__init__()
        self._ahead = ahead
        self._again = again
        self._unsettled: deque[Message] = deque()
        self._sent = 0  # of them, on the present call
        self._is_owed = False

    @property
    def is_full(self) -> bool:
        return len(self._unsettled) >= self._ahead

    @property
    def is_owed(self) -> bool:
        return self._is_owed

    @property
    def waits(self) -> bool:
        return bool(self._unsettled)

    def draw(self, frame: Message) -> None:
        self._unsettled.append(frame)
        self.drawn += 1

    def send(self) -> Message | None:
        if not self.is_open or self._sent == len(self._unsettled):
            return None
        self._sent += 1
        return self._unsettled[self._sent - 1]

    def settle(self, outcome: inference_pb2.Outcome.ValueType) -> bool:
        if self._again and outcome == inference_pb2.OUTCOME_DROPPED_DRAINING:
            self._is_owed = True
        if self._is_owed or not self._sent:  # what comes behind a frame that is owed goes again with it, in order
            return False
        self._unsettled.popleft()
        self._sent -= 1
        self.settled += 1
        return True

    def open(self) -> None:
        self.is_open = True
        self._is_owed = False
        self._sent = 0


class Live(Ledger):
    """The newest frame is to be answered: what was sent to a call that is gone is stale, and lost.

    Whatever is lost comes before what waits, so that numbers tell of it, however many frames it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._newest: Message | None = None
        self._first = 0  # what came before it was not sent on the present call

    @property
    def lost(self) -> int:
        return max(0, (self._first if self.is_open else self._next) - self.settled)

    @property
    def waits(self) -> bool:
        return self._newest is not None

    @property
    def _next(self) -> int:
        """The index that is sent next."""
        return self.drawn - self.waits

    def draw(self, frame: Message) -> None:
        self._newest = frame
        self.drawn += 1

    def send(self) -> Message | None:
        if not self.is_open:
            return None
        frame, self._newest = self._newest, None
        return frame

    def settle(self, outcome: inference_pb2.Outcome.ValueType) -> bool:
        if self.settled == self._next:
            return False
        self.settled += 1
        return True

    def open(self) -> None:
        self.is_open = True
        self._first = self._next


def goes_on(code: grpc.StatusCode, *, has_begun: bool, is_answered: bool, is_owed: bool) -> bool:
    """Whether a new call takes up a stream when one has ended.

    Args:
        has_begun: some server has taken the stream.
        is_answered: the call that ended has given a response.
        is_owed: it has passed over frames (`Ledger.is_owed`).
    """
    if code is grpc.StatusCode.OK:
        return is_owed
    # A server that has not noticed the cut yet counts the old call, too, and may say that there are too many.
    is_counted_twice = code is grpc.StatusCode.RESOURCE_EXHAUSTED and not is_answered
    return has_begun and (code in CUT or is_counted_twice)


def pause_seconds(attempt: int, draw: float) -> float:
    """How long to wait before a call, so that many cameras that lose a server at once do not come back at once.

    Args:
        attempt: calls since the last result, from 0.
        draw: at random, from 0 to 1.

    >>> [pause_seconds(attempt, 1.0) for attempt in (0, 1, 2, 9, 9999)]
    [0.1, 0.2, 0.4, 2.0, 2.0]
    >>> pause_seconds(2, 0.25)
    0.1
    """
    return draw * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 30))
