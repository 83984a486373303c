"""One simulated camera: plays pictures over a stream at its own pace and keeps what came back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from lathe.client import AsyncClient
from lathe.exchange import Result
from lathe_loadtest.pacer import ticks


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered frame.

    Attributes:
        due_at: Unix time at which it was to be sent.
        latency_seconds: from then to the arrival of its answer.
    """

    due_at: float
    latency_seconds: float
    variant: str
    faces: int


@dataclass(slots=True)
class Tally:
    """What one camera sent and got: sent − answered − dropped − rejected − failed = lost."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - self.outcomes.total()


@dataclass(frozen=True, slots=True)
class Camera:
    """Attributes:
    frames: JPEG files, played in a loop.
    phase: part of a frame's time by which it is shifted against the other cameras.
    """

    name: str
    model: str
    frames: Sequence[bytes]
    fps: float
    phase: float = 0.0
    max_age_seconds: float = 0.0
    variant: str = ""

    async def play(
        self,
        client: AsyncClient,
        seconds: float,
        tally: Tally,
        on_result: Callable[[Result], None] = lambda _: None,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Plays for some seconds, or until it is stopped, filling the tally as it goes.

        Raises:
            ServerError: the server ended the stream.
        """
        due: dict[int, float] = {}

        async def paced() -> AsyncIterator[tuple[bytes, float]]:
            async for index, due_at in ticks(self.fps, self.phase, seconds):
                if stop and stop.is_set():
                    return
                due[index] = due_at
                tally.sent += 1
                yield self.frames[index % len(self.frames)], due_at

        async for result in client.detect_stream(
            self.model,
            paced(),
            stream_id=self.name,
            variant=self.variant,
            max_age_seconds=self.max_age_seconds,
            live=True,
        ):
            due_at = due.pop(result.index)
            tally.outcomes[result.outcome] += 1
            if result.answered:
                tally.samples.append(Sample(due_at, time.time() - due_at, result.variant, len(result.detections)))
            on_result(result)
