"""What the biometric demo found: its bars, a table for the terminal, figures as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lathe.demo.gallery_acts import Deletion, Planned, Unplanned
from lathe.demo.portraits import CREDIT, Cast
from lathe.demo.searches import Searches
from lathe.demo.two_spaces import threshold_at
from lathe.evidence import Interval
from lathe.machine import cpu_name
from lathe.repository import VariantRef
from lathe.v1 import card_pb2

RANK1_BAR = 0.99
LARGEST_LOSS = 0.02
"""Of rank-1, that the cheaper variant may have against the recommended one."""


@dataclass(frozen=True)
class Judged:
    """One embedding variant at the gallery.

    Attributes:
        fmr: false match rate of the card's threshold that decided.
        embed_seconds: of the network, for a face; the mean. None where no face was embedded.
    """

    card: card_pb2.Card
    fmr: float
    searches: Searches
    embed_seconds: float | None

    @property
    def embed_milliseconds(self) -> float | None:
        return None if self.embed_seconds is None else self.embed_seconds * 1e3

    @property
    def variant(self) -> str:
        return self.card.variant

    @property
    def threshold(self) -> card_pb2.MatchThreshold:
        return threshold_at(self.card, self.fmr)


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that has to be so."""

    text: str
    is_met: bool


@dataclass(frozen=True)
class BiometricFindings:
    """All that the demo has seen, in the order in which it happened."""

    detector: VariantRef
    people: Cast
    before: Judged
    after: Judged
    unplanned: Unplanned
    planned: Planned
    deletion: Deletion
    server_exit_code: int

    def bars(self) -> list[Bar]:
        """What has to be so, for the exit code 0."""
        before, after, gone = self.before.variant, self.after.variant, self.deletion
        least = self.before.searches.rank1.value - LARGEST_LOSS
        found = [
            Bar(
                f"{judged.variant} finds the right person first: {_share(judged.searches)}; bar {bar}",
                judged.searches.rank1.value >= enough,
            )
            for judged, bar, enough in (
                (self.before, f"{100 * RANK1_BAR:g} %", RANK1_BAR),
                (self.after, f"{100 * LARGEST_LOSS:g} points below {before}", least),
            )
        ]
        return [
            found[0],
            Bar(
                f"a swap without a plan is refused, and {before} goes on",
                bool(self.unplanned.reason) and self.unplanned.serves == before and self.unplanned.goes_on,
            ),
            Bar(
                f"with a plan {after} serves, all {self.planned.records} people re-enrolled",
                self.planned.serves == after and self.planned.records == len(self.people.enrolled),
            ),
            Bar("between re-enrolment and swap nobody is compared across the spaces", bool(self.planned.between)),
            found[1],
            Bar(
                f"{gone.person} is deleted: found with {gone.found_before} of {gone.probes} pictures before, with "
                f"{gone.found_after} after",
                gone.is_gone and gone.people == len(self.people.enrolled) - 1,
            ),
            Bar(f"the server ends with exit code {self.server_exit_code}", self.server_exit_code == 0),
        ]

    def unseen(self, judged: Judged) -> Searches:
        """Only what no served network has seen before."""
        known = [one.person for one in self.people.enrolled if one.digest in self.people.unseen]
        return judged.searches.among(known, self.people.unseen)

    def as_json(self) -> dict[str, Any]:
        return {
            "people": len(self.people.enrolled),
            "probes": len(self.people.probes),
            "left_out": len(self.people.left_out),
            "detector": str(self.detector),
            "variants": {judged.variant: self._variant_json(judged) for judged in (self.before, self.after)},
            "unplanned_swap": asdict(self.unplanned),
            "planned_swap": asdict(self.planned),
            "deletion": asdict(self.deletion) | {"is_gone": self.deletion.is_gone},
            "bars": [asdict(bar) for bar in self.bars()],
            "server_exit_code": self.server_exit_code,
            "machine": {"cpu": cpu_name(), "python": platform.python_version()},
            "credit": CREDIT,
        }

    def _variant_json(self, judged: Judged) -> dict[str, Any]:
        threshold, searches = judged.threshold, judged.searches
        return {
            "size_bytes": judged.card.size_bytes,
            "card": {
                "fmr": threshold.fmr,
                "fnmr": threshold.fnmr,
                "min_similarity": threshold.min_similarity,
                "data": threshold.data,
            },
            **_figures(searches),
            "no_face_found": sum(not one.shows_face for one in searches.done),
            "latency_p50_ms": searches.milliseconds(0.5),
            "latency_p99_ms": searches.milliseconds(0.99),
            "embed_ms": judged.embed_milliseconds,
            "seen_by_no_network": _figures(self.unseen(judged)),
        }


def _figures(searches: Searches) -> dict[str, Any]:
    return {
        "probes": len(searches.done),
        "people": len(searches.people),
        "hits": searches.hits,
        "rank1": _interval(searches.rank1),
        "impostor_comparisons": searches.impostor_comparisons,
        "false_matches": searches.false_matches,
        "fmr": _interval(searches.fmr),
        "false_non_matches": searches.false_non_matches,
        "fnmr": _interval(searches.fnmr),
    }


def _interval(found: Interval) -> dict[str, float | None]:
    known = {"value": found.value, "low": found.low, "high": found.high}
    return {name: value if value == value else None for name, value in known.items()}  # NaN is not JSON


def _share(searches: Searches) -> str:
    return f"{searches.hits} of {len(searches.done)} ({100 * searches.rank1.value:.2f} %)"


def _percent(found: Interval, digits: int = 1) -> str:
    return f"{100 * found.value:.{digits}f} ({100 * found.low:.{digits}f}–{100 * found.high:.{digits}f})"


HEADINGS = ("variant", "MB", "rank-1", "FMR", "FNMR", "embed", "p50", "p99")


def _cells(judged: Judged) -> Sequence[str]:
    searches = judged.searches
    return (
        judged.variant,
        f"{judged.card.size_bytes / 1e6:.2f}",
        f"{100 * searches.rank1.value:.2f}",
        _percent(searches.fmr, 2),
        _percent(searches.fnmr),
        "" if judged.embed_milliseconds is None else f"{judged.embed_milliseconds:.2f}",
        f"{searches.milliseconds(0.5):.1f}",
        f"{searches.milliseconds(0.99):.1f}",
    )


def show(findings: BiometricFindings, console: Console) -> None:
    """Prints what happened, the table, and the bars."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "variant" else "right", no_wrap=True)
    for judged in (findings.before, findings.after):
        table.add_row(*_cells(judged))
    console.print(table)
    for line in _notes(findings):
        console.print(line, highlight=False, markup=False)
    console.print()
    for bar in findings.bars():
        console.print(f"{'[green]✓[/]' if bar.is_met else '[red]✗[/]'} {escape(bar.text)}", highlight=False)


def _notes(findings: BiometricFindings) -> Sequence[str]:
    people, planned, before, after = findings.people, findings.planned, findings.before, findings.after
    return [
        f"{len(people.probes)} pictures of {len(people.enrolled)} people, enrolled with one other picture each; "
        f"{len(people.left_out)} pictures that made an embedding variant are left out.",
        "rank-1: %, the right person is the most alike. FMR, FNMR: %, with 95 % intervals over people, at the cards' "
        f"thresholds for an FMR of {100 * before.fmr:g} %; {before.searches.impostor_comparisons} comparisons of two "
        f"people. The thresholds were measured on {before.threshold.data}: other faces have other rates.",
        "embed: the network, ms a face. p50, p99: picture to answer, ms, one at a time.",
        *(_account(findings, judged) for judged in (before, after)),
        "",
        f"swap {before.variant} → {after.variant} without a plan: {findings.unplanned.reason or 'not refused'}",
        f"with a plan: loaded in {planned.load_seconds:.2f} s while {before.variant} answered; {planned.records} faces "
        f"re-enrolled and the route swapped in {planned.pause_seconds:.2f} s",
    ]


def _account(findings: BiometricFindings, judged: Judged) -> str:
    searches, unseen = judged.searches, findings.unseen(judged)
    blind = sum(not one.shows_face for one in searches.done)
    because = f", {blind} of them because no face was found" if blind else ""
    new = (
        f" Of pictures that did not make the detector, either: {unseen.hits} of {len(unseen.done)} right, "
        f"{unseen.false_matches} of {unseen.impostor_comparisons} comparisons false."
    )
    return (
        f"{judged.variant}: {searches.false_matches} false matches, where the card's rate makes "
        f"{judged.fmr * searches.impostor_comparisons:.0f}; {searches.false_non_matches} false non-matches{because}."
        f"{new if unseen.done else ''}"
    )
