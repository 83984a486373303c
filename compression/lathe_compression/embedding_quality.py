"""All quality figures of some vectors, as they go into JSON: alone, beside another network's, and across both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lathe.evidence import Resampled
from lathe.v1 import card_pb2
from lathe_compression.comparisons import Faces
from lathe_compression.error_rates import FMRS, ErrorRates, error_rates
from lathe_compression.identification import FPIRS, Identification, identification
from lathe_compression.verification import Accuracy, LabelledPairs, accuracy


@dataclass(frozen=True)
class Carded:
    """What a card's threshold gives on some faces.

    Attributes:
        fmr: None where the comparisons are too few for the rate that the card tells.
    """

    threshold: card_pb2.MatchThreshold
    fmr: Resampled | None
    fnmr: Resampled

    @property
    def keeps_fmr(self) -> bool | None:
        """Whether the card's rate is kept, as far as these faces can tell."""
        return None if self.fmr is None else self.fmr.interval().low <= self.threshold.fmr

    def as_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold.min_similarity,
            "measured_on": self.threshold.data,
            "fmr": self.fmr and figure(self.fmr),
            "fnmr": figure(self.fnmr),
            "keeps_fmr": self.keeps_fmr,
        }


@dataclass(frozen=True)
class EmbeddingQuality:
    """Figures of one set of faces; those with the same pictures and seed are paired.

    Attributes:
        carded: of a card's thresholds.
        failures: pictures without a vector.
    """

    accuracy: Accuracy
    rates: ErrorRates
    identification: Identification
    carded: Sequence[Carded]
    failures: int

    def as_json(self) -> dict[str, Any]:
        """Flat figures with their intervals; null where one does not exist."""
        found = self.identification
        return {
            "accuracy": figure(self.accuracy.mean)
            | {
                "standard_error": number(self.accuracy.standard_error),
                "folds": [number(one) for one in self.accuracy.by_fold],
            },
            "eer": number(self.rates.eer),
            "fnmr": {
                rate_key(fmr): figure(point.fnmr)
                | {"threshold": point.min_similarity, "impostor_comparisons": point.impostor_comparisons}
                | {f"fmr_{name}": value for name, value in figure(point.measured_fmr).items()}
                for fmr, point in self.rates.at.items()
            },
            "card_thresholds": {rate_key(one.threshold.fmr): one.as_json() for one in self.carded},
            "roc": [[float(f"{one:.6g}") for one in point] for point in self.rates.roc],
            "identification": {
                "rank1": number(found.rank1.value),
                "rank1_low": number(found.rank1.interval().low),
                "rank1_high": number(found.rank1.interval().high),
                "gallery": found.gallery,
                "searches": found.searches,
                "fnir": {
                    rate_key(fpir): figure(point.fnir)
                    | {"threshold": point.min_similarity, "stranger_searches": point.strangers}
                    for fpir, point in found.at.items()
                },
                "open_gallery": found.open_gallery,
                "open_searches": found.open_searches,
            },
            "genuine_comparisons": self.rates.genuine,
            "impostor_comparisons": self.rates.impostors,
        }

    def less(self, other: EmbeddingQuality) -> Difference:
        """Each figure less the other's, paired."""
        own, its = self.rates.at, other.rates.at
        mine, theirs = self.identification, other.identification
        return Difference(
            self.accuracy.mean.less(other.accuracy.mean),
            self.rates.eer - other.rates.eer,
            {fmr: own[fmr].fnmr.less(its[fmr].fnmr) for fmr in own if fmr in its},
            mine.rank1.less(theirs.rank1),
            {fpir: mine.at[fpir].fnir.less(theirs.at[fpir].fnir) for fpir in mine.at if fpir in theirs.at},
        )


@dataclass(frozen=True)
class Difference:
    """Of the figures of two networks on the same faces."""

    accuracy: Resampled
    eer: float
    fnmr: dict[float, Resampled]
    rank1: Resampled
    fnir: dict[float, Resampled]

    def as_json(self) -> dict[str, Any]:
        return {
            "accuracy": figure(self.accuracy),
            "eer": number(self.eer),
            "fnmr": {rate_key(fmr): figure(one) for fmr, one in self.fnmr.items()},
            "rank1": figure(self.rank1),
            "fnir": {rate_key(fpir): figure(one) for fpir, one in self.fnir.items()},
        }


def quality_of(
    faces: Faces,
    pairs: LabelledPairs,
    fmrs: Sequence[float] = FMRS,
    *,
    carded: Iterable[card_pb2.MatchThreshold] = (),
    seed: int = 0,
) -> EmbeddingQuality:
    """Measures everything.

    Args:
        carded: thresholds of a card, to see what they give on these faces.

    Raises:
        InvalidInput: a false match rate that is not between 0 and 1.
    """
    given = list(carded)
    rates = error_rates(faces, fmrs, thresholds=[one.min_similarity for one in given], seed=seed)
    return EmbeddingQuality(
        accuracy=accuracy(faces, pairs, seed=seed),
        rates=rates,
        identification=identification(faces, FPIRS, seed=seed),
        carded=[_carded(one, rates) for one in given if rates.decided],
        failures=faces.failures,
    )


def _carded(one: card_pb2.MatchThreshold, rates: ErrorRates) -> Carded:
    decided = rates.decided[one.min_similarity]
    return Carded(one, decided.fmr if rates.can_tell(one.fmr) else None, decided.fnmr)


def rate_key(rate: float) -> str:
    """
    >>> rate_key(1e-2), rate_key(1e-4), rate_key(1e-6)
    ('0.01', '0.0001', '0.000001')
    """
    return f"{rate:.12f}".rstrip("0")


def figure(one: Resampled) -> dict[str, float | None]:
    """With its 95 % interval."""
    interval = one.interval()
    return {"value": number(interval.value), "low": number(interval.low), "high": number(interval.high)}


def number(value: float) -> float | None:
    """JSON has no NaN: a figure that does not exist is null."""
    return float(value) if math.isfinite(value) else None
