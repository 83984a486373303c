"""Bytes to detections with one loaded network: what the server, evaluation and benchmarks run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.embeddings import Embeddings
from lathe_server.limits import MAX_PIXELS
from lathe_server.vision.decode import decode
from lathe_server.vision.decoders import DECODERS, Outputs
from lathe_server.vision.detections import Thresholds, suppress
from lathe_server.vision.letterbox import fit, letterbox
from lathe_server.vision.picture import Picture, read_header


class Network(Protocol):
    """What runs a tensor: an engine, or a test's stand-in for one."""

    def run(self, tensor: NDArray[np.uint8]) -> Outputs:
        """1 × H × W × 3 uint8 RGB to outputs by name."""


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds that one frame spent in each stage of a worker's job."""

    decode: float
    preprocess: float
    infer: float
    postprocess: float

    @property
    def total(self) -> float:
        return self.decode + self.preprocess + self.infer + self.postprocess

    def __add__(self, other: Stages) -> Stages:
        return Stages(
            self.decode + other.decode,
            self.preprocess + other.preprocess,
            self.infer + other.infer,
            self.postprocess + other.postprocess,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Attributes:
        embeddings: None where none were asked for.
    """

    detections: Detections
    stages: Stages
    embeddings: Embeddings | None = None


@dataclass(frozen=True, slots=True)
class Detector:
    """A detection network with all that surrounds it.

    Attributes:
        decoder: name of one of the `DECODERS`.
        limit_wh: frames are scaled to fit into this.
        multiple: the network takes heights and widths in multiples of this.
        max_pixels: larger pictures are refused by their header.
    """

    network: Network
    decoder: str
    thresholds: Thresholds
    limit_wh: tuple[int, int]
    multiple: int
    max_pixels: int = MAX_PIXELS

    def detect(
        self,
        picture: Picture,
        before_infer: Callable[[], None] = lambda: None,
        decoded: Callable[[NDArray[np.uint8]], None] = lambda pixels: None,
    ) -> Answer:
        """Detections in pixels of the upright picture, with the time of each stage.

        Args:
            before_infer: called when the network could run; what it raises ends the work there.
            decoded: told of the upright picture's pixels, whole or reduced.

        Raises:
            BadPicture: the picture cannot be decoded.
        """
        began = perf_counter()
        header = read_header(picture, self.max_pixels)
        placement = fit(header.upright_wh, self.limit_wh, self.multiple)
        pixels = decode(picture, header, placement.scaled_wh)
        decoded(pixels)
        read = perf_counter()
        tensor = letterbox(pixels, placement)
        before_infer()
        preprocessed = perf_counter()
        outputs = self.network.run(tensor)
        inferred = perf_counter()
        candidates = DECODERS[self.decoder](outputs, self.thresholds.min_score)
        kept = suppress(candidates, self.thresholds)
        detections = kept.scaled(*placement.to_frame_scale()).clipped(placement.frame_wh)
        done = perf_counter()
        return Answer(
            detections,
            Stages(read - began, preprocessed - read, inferred - preprocessed, done - inferred),
        )
