"""Two load tests side by side: per figure how much it has changed, with an interval, and what that allows to say.

What is compared are blocks of seconds, the n-th of one run with the n-th of the other, so that a ramp or a spike
weighs the same on both sides. The intervals know the noise within the runs. What differs between two runs of the same
server, such as a busy neighbour, they cannot know: the allowed change has to cover it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from lathe.errors import InvalidInput
from lathe.evidence import Interval, student_bootstrap, student_bootstraps
from lathe_loadtest.figures import is_told
from lathe_loadtest.result import ANSWERED, LoadResult
from lathe_loadtest.same_load import notes, obstacles
from lathe_loadtest.timeline import FEWEST_BLOCKS, Counts, Statistics, Timeline, Values

Verdict = Literal["regression", "better", "within", "open", "unknown"]
WORDS: Mapping[Verdict, str] = {
    "regression": "REGRESSION",
    "better": "better",
    "within": "no regression",
    "open": "no difference shown",
    "unknown": "cannot be told",
}
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
UNANSWERED, CPU = "unanswered", "cpu"
CPU_SECONDS = "cpu_seconds"
ALLOWED: Mapping[str, float] = {**dict.fromkeys(SHARES, 0.05), UNANSWERED: 0.01, CPU: 0.05}
"""By how much each figure may grow by default: as a share of itself, and unanswered frames as a share of all."""
TITLES: Mapping[str, str] = {
    **{name: f"latency {name}, ms" for name in SHARES},
    UNANSWERED: "frames not answered",
    CPU: "CPU of the server a frame, ms",
}
EXIT_CODES: Mapping[str, int] = {"no regression": 0, "regression": 1, "not judged": 2}


@dataclass(frozen=True)
class Change:
    """One figure of both runs.

    Attributes:
        a, b: in seconds, or as a share; NaN where the run does not tell.
        change: (b - a) / a with its interval; of unanswered frames b - a.
        allowed: by how much it may grow.
        why: why there is no interval, empty where there is one.
    """

    name: str
    a: float
    b: float
    change: Interval
    allowed: float
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """A regression only where the whole interval lies beyond what is allowed.

        >>> [Change("p99", 1, 1, Interval(0, *bounds, 0.95), 0.05).verdict
        ...     for bounds in ((0.06, 0.2), (0.04, 0.2), (-0.01, 0.03), (-0.2, -0.01), (math.nan, math.nan))]
        ['regression', 'open', 'within', 'better', 'unknown']
        """
        if not math.isfinite(self.change.low + self.change.high):
            return "unknown"
        if self.change.low > self.allowed:
            return "regression"
        if self.change.high < 0:
            return "better"
        return "within" if self.change.high <= self.allowed else "open"


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    alpha: chance, at most, that any of the figures is called a regression where nothing has changed.
    obstacles: why the two must not be compared; empty where they may.
    notes: what has to be known to read the changes.
    """

    changes: Sequence[Change]
    alpha: float
    seconds: int
    obstacles: Sequence[str] = ()
    notes: Sequence[str] = ()
    failed: str = ""
    others: Sequence[tuple[str, float, float]] = field(default_factory=tuple)

    @property
    def verdict(self) -> str:
        """One of EXIT_CODES."""
        if self.obstacles:
            return "not judged"
        if self.failed or any(one.verdict == "regression" for one in self.changes):
            return "regression"
        return "not judged" if all(one.verdict == "unknown" for one in self.changes) else "no regression"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def unsettled(self) -> list[Change]:
        """Figures of which nothing is shown, neither that they are worse nor that they are not."""
        return [one for one in self.changes if one.verdict in ("open", "unknown")]

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.obstacles:
            return f"Not judged: {'; '.join(self.obstacles)}."
        worse = [TITLES[one.name].partition(",")[0] for one in self.changes if one.verdict == "regression"]
        if self.failed or worse:
            return f"Regression: {'; '.join([*([self.failed] if self.failed else []), *worse])}."
        if self.verdict == "not judged":
            return "Not judged: the runs are too short, or have too few frames, to say anything."
        better = [TITLES[one.name].partition(",")[0] for one in self.changes if one.verdict == "better"]
        said = "; better: ".join(["No regression shown", *([", ".join(better)] if better else [])]) + "."
        unclear = self.unsettled
        return said + (f" {len(unclear)} of {len(self.changes)} figures could not be settled." if unclear else "")


def compare(
    a: LoadResult,
    b: LoadResult,
    allowed: Mapping[str, float] | None = None,
    *,
    alpha: float = 0.05,
    anyway: bool = False,
) -> Comparison:
    """What B has changed against A.

    Args:
        allowed: by how much figures may grow, where it is not as in ALLOWED.
        anyway: also judge runs that are invalid, or of different loads.

    Raises:
        InvalidInput: `allowed` names a figure that is not compared, or a number is out of range.
    """
    _check(allowed or {}, alpha)
    limits = {**ALLOWED, **(allowed or {})}
    stopped, known = obstacles(a, b), notes(a, b)
    if anyway:
        stopped, known = [], [*known, *(f"judged all the same: {one}" for one in stopped)]
    both = _together(Timeline.of(a), Timeline.of(b))
    failed = f"B's server was lost after {b.seconds:g} s" if b.ended == "server_lost" else ""
    return Comparison(changes(*both, limits, alpha), alpha, len(both[0]), stopped, known, failed, _others(a, b, both))


def _together(a: Timeline, b: Timeline) -> tuple[Timeline, Timeline]:
    """The seconds that both have, after the longer warm-up."""
    begin = max((int(one.starts[0]) for one in (a, b) if len(one)), default=0)
    end = begin + min(len(one.between(begin, sys.maxsize)) for one in (a, b))
    return a.between(begin, end), b.between(begin, end)


def changes(a: Timeline, b: Timeline, limits: Mapping[str, float], alpha: float) -> list[Change]:
    """Of all that is judged, over as many seconds of each.

    Args:
        limits: what is allowed, for each of ALLOWED.
    """
    level = 1 - 2 * alpha / len(limits)  # of all lower ends together alpha at most are wrong (Bonferroni)
    blocks_a, blocks_b = a.blocks, b.blocks
    all_a, all_b = blocks_a.together, blocks_b.together
    short = f"{len(a)} s are too short" if len(blocks_a) < FEWEST_BLOCKS else ""
    few = [not (is_told(all_a, share) and is_told(all_b, share)) for share in SHARES.values()]
    why_not = {name: short or "too few frames" * one for name, one in zip(SHARES, few, strict=True)}
    of_a, of_b = (partial(one.percentiles, list(SHARES.values())) for one in (all_a, all_b))
    found = _relative(of_a, of_b, len(blocks_a), level, limits, why_not)
    found.append(_unanswered(blocks_a, blocks_b, level, limits[UNANSWERED], short))
    told = all(CPU_SECONDS in one.server and ANSWERED in one.server for one in (a, b))
    if told:
        of_a, of_b = (partial(_cpu_of, one) for one in (blocks_a, blocks_b))
        found += _relative(of_a, of_b, len(blocks_a), level, limits, {CPU: short})
    else:
        nothing = Interval(math.nan, math.nan, math.nan, level)
        found.append(Change(CPU, math.nan, math.nan, nothing, limits[CPU], "not told by both servers"))
    return found


def _relative(
    of_a: Statistics,
    of_b: Statistics,
    blocks: int,
    level: float,
    limits: Mapping[str, float],
    why_not: Mapping[str, str],
) -> list[Change]:
    """Of ratios; their logarithms are nearer to normal than they.

    Args:
        why_not: by name, in the order of the statistics, why there shall be no interval.
    """

    def growth(multiplicity: Counts) -> list[float]:
        pairs = zip(of_a(multiplicity), of_b(multiplicity), strict=True)
        return [math.log(other / one) if one > 0 and other > 0 else math.nan for one, other in pairs]

    once = np.ones(blocks, np.int64)
    values = list(zip(of_a(once), of_b(once), strict=True))
    if all(why_not.values()):
        logs = [Interval(math.nan, math.nan, math.nan, level)] * len(values)
    else:
        logs = student_bootstraps(growth, blocks, level=level)
    found = []
    for (name, why), (a, b), log in zip(why_not.items(), values, logs, strict=True):
        if not why and not (math.isfinite(a + b) and min(a, b) > 0):
            why = "no frames"
        if not why and not math.isfinite(log.low):
            why = "too few frames in some blocks"
        low, high = (math.nan, math.nan) if why else (math.expm1(log.low), math.expm1(log.high))
        change = Interval(b / a - 1 if a > 0 else math.nan, low, high, level)
        found.append(Change(name, a, b, change, limits[name], why))
    return found


def _cpu_of(blocks: Timeline, multiplicity: Counts) -> list[float]:
    return [_quotient(blocks.server[CPU_SECONDS], blocks.server[ANSWERED], multiplicity)]


def _unanswered(a: Timeline, b: Timeline, level: float, allowed: float, why: str) -> Change:
    """Of a difference: a ratio of shares that may be zero says nothing."""

    def share(one: Timeline, multiplicity: Counts) -> float:
        return _quotient(one.due - one.answered, one.due, multiplicity)

    once = np.ones(len(a), np.int64)
    shares = share(a, once), share(b, once)
    if why or not math.isfinite(sum(shares)):
        difference = Interval(shares[1] - shares[0], math.nan, math.nan, level)
        return Change(UNANSWERED, *shares, difference, allowed, why or "no frames")
    found = student_bootstrap(lambda multiplicity: share(b, multiplicity) - share(a, multiplicity), len(a), level=level)
    return Change(UNANSWERED, *shares, found, allowed)


def _quotient(above: Counts | Values, below: Counts | Values, multiplicity: Counts) -> float:
    total = multiplicity @ below
    return float(multiplicity @ above / total) if total else math.nan


def _others(a: LoadResult, b: LoadResult, both: tuple[Timeline, Timeline]) -> list[tuple[str, float, float]]:
    """Figures that have no interval, and so no verdict."""
    found = [
        (f"{what}, frames/s", *(getattr(one, attribute).sum() / max(1, len(one)) for one in both))
        for what, attribute in (("offered", "due"), ("served", "answered"))
    ]
    if a.server and b.server:
        peaks = (max(reading.resident_bytes for reading in one.server) / 1e6 for one in (a, b))
        found.append(("memory of the server at most, MB", *peaks))
    currencies = {reading.currency for one in (a, b) for reading in one.server}
    per_frame = {"joules": ("mJ a frame", 1e3)}
    if len(currencies) == 1:  # sums of two are no prices to compare
        per_frame["cost_usage"] = (f"cost used by a million frames, {currencies.pop()}", 1e6)
    for name, (title, factor) in per_frame.items():
        if all(name in one.server and one.server.get(ANSWERED, np.zeros(1)).any() for one in both):
            found.append((title, *(one.server[name].sum() / one.server[ANSWERED].sum() * factor for one in both)))
    return [(title, float(one), float(other)) for title, one, other in found]


def _check(allowed: Mapping[str, float], alpha: float) -> None:
    for name, margin in allowed.items():
        if name not in ALLOWED:
            raise InvalidInput(f"{name} is not compared; there are {', '.join(ALLOWED)}")
        if not 0 <= margin < math.inf:
            raise InvalidInput(f"the change allowed of {name} must be 0 or above")
    if not 1e-6 <= alpha < 1:
        raise InvalidInput("alpha must be from 0.000001 to below 1")
