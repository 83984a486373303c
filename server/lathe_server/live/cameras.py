"""The newest answered frame of each camera, kept only while somebody looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import Literal, NamedTuple

from lathe.detections import Detections
from lathe.overview import GONE_SECONDS, SILENT_SECONDS
from lathe.repository import VariantRef
from lathe_server.facts import without_secrets
from lathe_server.frames import Result
from lathe_server.origin import Origin
from lathe_server.rounds import LATE
from lathe_server.vision import Answer, EncodedPicture, RawPicture

LOOKED_SECONDS = 5.0
"""After a look frames are kept for so long, for the next one."""
MOST_CAMERAS = 64
"""Shown at the same time; a place is free again when its camera has been silent for a minute."""
MAX_HELD_BYTES = 64 << 20
"""Of the newest pictures; those of the looks before, which browsers may still ask for, come on top."""
RATE_SECONDS = 5.0
"""Over which frames a second are counted."""

Kind = Literal["stream", "unnamed", "calls"]


@dataclass(frozen=True, slots=True)
class Shot:
    """An answered frame that may be shown: what is shown of it, and nothing that holds its picture where there was no
    room for that.

    Attributes:
        number: its name in URLs, no other frame's.
        index: in its stream.
        arrived: on the server's monotonic clock, in seconds.
    """

    number: int
    ref: VariantRef | None
    index: int
    arrived: float
    age_seconds: float
    degraded: bool
    detections: Detections
    picture: EncodedPicture | RawPicture | None


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera at one look.

    Attributes:
        number: its own for as long as it is known.
        kind: a stream by its name, one without a name, or all single calls for a model.
        stream: its name, without what may be a password in it; empty for the other kinds.
        shot: None where no frame was answered yet.
        frames_per_second: answered; None at the first look, like both shares.
        dropped_share, failed_share: of the frames that came to an end; failed ones are rejected ones too.
        silent_seconds: since its last frame.
    """

    number: int
    kind: Kind
    model: str
    stream: str
    shot: Shot | None
    frames_per_second: float | None
    dropped_share: float | None
    failed_share: float | None
    silent_seconds: float

    @property
    def is_silent(self) -> bool:
        return self.silent_seconds > SILENT_SECONDS


class _Key(NamedTuple):
    """Which camera a frame is of. A stream without a name is told from others by its call."""

    model: str
    kind: Kind
    stream_id: str
    origin: Origin | None


class _Counts(NamedTuple):
    at: float
    answered: int
    dropped: int
    failed: int


class _Known:
    """A camera between looks."""

    __slots__ = ("answered", "dropped", "failed", "looks", "number", "seen_at", "shot")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.seen_at = now
        self.answered = self.dropped = self.failed = 0
        self.shot: Shot | None = None
        self.looks: deque[_Counts] = deque()

    def rates(self, now: float) -> tuple[float | None, float | None, float | None]:
        """Frames a second and both shares, since the look that is `RATE_SECONDS` ago, or the first."""
        told = _Counts(now, self.answered, self.dropped, self.failed)
        while len(self.looks) > 1 and self.looks[1].at <= now - RATE_SECONDS:
            self.looks.popleft()
        self.looks.append(told)
        before = self.looks[0]
        answered, dropped, failed = (new - old for new, old in zip(told[1:], before[1:], strict=True))
        all_frames = answered + dropped + failed
        shares = (dropped / all_frames, failed / all_frames) if all_frames else (None, None)
        return (answered / (now - before.at) if now > before.at else None, *shares)


class Cameras:
    """On the event loop only.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._until = -1.0  # frames are kept so long
        self._known: dict[_Key, _Known] = {}
        self._numbers = count(1)
        self._held = 0  # bytes of the newest pictures

    def observe(self, result: Result) -> None:
        """A frame has its result. While nobody looks this is a comparison."""
        now = self._clock()
        if now >= self._until or result.frame.is_private:
            return
        if not isinstance(result.frame.asked, EncodedPicture | RawPicture):
            return
        key = _key_of(result)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_CAMERAS:
                return
            known = self._known[key] = _Known(next(self._numbers), now)
        known.seen_at = now
        if isinstance(result.answer, Answer):
            known.answered += 1
            self._keep(known, result, result.answer.detections, result.frame.asked)
        elif result.outcome in LATE:
            known.dropped += 1
        elif result.outcome in ("failed", "rejected"):
            known.failed += 1

    def _keep(
        self, known: _Known, result: Result, detections: Detections, picture: EncodedPicture | RawPicture
    ) -> None:
        frame = result.frame
        if known.shot and known.shot.arrived > frame.arrived:
            return  # two workers had frames of one stream, and this one took longer
        self._held -= _size(known.shot)
        has_room = self._held + _bytes_of(picture) <= MAX_HELD_BYTES
        known.shot = Shot(
            next(self._numbers),
            result.ref,
            frame.index,
            frame.arrived,
            result.age_seconds,
            result.degraded,
            detections,
            picture if has_room else None,
        )
        self._held += _size(known.shot)

    def look(self) -> list[Camera]:
        """All cameras as they are, in the order of their names; frames are kept from now on."""
        now = self._clock()
        if now >= self._until:
            self.forget()
        self._until = now + LOOKED_SECONDS
        for key, known in list(self._known.items()):
            if now - known.seen_at > GONE_SECONDS:
                self._held -= _size(known.shot)
                del self._known[key]
        return list(self._cameras(now))

    def _cameras(self, now: float) -> Iterator[Camera]:
        for key, known in sorted(self._known.items(), key=lambda item: (item[0][:3], item[1].number)):
            yield Camera(
                known.number,
                key.kind,
                key.model,
                without_secrets(key.stream_id),
                known.shot,
                *known.rates(now),
                silent_seconds=now - known.seen_at,
            )

    @property
    def seconds_left(self) -> float:
        """Until everything is forgotten; not above 0 where that is due."""
        return self._until - self._clock()

    def forget(self) -> None:
        """Keeps nothing, until somebody looks."""
        self._until = -1.0
        self._known.clear()
        self._held = 0


def _key_of(result: Result) -> _Key:
    frame = result.frame
    if frame.is_call:  # each has a made-up name of its own
        return _Key(frame.model, "calls", "", None)
    if not frame.stream_id:
        return _Key(frame.model, "unnamed", "", frame.origin)
    return _Key(frame.model, "stream", frame.stream_id, None)


def _size(shot: Shot | None) -> int:
    return _bytes_of(shot.picture) if shot and shot.picture else 0


def _bytes_of(picture: EncodedPicture | RawPicture) -> int:
    return len(picture.pixels if isinstance(picture, RawPicture) else picture.data)
