"""What lathe evaluate prints of an embedding network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from lathe.evidence import Resampled
    from lathe_compression.embedding_quality import EmbeddingQuality
    from lathe_compression.evaluate_embedding import EmbeddingEvaluation

Row = tuple[str, ...]

ACROSS = "across"


def show_faces(evaluation: EmbeddingEvaluation) -> None:
    """Prints the figures as a table, and what must be known to read them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    variant, reference = evaluation.ref.variant, evaluation.reference.variant
    across = evaluation.cross is not None
    table = Table(title=f"{evaluation.ref} against {evaluation.reference}, rates in %", box=box.SIMPLE_HEAD)
    headings = ("figure", f"{variant} (95 %)", reference, "difference (95 %)", ACROSS)
    for heading in headings if across else headings[:-1]:
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for row in (*_quality(evaluation), *_costs(evaluation)):
        table.add_row(*(row if across else row[:-1]))
    Console().print(table)
    for note in _notes(evaluation):
        print(note)


def _quality(evaluation: EmbeddingEvaluation) -> Iterator[Row]:
    sides, less = (evaluation.own, evaluation.its, evaluation.cross), evaluation.difference

    def row(name: str, difference: Resampled, of: Callable[[EmbeddingQuality], Resampled | None]) -> Row:
        return _row(name, difference, *(None if one is None else of(one) for one in sides))

    yield row("accuracy", less.accuracy, lambda one: one.accuracy.mean)
    for fmr, fnmr in less.fnmr.items():
        yield row(f"FNMR at FMR {_rate(fmr)}", fnmr, lambda one, at=fmr: one.rates.at[at].fnmr)  # type: ignore[misc]
    eers = [_rate(one.rates.eer, ".2f") if one else "" for one in sides]
    yield "EER", eers[0], eers[1], _rate(less.eer, "+.2f"), eers[2]
    yield row("rank-1", less.rank1, lambda one: one.identification.rank1)
    for fpir, fnir in less.fnir.items():
        yield row(f"FNIR at FPIR {_rate(fpir)}", fnir, lambda one, at=fpir: one.identification.at[at].fnir)  # type: ignore[misc]
    for one in evaluation.own.carded:
        rate = _rate(one.threshold.fmr)
        yield _carded(f"FMR at card's {rate}", one.fmr)
        yield _carded(f"FNMR at card's {rate}", one.fnmr)
    if evaluation.cross:
        yield "cosine", f"{evaluation.cosine:.4f}", "", "", ""


def _costs(evaluation: EmbeddingEvaluation) -> Iterator[Row]:
    for stage, seconds in evaluation.stages.items():
        yield f"{stage}, ms", f"{seconds * 1e3:.2f}", f"{evaluation.reference_stages[stage] * 1e3:.2f}", "", ""
    yield "speed of infer", f"{evaluation.speedup:.2f}×", "1×", "", ""
    yield "size, MB", f"{evaluation.card.size_bytes / 1e6:.2f}", "", "", ""


def _notes(evaluation: EmbeddingEvaluation) -> Iterator[str]:
    data, own = evaluation.data, evaluation.own
    yield (
        f"{len(data.paths)} pictures of {len(set(data.subjects))} people, {len(data.pairs.fold)} pairs; "
        f"{own.rates.genuine} comparisons of one person, {own.rates.impostors} of two; faces found by "
        f"{evaluation.detector}"
    )
    if evaluation.cross:
        yield f"{ACROSS}: enrolled with {evaluation.reference.variant}, probed with {evaluation.ref.variant}"
    elif evaluation.missing_reference:
        yield (
            f"its reference {evaluation.missing_reference} is not in the repository, so it is compared with itself; "
            "name one with --reference"
        )
    broken = [one.threshold.fmr for one in own.carded if one.keeps_fmr is False]
    if broken:
        yield f"the card's thresholds do not keep an FMR of {', '.join(map(_rate, broken))} % on these faces"
    untold = [one.threshold.fmr for one in own.carded if one.keeps_fmr is None]
    if untold:
        yield f"too few comparisons to tell whether the card's FMR of {', '.join(map(_rate, untold))} % is kept"
    if any(one.threshold.data == data.name for one in own.carded):
        yield "the card's thresholds were measured on these very faces: others tell more"
    missing = [fmr for fmr in evaluation.protocol.fmrs if fmr not in own.rates.at]
    if missing:
        yield f"too few comparisons to tell the FNMR at FMR {', '.join(map(_rate, missing))} %"
    if not len(data.pairs.fold):
        yield "no accuracy, since there are no pairs"
    elif own.accuracy.is_cut:
        yield "accuracy: the one fold is cut into parts, each decided by the threshold of the others"
    if own.failures:
        are_several = own.failures > 1
        yield (
            f"{own.failures} picture{'s' if are_several else ''} in which no face was found "
            f"match{'' if are_several else 'es'} nobody"
        )
    if data.left_out:
        yield f"{data.left_out} pictures and {data.pairs_left_out} pairs left out because they made the variant"


def _row(name: str, difference: Resampled, *sides: Resampled | None) -> Row:
    own, its, cross = sides
    return (
        name,
        _percent(own) + (f" ({_bounds(own, '.1f', '–')})" if _exists(own) else ""),
        _percent(its),
        f"{100 * difference.value:+.2f} ({_bounds(difference, '+.1f', ' to ')})" if _exists(difference) else "–",
        _percent(cross) if cross is not None else "",
    )


def _carded(name: str, one: Resampled | None) -> Row:
    if one is None:
        return name, "too few", "", "", ""
    return name, f"{_rate(one.value, '.2g')} ({_bounds(one, '.2g', '–')})", "", "", ""


def _exists(one: Resampled | None) -> TypeGuard[Resampled]:
    return one is not None and math.isfinite(one.value)


def _bounds(one: Resampled, form: str, between: str) -> str:
    interval = one.interval()
    return f"{100 * interval.low:{form}}{between}{100 * interval.high:{form}}"


def _percent(one: Resampled | None) -> str:
    return f"{100 * one.value:.2f}" if _exists(one) else "–"


def _rate(rate: float, form: str = "g") -> str:
    return f"{100 * rate:{form}}" if math.isfinite(rate) else "–"
