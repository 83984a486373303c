"""Embedding networks side by side on the same faces: their vectors, and how long each stage takes.

Each picture is decoded and its face found once; then the networks take turns, in one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lathe.card import enum_word
from lathe.errors import BadPicture, BadVariant, InvalidInput
from lathe.v1 import card_pb2
from lathe_compression.faces import face_landmarks
from lathe_compression.judge import WARM_UP_RUNS
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.vision import Detector, EncodedPicture, decode
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.embedder import Embedder
from lathe_server.vision.picture import read_header

Pixels = NDArray[np.uint8]
Landmarks = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """What one network made of the pictures.

    Attributes:
        vectors: N × D, a row of NaN where no face was found.
        preprocess, infer: seconds of each face that was found.
    """

    vectors: NDArray[np.float32]
    preprocess: NDArray[np.float64]
    infer: NDArray[np.float64]


@dataclass(frozen=True)
class JudgedFaces:
    """Attributes:
    embedded: by the network's key.
    missed: pictures in which the detector found no face.
    decode, detect: median seconds of a picture.
    """

    embedded: Mapping[str, Embedded]
    missed: Sequence[Path]
    decode: float
    detect: float

    def stage_medians(self, key: str) -> dict[str, float]:
        """Median seconds of each stage before and in a network, and their sum as `total`."""
        own = self.embedded[key]
        stages = {"decode": self.decode, "detect": self.detect}
        stages |= {"preprocess": float(np.median(own.preprocess)), "infer": float(np.median(own.infer))}
        return stages | {"total": sum(stages.values())}

    def speedup(self, key: str, reference: str) -> float:
        """How many times faster a network runs: the median over faces of the ratio."""
        return float(np.median(self.embedded[reference].infer / self.embedded[key].infer))


def build_embedder(card: card_pb2.Card, model: bytes) -> Embedder:
    """A variant with the server's own alignment.

    Raises:
        InvalidInput: it is no embedding network.
        BadVariant: its card holds no alignment that there is.
    """
    if card.task != card_pb2.TASK_EMBEDDING:
        raise InvalidInput(f"{card.model}/{card.variant} is no embedding network")
    alignment = enum_word("Alignment", card.embedding.alignment)
    if alignment not in TEMPLATES:
        raise BadVariant(f"the card of {card.model}/{card.variant} names no alignment")
    return Embedder(OnnxRuntimeEngine(model), alignment, (card.serving_size.width, card.serving_size.height))


def judge_embeddings(
    embedders: Mapping[str, Embedder],
    detector: Detector,
    paths: Sequence[Path],
    advance: Callable[[], None] = lambda: None,
) -> JudgedFaces:
    """Runs every network on the face of every picture.

    Args:
        advance: called after each picture.

    Raises:
        BadPicture: a picture cannot be decoded.
        InvalidInput: no picture shows a face that the detector finds.
    """
    turns = {key: _Turn(embedder, len(paths)) for key, embedder in embedders.items()}
    decoding, detecting, missed = [], [], []
    for number, path in enumerate(paths):
        began = perf_counter()
        pixels = _decoded(path)
        decoded = perf_counter()
        landmarks = face_landmarks(detector, pixels)
        detecting.append(perf_counter() - decoded)
        decoding.append(decoded - began)
        if landmarks is None:
            missed.append(path)
        else:
            if len(missed) == number:
                for turn in turns.values():
                    turn.warm_up(pixels, landmarks)
            order = list(turns.values())
            for turn in order if number % 2 == 0 else reversed(order):
                turn.take(number, pixels, landmarks)
        advance()
    if len(missed) == len(paths):
        raise InvalidInput("the detector finds a face in none of the pictures")
    embedded = {key: turn.embedded() for key, turn in turns.items()}
    return JudgedFaces(embedded, missed, float(np.median(decoding)), float(np.median(detecting)))


def _decoded(path: Path) -> Pixels:
    picture = EncodedPicture(path.read_bytes())
    try:
        header = read_header(picture)
        return decode(picture, header, header.upright_wh)
    except BadPicture as error:
        raise BadPicture(f"{path.name}: {error.message}") from error


class _Turn:
    """One network's part."""

    def __init__(self, embedder: Embedder, pictures: int) -> None:
        self._embedder = embedder
        self._pictures = pictures
        self._vectors: dict[int, NDArray[np.float32]] = {}
        self._preprocess: list[float] = []
        self._infer: list[float] = []

    def warm_up(self, pixels: Pixels, landmarks: Landmarks) -> None:
        for _ in range(WARM_UP_RUNS):
            self._embedder.embed(pixels, landmarks[None])

    def take(self, number: int, pixels: Pixels, landmarks: Landmarks) -> None:
        began = perf_counter()
        face = self._embedder.align(pixels, landmarks[None])
        aligned = perf_counter()
        self._vectors[number] = self._embedder.embed_aligned(face)[0]
        self._infer.append(perf_counter() - aligned)
        self._preprocess.append(aligned - began)

    def embedded(self) -> Embedded:
        dimensions = len(next(iter(self._vectors.values())))
        vectors = np.full((self._pictures, dimensions), np.nan, np.float32)
        for number, vector in self._vectors.items():
            vectors[number] = vector
        return Embedded(vectors, np.array(self._preprocess), np.array(self._infer))
