"""When a model's streams are better served by a cheaper variant, and when they can have the better one back.

A camera's newest frame is never old, so under too much load its age says little; what grows is how long a
stream waits for its turn. That decides the way down. The way back is foretold: the workers' load at the
better variant is today's, times how much longer that variant takes; so a server that just copes with the cheaper
variant does not try the better one again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_SECONDS = 0.25
HOLD_WINDOWS = 2
"""Waits must be too long for so many windows on end."""
CALM_SECONDS = 2.0
BUSY, ROOM = 0.8, 0.8
"""Share of the workers' time: above the first, long waits come of load; below the second there is room."""
SMOOTHING = 0.1


@dataclass
class _Window:
    """What happened since it began."""

    began: float
    turns: int = 0
    waited: float = 0.0
    own_work: float = 0.0
    all_work: float = 0.0


class Degrader:
    """How far one model is degraded.

    Attributes:
        level: 0 serves what the route says; n the n-th cheaper variant.

    Args:
        levels: how many cheaper variants there are.
        set_point: seconds that a stream may wait for its turn.
        workers: threads that judge frames, of all models.
    """

    def __init__(self, levels: int, set_point: float, workers: int, now: float) -> None:
        self._levels = levels
        self._set_point = set_point
        self._workers = workers
        self._window = _Window(now)
        self._late_windows = 0
        self._calm_since: float | None = None
        self._costs: dict[int, float] = {}  # CPU seconds of a frame, by level
        self.level = 0

    def turn(self, waited: float, now: float) -> None:
        """A stream of the model got its turn after so many seconds."""
        self._window.turns += 1
        self._window.waited += waited
        if now - self._window.began >= WINDOW_SECONDS:
            self._judge(now)

    def worked(self, seconds: float, cpu_seconds: float | None, level: int | None) -> None:
        """A frame took so many seconds of a worker.

        Args:
            cpu_seconds: of these, on the processor: what tells variants apart, whoever else uses the machine; None
                for a frame that was not judged to the end.
            level: at which it was served; None for a frame of another model, or of a pinned variant.
        """
        self._window.all_work += seconds
        if level is not None:
            self._window.own_work += seconds
        if level is not None and cpu_seconds is not None:
            mean = self._costs.get(level, cpu_seconds)
            self._costs[level] = mean + SMOOTHING * (cpu_seconds - mean)

    def _judge(self, now: float) -> None:
        window, self._window = self._window, _Window(now)
        capacity = (now - window.began) * self._workers
        load, own = window.all_work / capacity, window.own_work / capacity
        is_late = window.waited / window.turns > self._set_point and load > BUSY
        self._late_windows = self._late_windows + 1 if is_late else 0
        if self._late_windows >= HOLD_WINDOWS and self.level < self._levels:
            self._move_to(self.level + 1)
        elif self.level and not is_late and load + own * (self._times_dearer() - 1) < ROOM:
            self._calm_since = window.began if self._calm_since is None else self._calm_since
            if now - self._calm_since >= CALM_SECONDS:
                self._move_to(self.level - 1)
        else:
            self._calm_since = None

    def _times_dearer(self) -> float:
        """How much longer a frame takes one level up."""
        return self._costs.get(self.level - 1, 0.0) / self._costs.get(self.level, 1.0)

    def _move_to(self, level: int) -> None:
        self.level = level
        self._late_windows, self._calm_since = 0, None
