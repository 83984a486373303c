"""A frame inside the server, from its arrival to its one result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lathe.errors import LatheError
from lathe.repository import VariantRef
from lathe_server.origin import NOBODY, Origin
from lathe_server.tensors import TensorAnswer, Tensors
from lathe_server.vision import Answer, Picture, Portrait

Outcome = Literal[
    "answered",
    "dropped_superseded",
    "dropped_too_old",
    "dropped_deadline",
    "dropped_draining",
    "dropped_cancelled",
    "rejected",
    "failed",
]
OUTCOMES: tuple[Outcome, ...] = (
    "answered",
    "dropped_superseded",
    "dropped_too_old",
    "dropped_deadline",
    "dropped_draining",
    "dropped_cancelled",
    "rejected",
    "failed",
)

CREDIBLE_AGE_SECONDS = 60.0
"""A frame that claims to be older on arrival has a wrong clock behind it, not a slow network."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture to be judged, or the face or the tensors of one call.

    Attributes:
        model: or the pipeline.
        asked: the picture, the face, or the tensors.
        stream_id: whose; decides the variant.
        variant: pins the variant, or variant/version; empty follows the route.
        captured, arrived: on the server's monotonic clock, in seconds.
        max_age_seconds: since the capture; infinite where the stream sets none.
        deadline: on the monotonic clock; infinite where the call has none.
        is_call: it came alone, and its stream's name is made up.
        embeddings: of its faces are wanted, where the model is a pipeline.
        origin: its call, whose headers rules of a route look at.
        is_private: it is shown to nobody.
    """

    model: str
    stream_id: str
    variant: str
    index: int
    asked: Picture | Portrait | Tensors
    captured: float
    arrived: float
    max_age_seconds: float = math.inf
    deadline: float = math.inf
    is_call: bool = False
    origin: Origin = NOBODY
    embeddings: bool = False
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a frame.

    Attributes:
        ref: the variant that answered, or would have; of a pipeline the one that detects,
            or it itself under no variant where it lacks one.
        queue_seconds: from the arrival to a worker's taking it.
        cpu_seconds: of the thread that judged it.
        gpu_seconds: of the graphics processor, where that judged it.
        age_seconds: from the capture to this result.
        degraded: a cheaper variant answered than the route says.
        trace_id: 32 hex digits; empty where the frame is not traced.
        shares: of a pipeline's variants, where several had the frame: what each made of it, and what that took.
    """

    frame: Frame
    outcome: Outcome
    ref: VariantRef | None = None
    answer: Answer | TensorAnswer | None = None
    queue_seconds: float = 0.0
    cpu_seconds: float = 0.0
    age_seconds: float = 0.0
    error: LatheError | None = None
    degraded: bool = False
    trace_id: str = ""
    gpu_seconds: float = 0.0
    shares: tuple[Result, ...] = ()

    @property
    def parts(self) -> tuple[Result, ...]:
        """By variant: itself, where one alone had the frame."""
        return self.shares or (self,)

    @property
    def counted_as(self) -> VariantRef | None:
        """Whose frame it is: a variant's; or, without a variant, a pipeline's."""
        if self.ref is None or self.ref.model == self.frame.model:
            return self.ref
        return VariantRef(self.frame.model, "", 0)


def capture_on_monotonic(capture_time_unix_ns: int, now_unix_ns: int, now: float) -> tuple[float, bool]:
    """The capture on the monotonic clock, and whether it had to be clamped to the arrival.

    Capture times come from another machine's wall clock. One in the future, or more than
    `CREDIBLE_AGE_SECONDS` ago, says nothing; a missing one (0) means the arrival and is not clamped. So a
    clock that jumps by an hour, on either side, changes no frame's fate.

    >>> capture_on_monotonic(0, 5_000_000_000, 100.0)
    (100.0, False)
    >>> capture_on_monotonic(4_000_000_000, 5_000_000_000, 100.0)
    (99.0, False)
    >>> capture_on_monotonic(6_000_000_000, 5_000_000_000, 100.0)
    (100.0, True)
    """
    if not capture_time_unix_ns:
        return now, False
    age = (now_unix_ns - capture_time_unix_ns) / 1e9
    if not 0 <= age <= CREDIBLE_AGE_SECONDS:
        return now, True
    return now - age, False


def fate(frame: Frame, now: float) -> Outcome | None:
    """Why a frame is dropped before it is judged, or None where it is still worth it."""
    if now >= frame.deadline:
        return "dropped_deadline"
    if now - frame.captured > frame.max_age_seconds:
        return "dropped_too_old"
    return None
