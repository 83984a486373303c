"""What is looked at before an embedding network serves: its card, its input and output, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lathe.card import enum_word
from lathe.embedding_space import space_id
from lathe.errors import BadVariant
from lathe.v1 import card_pb2
from lathe_server.engines import Engine
from lathe_server.engines.golden import check_golden, golden_picture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.embedder import EMBEDDING, Embedder

MAX_DIMENSIONS = 4096
MAX_VECTOR_DEVIATION = 0.02
"""Of the golden answer, as a share of its range: what was enrolled elsewhere is compared with what is embedded here, by
thresholds that were measured there. OpenVINO, which rounds INT8 differently, is off by .005, a cosine of .9996."""
MAX_OFF_UNIT = 1e-3
"""That a vector's length may differ from 1."""


def check_embedding_card(card: card_pb2.Card, max_pixels: int) -> None:
    """
    Raises:
        BadVariant: the card lacks what makes vectors comparable, or says of it what cannot be.
    """
    told, size = card.embedding, card.serving_size
    if not told.space:
        raise BadVariant("the card of an embedding network names no embedding space")
    if size.width * size.height > max_pixels:
        raise BadVariant(f"the card's serving size must have at most {max_pixels} pixels")
    if enum_word("Alignment", told.alignment) not in TEMPLATES:
        raise BadVariant("the card names no alignment that this server has")
    if not 1 <= told.dimensions <= MAX_DIMENSIONS:
        raise BadVariant(f"an embedding has 1 to {MAX_DIMENSIONS} dimensions, and the card says {told.dimensions}")
    if told.space != (own := space_id(card.model, card.sha256, enum_word("Alignment", told.alignment))):
        raise BadVariant(f"the card names another embedding space than its network's, which is {own}")
    _check_thresholds(told.thresholds, "of the card")
    spaces = [one.space for one in told.cross_spaces]
    if not all(spaces) or len({told.space, *spaces}) <= len(spaces):
        raise BadVariant("the card names each other embedding space once, and not its own among them")
    for one in told.cross_spaces:
        _check_thresholds(one.thresholds, "across spaces")


def _check_thresholds(thresholds: Sequence[card_pb2.MatchThreshold], which: str) -> None:
    """From the highest false match rate to the lowest, where fewer and fewer pairs match."""
    if not thresholds:
        raise BadVariant(f"the thresholds {which} are missing; without one nobody knows which two vectors match")
    for one in thresholds:
        if not (0 < one.fmr < 1 and -1 <= one.min_similarity <= 1 and 0 <= one.fnmr_low <= one.fnmr_high <= 1):
            raise BadVariant(f"a threshold {which} has a rate or a similarity that cannot be")
        if not one.fnmr_low <= one.fnmr <= one.fnmr_high:
            raise BadVariant(f"a threshold {which} has a rate outside its own interval")
    for higher, lower in pairwise(thresholds):
        if not (higher.fmr > lower.fmr and higher.min_similarity <= lower.min_similarity):
            raise BadVariant(f"the thresholds {which} do not rise as their false match rates fall")


def check_embedding_contract(engine: Engine, card: card_pb2.Card) -> None:
    """
    Raises:
        BadVariant: the network takes something else than faces of the serving size, or gives something else than
            vectors of the card's dimensions.
    """
    if len(engine.inputs) != 1:
        raise BadVariant(f"the model has {len(engine.inputs)} inputs; one is served")
    pixels, size = engine.inputs[0], card.serving_size
    if pixels.dtype != "uint8" or pixels.shape[1:] != (size.height, size.width, 3):
        raise BadVariant(f"the model's input must be uint8, batch × {size.height} × {size.width} × 3")
    if not any(spec.name == EMBEDDING for spec in engine.outputs):
        raise BadVariant(f"the model lacks the output {EMBEDDING}")


def check_embeddings(embedder: Embedder, engine: Engine, card: card_pb2.Card) -> None:
    """Looks at what comes out for a grey face, and for the golden one.

    Raises:
        BadVariant: no unit vector of the card's dimensions, or another one than its card says.
    """
    width, height = embedder.size_wh
    vector = engine.run(np.full((1, height, width, 3), 127, np.uint8))[EMBEDDING]
    if vector.shape != (1, card.embedding.dimensions) or vector.dtype != np.float32:
        raise BadVariant(
            f"the model's output {EMBEDDING} is {vector.dtype} of the shape {vector.shape}; float32 of the shape "
            f"{(1, card.embedding.dimensions)} is needed"
        )
    if not abs(float(np.linalg.norm(vector)) - 1) <= MAX_OFF_UNIT:  # NaN included
        raise BadVariant("the model gives vectors whose length is not 1")
    if card.golden:
        check_golden(engine.run(golden_picture(embedder.size_wh)), card.golden, MAX_VECTOR_DEVIATION)
