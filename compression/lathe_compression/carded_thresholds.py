"""From which similarity on two vectors are of one person: measured for the cards, where a recipe has labelled faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np

from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.embedding_data import load_faces
from lathe_compression.judge_embeddings import build_embedder, judge_embeddings
from lathe_compression.made import Made
from lathe_compression.match_thresholds import points_across, points_within, thresholds_of
from lathe_compression.workshop import Workshop

_WITHOUT = "cards that are new hold no thresholds, and no server loads a variant without"


@dataclass(frozen=True)
class LabelledFaces:
    """Attributes:
    data: a file of pairs, or a folder of people.
    fmrs: the false match rates to find thresholds at.
    """

    data: Path
    fmrs: Sequence[float]


def labelled_faces(workshop: Workshop) -> LabelledFaces | None:
    """A recipe's labelled faces, all of them there; None where it names none, or lies on a machine that has
    none. Then cards stay without thresholds, which is said.

    Raises:
        NotFound: the file of pairs or one of its pictures is missing.
        InvalidInput: it makes no sense.
    """
    if not workshop.recipe.model.embeds:
        return None
    verification = workshop.recipe.verification
    if verification is None:
        workshop.progress.warn(f"the recipe has no [verification]: {_WITHOUT}")
        return None
    place = os.path.expandvars(verification.pairs)
    if "$" in place:
        workshop.progress.warn(f"{verification.pairs} is not on this machine: {_WITHOUT}")
        return None
    data = workshop.folder / place
    load_faces(data, UsedPictures())
    return LabelledFaces(data, verification.fmrs)


def measure_thresholds(
    cards: Sequence[card_pb2.Card], made: Sequence[Made], labelled: LabelledFaces, workshop: Workshop
) -> None:
    """Fills in the thresholds of embedding variants within their own spaces, and against each other's where that is
    proven. Pictures that made any of them are left out.

    Raises:
        NotFound, InvalidInput: as `labelled_faces`; or no picture is left.
    """
    faces = load_faces(labelled.data, reduce(or_, (one.pictures for one in made)))
    embedders = {card.variant: build_embedder(card, one.content) for card, one in zip(cards, made, strict=True)}
    with workshop.progress.bar("variants: embed the labelled faces", len(faces.paths)) as advance:
        judged = judge_embeddings(embedders, workshop.faces.reader.detector, faces.paths, advance)
    vectors = {name: one.vectors for name, one in judged.embedded.items()}
    workshop.faces.say_missed([path.name for path in judged.missed])
    people = np.array(faces.subjects)
    pairs = _pairs(cards)
    with workshop.progress.bar("variants: thresholds", len(cards) + len(pairs)) as advance:
        within = {}
        for card in cards:
            within[card.variant] = points_within(vectors[card.variant], people, labelled.fmrs)
            card.embedding.thresholds.extend(thresholds_of(within[card.variant], faces.name))
            advance()
        for card, other in pairs:
            enrolled = other.variant
            proven = points_across(vectors[enrolled], vectors[card.variant], people, within[enrolled])
            if proven:
                thresholds = thresholds_of(proven, faces.name)
                card.embedding.cross_spaces.add(space=other.embedding.space, variant=enrolled, thresholds=thresholds)
            advance()


def _pairs(cards: Sequence[card_pb2.Card]) -> list[tuple[card_pb2.Card, card_pb2.Card]]:
    """Each with the first of every other space, by name: variants of the very same bytes share one."""
    by_space = {card.embedding.space: card for card in sorted(cards, key=lambda card: card.variant, reverse=True)}
    others = sorted(by_space.values(), key=lambda card: card.variant)
    return [(card, other) for card in cards for other in others if other.embedding.space != card.embedding.space]
