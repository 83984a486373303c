"""From which similarity on two vectors are of one person: measured for the cards, where a recipe has labelled faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from itertools import permutations
from operator import or_

import numpy as np

from lathe.v1 import card_pb2
from lathe_compression.embedding_data import load_faces
from lathe_compression.judge_embeddings import build_embedder, judge_embeddings
from lathe_compression.made import Made
from lathe_compression.match_thresholds import points_across, points_within, thresholds_of
from lathe_compression.workshop import Workshop


def measure_thresholds(cards: Sequence[card_pb2.Card], made: Sequence[Made], workshop: Workshop) -> None:
    """Fills in the thresholds of embedding variants within their own spaces, and against each other's where that is
    proven. Pictures that made any of them are left out. Where the recipe names no faces, or lies on a machine that has
    none, the cards stay without.

    Raises:
        NotFound: the file of pairs or one of its pictures is missing.
        InvalidInput: it makes no sense.
    """
    verification = workshop.recipe.verification
    if verification is None:
        return
    place = os.path.expandvars(verification.pairs)
    if "$" in place:
        workshop.progress.warn(f"{verification.pairs} is not on this machine: the cards hold no thresholds")
        return
    faces = load_faces(workshop.folder / place, reduce(or_, (one.pictures for one in made)))
    embedders = {card.variant: build_embedder(card, one.content) for card, one in zip(cards, made, strict=True)}
    with workshop.progress.bar("variants: embed the labelled faces", len(faces.paths)) as advance:
        judged = judge_embeddings(embedders, workshop.faces.reader.detector, faces.paths, advance)
    vectors = {name: one.vectors for name, one in judged.embedded.items()}
    workshop.faces.say_missed([path.name for path in judged.missed])
    people = np.array(faces.subjects)
    with workshop.progress.bar("variants: thresholds", len(cards) ** 2) as advance:
        within = {}
        for card in cards:
            within[card.variant] = points_within(vectors[card.variant], people, verification.fmrs)
            card.embedding.thresholds.extend(thresholds_of(within[card.variant], faces.name))
            advance()
        for card, other in permutations(cards, 2):
            enrolled = other.variant
            proven = points_across(vectors[enrolled], vectors[card.variant], people, within[enrolled])
            if proven:
                thresholds = thresholds_of(proven, faces.name)
                card.embedding.cross_spaces.add(space=other.embedding.space, variant=enrolled, thresholds=thresholds)
            advance()
