"""Which variants the demo serves: those recommended, and one whose vectors must not be compared with theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

from lathe.errors import NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2

DETECTOR, EMBEDDER = "face", "face-embed"


@dataclass(frozen=True)
class TwoSpaces:
    """Attributes:
    detector: that finds the faces.
    before, after: of the embedding network, in two embedding spaces.
    """

    repository: Repository
    detector: VariantRef
    before: VariantRef
    after: VariantRef

    @property
    def cards(self) -> tuple[card_pb2.Card, card_pb2.Card]:
        """Of the two embedding variants."""
        return self.repository.card(self.before), self.repository.card(self.after)

    def made(self) -> UsedPictures:
        """Pictures that made one of the two embedding variants."""
        return reduce(or_, map(self.repository.used_pictures, (self.before, self.after)))

    def seen(self) -> UsedPictures:
        """Pictures that made the detector."""
        return self.repository.used_pictures(self.detector)


def choose(shipped: Path, fmr: float) -> TwoSpaces:
    """The recommended variants of detector and embedding network, and the cheapest other one of the latter.

    Args:
        shipped: folder of the repository.
        fmr: false match rate that both must have a threshold at.

    Raises:
        NotFound: the repository, a model or a second variant is missing; the message says how to get it.
        Refused: every other variant's card permits the comparison at that rate, so that there is nothing to refuse.
    """
    repository = Repository(shipped)
    detector = _recommended(_cards(repository, DETECTOR))
    cards = [card for card in _cards(repository, EMBEDDER) if has_threshold(card, fmr)]
    if len(cards) < 2:
        raise NotFound(
            f"the demo swaps between two variants of {EMBEDDER} with thresholds at a false match rate of {fmr:g}, and "
            f"there are {len(cards)}; take a repository that has them (--models), or make them: "
            "LATHE_DATA=… lathe compress recipes/face-embed-results.toml"
        )
    before = _recommended(cards)
    others = [card for card in cards if not _permits(card, before.embedding.space, fmr)]
    if not others:
        raise Refused(
            f"each other variant's vectors may be compared with those of {before.variant} at a false match rate of "
            f"{fmr:g}: no swap is refused"
        )
    return TwoSpaces(repository, _ref(detector), _ref(before), _ref(min(others, key=lambda card: card.macs)))


def _permits(card: card_pb2.Card, enrolled: str, fmr: float) -> bool:
    """Whether a gallery would go on to decide at a false match rate, of faces enrolled in a space."""
    from lathe_server.gallery.decision import threshold

    try:
        threshold(card.embedding, enrolled, fmr)
    except Refused:
        return False
    return True


def has_threshold(card: card_pb2.Card, fmr: float) -> bool:
    return any(math.isclose(one.fmr, fmr) for one in card.embedding.thresholds)


def threshold_at(card: card_pb2.Card, fmr: float) -> card_pb2.MatchThreshold:
    """The card's threshold at a false match rate that it has one for."""
    return next(one for one in card.embedding.thresholds if math.isclose(one.fmr, fmr))


def _cards(repository: Repository, model: str) -> list[card_pb2.Card]:
    if cards := repository.newest_cards(model):
        return cards
    recipe = "face" if model == DETECTOR else "face-embed-results"
    raise NotFound(
        f"there is no model {model} in {repository.root}: take a repository that has it (--models), or make it: "
        f"lathe compress recipes/{recipe}.toml --repository {repository.root}"
    )


def _recommended(cards: list[card_pb2.Card]) -> card_pb2.Card:
    return next((card for card in cards if card.recommended), cards[0])


def _ref(card: card_pb2.Card) -> VariantRef:
    return VariantRef(card.model, card.variant, card.version)
