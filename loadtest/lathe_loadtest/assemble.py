"""From what the driver's processes have noted to a result, and whether it counts: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lathe_loadtest.histogram import encoded
from lathe_loadtest.messages import OUTCOME_NUMBERS
from lathe_loadtest.notes import Rows
from lathe_loadtest.result import ANSWERED, LOST, CameraResult, Second, Sender
from lathe_loadtest.scenario import Scenario

MAX_LATENESS_SECONDS, MAX_LATENESS_SHARE = 0.005, 0.1
"""Of the 99th percentile of lateness; above the first, it may be so large a share of that of the latencies, which hold
it."""
LATE = "the driver sent late"
"""How that reason begins: the only one that may be the server's doing."""
MAX_CORE = 0.85
"""Of one core, which is all that a process of the driver can use."""
_ANSWERED = OUTCOME_NUMBERS[ANSWERED]
_WORDS = {number: name for name, number in OUTCOME_NUMBERS.items()} | {0: LOST}
_MICRO = 1e6


def per_second(parts: Sequence[Rows]) -> tuple[Second, ...]:
    """Seconds in which something was due."""
    second = np.concatenate([part.due for part in parts]).astype(np.int64)
    sent = np.concatenate([part.sent for part in parts])
    outcome = np.concatenate([part.outcome for part in parts])
    latency = np.concatenate([part.latency for part in parts])
    variant = np.concatenate([np.array((*part.variants, ""))[part.variant] for part in parts])
    found = []
    order = np.argsort(second, kind="stable")
    bounds = np.flatnonzero(np.diff(second[order], prepend=-1, append=-1))
    for begin, end in pairwise(bounds):
        rows = order[begin:end]
        answered = rows[outcome[rows] == _ANSWERED]
        latencies = {
            str(name): encoded(latency[answered[variant[answered] == name]] * _MICRO)
            for name in np.unique(variant[answered])
        }
        due = len(rows)
        found.append(Second(int(second[rows[0]]), due, int(sent[rows].sum()), _outcomes(outcome[rows]), latencies))
    return tuple(found)


def cameras(scenario: Scenario, parts: Sequence[Rows]) -> tuple[CameraResult, ...]:
    """In the scenario's order."""
    groups = scenario.groups
    found = {}
    for part in parts:
        order = np.argsort(part.camera, kind="stable")
        edges = np.searchsorted(part.camera[order], np.arange(len(part.cameras) + 1))
        for number, name in enumerate(part.cameras):
            rows = order[edges[number] : edges[number + 1]]
            answered = rows[part.answered[rows]]
            by = Counter(part.variants[one] for one in part.variant[answered])
            found[name] = CameraResult(
                name,
                groups[name],
                due=len(rows),
                sent=int(part.sent[rows].sum()),
                outcomes=_outcomes(part.outcome[rows]),
                answered_by=dict(by),
                latencies=encoded(part.latency[answered] * _MICRO),
                connections=part.connections[number],
            )
    return tuple(found[name] for name in groups if name in found)


def sender(parts: Sequence[Rows]) -> Sender:
    lateness = np.concatenate([part.lateness for part in parts])
    cpu = tuple(part.cpu_seconds for part in parts)
    return Sender(len(parts), cpu, sum(part.frames for part in parts), encoded(lateness * _MICRO))


def why_invalid(parts: Sequence[Rows], seconds: float, died: int = 0) -> tuple[str, ...]:
    """Reasons for which the figures say more of the driver than of the server; none where they are good.

    Args:
        seconds: for which frames were sent.
        died: processes of the driver that gave no notes.
    """
    found = []
    late, latency = _p99([part.lateness for part in parts]), _p99([part.latency[part.answered] for part in parts])
    if late > max(MAX_LATENESS_SECONDS, MAX_LATENESS_SHARE * latency):
        found.append(
            f"{LATE}: the 99th percentile of its lateness is {late * 1e3:.1f} ms, and that of the "
            f"latencies {latency * 1e3:.1f} ms. It needs cores of its own, or more --processes"
        )
    busiest = max((part.cpu_seconds / seconds for part in parts), default=0.0) if seconds > 0 else 0.0
    if busiest > MAX_CORE:
        found.append(f"a process of the driver used {busiest * 100:.0f} % of a core: it needs more --processes")
    if died:
        found.append(f"{died} of the driver's processes died, and what their cameras saw is not here")
    return tuple(found)


def _p99(parts: Sequence[NDArray[np.floating]]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(np.percentile(values, 99, method="inverted_cdf")) if len(values) else 0.0


def _outcomes(numbers: NDArray[np.uint8]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
        found[_WORDS[int(number)]] += int(count)
    return dict(found)
