"""From which similarity on two faces are one person's, and which embedding spaces may be compared: as cards say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lathe.errors import InvalidInput, Refused
from lathe.v1 import card_pb2
from lathe_server.gallery.search import Match


class Unmeasured(Refused):
    """A card has no threshold at a false match rate."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a face is a person's.

    Attributes:
        similarity: of the best template; None where it does not match, because it would teach a forger the way.
        comparisons: templates that it was held against; the false match rate is that of one.
    """

    match: bool
    similarity: float | None
    threshold: card_pb2.MatchThreshold
    comparisons: int


@dataclass(frozen=True, slots=True)
class Identification:
    """Whose face it may be.

    Attributes:
        matches: people above the threshold, the most alike first.
        comparisons: templates that it was held against. Of a face that is not enrolled, comparisons x fmr templates
            match on average.
    """

    matches: list[Match]
    threshold: card_pb2.MatchThreshold
    comparisons: int


def is_comparable(probes: card_pb2.Embedding, enrolled: str) -> bool:
    """Whether vectors that a network makes may be held against templates of a space, at one false match rate or more.

    Args:
        probes: of the network's card.
        enrolled: the templates' space; empty where there are none.
    """
    return enrolled in ("", probes.space) or any(cross.space == enrolled for cross in probes.cross_spaces)


def threshold(probes: card_pb2.Embedding, enrolled: str, fmr: float) -> card_pb2.MatchThreshold:
    """The decision threshold that was measured at a false match rate.

    Args:
        probes: of the card of the network that makes the probes.
        enrolled: the templates' space; empty where there are none.
        fmr: the share of comparisons of two people that may reach it.

    Raises:
        Refused: the spaces are not to be compared.
        Unmeasured: nothing was measured at that rate.

    >>> from lathe.v1.card_pb2 import CrossSpace, Embedding, MatchThreshold
    >>> probes = Embedding(space="face/b", thresholds=[MatchThreshold(fmr=0.001, min_similarity=0.5)])
    >>> probes.cross_spaces.add(space="face/a", thresholds=[MatchThreshold(fmr=0.001, min_similarity=0.6)])
    ... # doctest: +ELLIPSIS
    space: "face/a"...
    >>> [threshold(probes, space, 0.001).min_similarity for space in ("face/b", "face/a")]
    [0.5, 0.6]
    """
    if not is_comparable(probes, enrolled):
        raise Refused(
            f"the gallery's faces are in the embedding space {enrolled}, this one is in {probes.space}; "
            "these cannot be compared: re-enrol the gallery, or go back to the variant that it was enrolled with"
        )
    own = enrolled in ("", probes.space)
    measured = probes.thresholds if own else next(x.thresholds for x in probes.cross_spaces if x.space == enrolled)
    found = next((one for one in measured if math.isclose(one.fmr, fmr, rel_tol=1e-6)), None)
    if found is None:
        known = ", ".join(f"{one.fmr:g}" for one in measured) or "none"
        raise Unmeasured(
            f"no decision threshold was measured at a false match rate of {fmr:g}; the card has those at {known}"
        )
    return found


def refuse_stranger(name: str, embedding: card_pb2.Embedding, enrolled: str, records: int, fmr: float) -> None:
    """Holds back a variant by which a gallery could not go on to decide.

    Args:
        embedding: of its card.
        enrolled: the templates' space.
        fmr: false match rate at which the gallery decides.

    Raises:
        Refused: it makes vectors that must not be compared with the templates.
        Unmeasured: it may be compared, and nothing was measured at that rate.
    """
    if not is_comparable(embedding, enrolled):
        raise Refused(
            f"{records} enrolled faces are in the embedding space {enrolled}, and {name} makes vectors of "
            f"{embedding.space or 'no known space'}: re-enrol the gallery with it first, or choose a variant whose "
            "card permits the comparison"
        )
    try:
        threshold(embedding, enrolled, fmr)
    except Unmeasured as error:
        raise Unmeasured(f"{records} enrolled faces are compared with what {name} makes: {error.message}") from None


def check_rate(fmr: float) -> float:
    """Returns a false match rate if it is one.

    Raises:
        InvalidInput: it is none.
    """
    if not 0 < fmr < 1:
        raise InvalidInput("a false match rate is above 0 and below 1")
    return fmr
