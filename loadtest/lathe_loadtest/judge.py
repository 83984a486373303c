"""Whether a run was as its scenario expects: a pure function of its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from lathe.evidence import binomial_bounds
from lathe_loadtest.expect import Expect
from lathe_loadtest.latencies import latencies_of
from lathe_loadtest.result import ANSWERED, LOST, CameraResult, LoadResult

SPLIT_LEVEL = 0.99


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        of: the group of cameras; empty for the whole run.
        what: is measured.
    """

    of: str
    what: str
    expected: str
    measured: str
    holds: bool


def judge(result: LoadResult, expected: Sequence[Expect] | None = None) -> tuple[Check, ...]:
    """Args:
    expected: those of the result's scenario by default; where there are none, that nothing is lost, rejected or fails.
    """
    checks = [
        Check("", "the run", "completed", result.ended.replace("_", " "), result.ended == "completed"),
        Check("", "who sends", "not the limit", "; ".join(result.why_invalid) or "not the limit", result.is_valid),
    ]
    for one in (result.scenario.expect if expected is None else expected) or (Expect(),):
        checks += _checks(result, one)
    errors = [f"{event.do} at {event.at_seconds:.1f} s: {event.error}" for event in result.events if event.error]
    if result.events:
        checks.append(Check("", "actions that failed", "0", "; ".join([str(len(errors)), *errors]), not errors))
    return tuple(checks)


def _checks(result: LoadResult, expect: Expect) -> Iterator[Check]:
    cameras = [camera for camera in result.cameras if expect.of in ("", camera.group)]
    due = sum(camera.due for camera in cameras)
    outcomes: Counter[str] = Counter()
    for camera in cameras:
        outcomes.update(camera.outcomes)

    def check(what: str, sign: str, bound: str, measured: str, holds: bool) -> Check:
        return Check(expect.of, what, f"{sign} {bound}".strip(), measured, holds)

    if expect.of and not cameras:
        yield check("cameras", "", "some", "none", False)
        return
    for name, most in ((LOST, expect.lost), ("rejected", expect.rejected), ("failed", expect.failed)):
        yield check(f"{name} frames", "≤" if most else "", str(most), str(outcomes[name]), outcomes[name] <= most)
    dropped = sum(count for name, count in outcomes.items() if name.startswith("dropped_"))
    if expect.dropped_share is not None:
        share = dropped / due if due else 1.0
        yield check("dropped", "≤", f"{expect.dropped_share:.1%}", f"{share:.2%}", share <= expect.dropped_share)
    if expect.answered_share is not None:
        share = outcomes[ANSWERED] / due if due else 0.0
        yield check("answered", "≥", f"{expect.answered_share:.1%}", f"{share:.2%}", share >= expect.answered_share)
    yield from _latencies(cameras, expect)
    yield from _by_variant(cameras, expect)
    if expect.silent_seconds is not None:
        silent = _longest_silence(result)
        yield check(
            "seconds whose frames had no answer",
            "≤",
            str(expect.silent_seconds),
            str(silent),
            silent <= expect.silent_seconds,
        )
    if expect.grown_bytes is not None:
        yield _growth(result, expect.grown_bytes)
    if expect.actions:
        done = sum(not event.error for event in result.events)
        yield check("actions done", "≥", str(expect.actions), str(done), done >= expect.actions)


def _latencies(cameras: Sequence[CameraResult], expect: Expect) -> Iterator[Check]:
    bounds = {50: expect.p50_seconds, 99: expect.p99_seconds}
    if all(bound is None for bound in bounds.values()):
        return
    found = latencies_of(cameras)
    for percent, bound in bounds.items():
        if bound is not None:
            seconds = found.percentile(percent / 100)
            measured = f"{seconds * 1e3:.1f} ms" if found.total else "no answers"
            yield Check(expect.of, f"p{percent} latency", f"≤ {bound * 1e3:g} ms", measured, seconds <= bound)


def _by_variant(cameras: Sequence[CameraResult], expect: Expect) -> Iterator[Check]:
    frames: Counter[str] = Counter()
    for camera in cameras:
        frames.update(camera.answered_by)
    for variant, least in expect.answered_by.items():
        share = frames[variant] / frames.total() if frames else 0.0
        yield Check(expect.of, f"answered by {variant}", f"≥ {least:.1%}", f"{share:.2%}", share >= least)
    if expect.split:
        yield from _split(cameras, expect.of, expect.split)


def _split(cameras: Sequence[CameraResult], of: str, weights: Mapping[str, int]) -> Iterator[Check]:
    """The unit is the stream, because all frames of one go to the same variant: frames are no independent draws."""
    answered = [camera for camera in cameras if camera.answered_by]
    mixed = sum(len(camera.answered_by) > 1 for camera in answered)
    yield Check(of, "streams answered by several variants", "0", str(mixed), not mixed)
    streams = Counter(max(camera.answered_by, key=lambda name: camera.answered_by[name]) for camera in answered)
    level = 1 - (1 - SPLIT_LEVEL) / len(weights)  # that all of them lie within theirs
    for variant, weight in weights.items():
        share = weight / sum(weights.values())
        low, high = binomial_bounds(len(answered), share, level=level)
        expected = f"{low} to {high} of {len(answered)} ({share:.0%})"
        holds = bool(answered) and low <= streams[variant] <= high
        yield Check(of, f"streams of {variant}", expected, str(streams[variant]), holds)
    others = sorted(set(streams) - set(weights))
    if others:
        yield Check(of, "streams of other variants", "0", f"{sum(streams[name] for name in others)}", False)


def _longest_silence(result: LoadResult) -> int:
    silent = (bool(one.due) and not one.outcomes.get(ANSWERED) for one in result.per_second)
    return max((len(list(group)) for is_silent, group in groupby(silent) if is_silent), default=0)


def _growth(result: LoadResult, most: int) -> Check:
    readings = [reading.resident_bytes for reading in result.server]
    fifth = len(readings) // 5
    expected = f"≤ {most / 1e6:g} MB"
    if not fifth:
        return Check("", "memory growth", expected, "too few readings", False)
    grown = median(readings[-fifth:]) - median(readings[fifth : 2 * fifth])
    return Check("", "memory growth", expected, f"{grown / 1e6:.1f} MB", grown <= most)
