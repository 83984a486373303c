"""The figures of a model's variants, side by side: from their cards, or measured together on pictures.

One yardstick for all: the same reference, the same quality figure, the same size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lathe.errors import InvalidInput, NotFound
from lathe.evidence import Interval
from lathe.repository import Repository
from lathe.v1 import card_pb2

AGREEMENT = "agreement"
COSINE = "cosine"
"""The mean cosine of an embedding network's vectors to the reference's: what agreement is among detectors."""
AP = "AP@.5"
TMR = "TMR@"
"""True match rate at a false match rate: the share of comparisons of one person that reach a threshold which that share
of comparisons of two people reaches."""

Pictures = Sequence[tuple[bytes, str]]
"""JPEGs with what is said under each."""


@dataclass(frozen=True)
class Quality:
    """One quality figure.

    Attributes:
        name: `agreement` or `cosine`; `AP@.5` with the name of the label file or the data; `TMR@` with the rate and the
            data.
        interval: of the paired difference to the reference; for agreement, which is a comparison with
            the reference itself, of the figure. None where nothing was resampled.
    """

    name: str
    value: float
    interval: Interval | None = None

    @property
    def is_precision(self) -> bool:
        return self.name.startswith(AP)

    def interval_text(self) -> str:
        if self.interval is None or math.isnan(self.interval.low):
            return ""
        sign = "+" if self.is_precision else ""
        return f"{self.interval.low:{sign}.3f} to {self.interval.high:{sign}.3f}"


@dataclass(frozen=True)
class Figures:
    """What was measured of one variant; latencies in milliseconds on one thread.

    Attributes:
        qualities: the one that decides first; empty where nothing is known.
        infer_ms: of the network.
        frame_ms: of the whole frame, from bytes to detections.
        speedup: of the network against the reference, measured in turns.
    """

    qualities: Sequence[Quality] = ()
    infer_ms: float = math.nan
    frame_ms: float = math.nan
    speedup: float = math.nan

    @property
    def quality(self) -> float:
        """The figure that decides; NaN where there is none."""
        return self.qualities[0].value if self.qualities else math.nan

    @property
    def is_complete(self) -> bool:
        return math.isfinite(self.quality) and math.isfinite(self.infer_ms)


@dataclass(frozen=True)
class Comparison:
    """All variants of a model.

    Attributes:
        cards: by variant, the reference first.
        quality_name: of the figure that decides.
        source: sentences: where the figures come from, and what must be known to read them.
        differences: intervals of the difference in quality of two variants, the first less the second.
        disagreements: pictures by variant.
    legend: what the colours of these pictures mean.
        facts: more for the JSON: data, protocol, machine.
    """

    reference: str
    cards: Mapping[str, card_pb2.Card]
    figures: Mapping[str, Figures]
    quality_name: str
    source: Sequence[str]
    differences: Mapping[tuple[str, str], Interval] = field(default_factory=dict)
    disagreements: Mapping[str, Pictures] = field(default_factory=dict)
    legend: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """They are of an embedding network."""
        return self.cards[self.reference].task == card_pb2.TASK_EMBEDDING

    @property
    def is_likeness(self) -> bool:
        """The figure that decides compares with the reference, not with the truth."""
        return self.quality_name in (AGREEMENT, COSINE)


@dataclass(frozen=True)
class Rates:
    """What a core costs: US dollars an hour, and watts while it works, which is an estimate.

    Raises:
        InvalidInput: below 0, or not a number.
    """

    price_per_core_hour: float
    watts_per_core: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) and one >= 0 for one in (self.price_per_core_hour, self.watts_per_core)):
            raise InvalidInput("the price and the watts of a core must be numbers from 0 up")

    def cost_per_million(self, frame_ms: float) -> float:
        """US dollars for a million predictions of this much CPU time.

        >>> Rates(0.04, 5.0).cost_per_million(9.0)
        0.1
        """
        return self.price_per_core_hour * frame_ms * 1e3 / 3600

    def millijoules(self, frame_ms: float) -> float:
        """Energy of one prediction, estimated.

        >>> Rates(0.04, 5.0).millijoules(9.0)
        45.0
        """
        return self.watts_per_core * frame_ms


def load_cards(repository: Repository, model: str) -> dict[str, card_pb2.Card]:
    """The newest card of every variant; a variant that is still being copied is not seen.

    Raises:
        NotFound: no such model, or no variant of it is complete.
        BadVariant: a card that cannot be read.
    """
    cards = {}
    missing = NotFound(f"there is no model {model}")
    for variant in repository.variants(model):
        try:
            ref = repository.newest(model, variant)
        except NotFound as error:
            missing = error
            continue
        cards[variant] = repository.card(ref)
    if not cards:
        raise missing
    return cards


def common_reference(cards: Mapping[str, card_pb2.Card]) -> str:
    """The variant from which most come: the first of the most lineages, by name where several are."""
    roots = Counter(_root(name, cards) for name in cards)
    return min(roots, key=lambda name: (-roots[name], name))


def _root(name: str, cards: Mapping[str, card_pb2.Card]) -> str:
    seen = {name}
    while (parent := cards[name].lineage.parent) in cards and parent not in seen:
        seen.add(parent)
        name = parent
    return name


def reference_first(cards: Mapping[str, card_pb2.Card], reference: str) -> dict[str, card_pb2.Card]:
    """The reference, then each variant after the one that it was made from."""
    depths = {name: len(lineage(name, cards)) for name in cards}
    order = sorted(cards, key=lambda name: (name != reference, depths[name], name))
    return {name: cards[name] for name in order}


def lineage(name: str, cards: Mapping[str, card_pb2.Card]) -> list[str]:
    """Published variants from the first to this one."""
    chain = [name]
    while (parent := cards[chain[0]].lineage.parent) in cards and parent not in chain:
        chain.insert(0, parent)
    return chain
