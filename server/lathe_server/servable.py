"""A variant in memory, and what it makes of what it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.embeddings import Embeddings
from lathe.errors import InvalidInput
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.brevity import Brevity, shape_of
from lathe_server.engines import Engine
from lathe_server.tensors import NetworkFails, TensorAnswer, Tensors, infer
from lathe_server.vision import Answer, Detector, Embedder, Picture, Portrait
from lathe_server.vision.faces import check_portrait, embed_faces

Asked: TypeAlias = Picture | Portrait | Tensors
"""What a frame wants judged."""


@dataclass(frozen=True, slots=True)
class Servable:
    """A variant in memory, checked and warmed.

    Attributes:
        engine: its network; what takes tensors.
        detector: what takes pictures; None for a network of tensors, or of faces.
        landmarks: that it gives for each detection.
        embedder: what takes faces; None for other networks.
        brevity: how long its runs are; None where that is no matter.
        opset: version of the standard operators that its network uses.
    """

    ref: VariantRef
    card: card_pb2.Card
    engine: Engine
    detector: Detector | None = None
    landmarks: int = 0
    embedder: Embedder | None = None
    brevity: Brevity | None = None
    opset: int = 0

    @property
    def runtime(self) -> str:
        """What executes its network."""
        return self.engine.runtime

    def is_brief(self, asked: Asked) -> bool:
        """It will answer sooner than a worker would wake."""
        return bool(self.brevity and isinstance(asked, Tensors) and self.brevity.is_brief(shape_of(asked.inputs)))

    def ran(self, asked: Asked, cpu_seconds: float) -> None:
        """It has answered."""
        if self.brevity and isinstance(asked, Tensors):
            self.brevity.ran(shape_of(asked.inputs), cpu_seconds)

    def judge(self, asked: Asked, before_infer: Callable[[], None] = lambda: None) -> Answer | TensorAnswer:
        """Args:
            before_infer: called when the network could run; what it raises ends the work there.

        Raises:
            InvalidInput: the picture, the face or the tensors are not what it takes.
        """
        if isinstance(asked, Tensors):
            return infer(self.engine, asked, before_infer)
        if isinstance(asked, Portrait):
            if self.embedder:
                check_portrait(asked, self.embedder.max_pixels)
            return self.embed(asked.picture, asked.landmarks, np.empty(0, np.int64), before_infer)
        if self.embedder:
            raise InvalidInput(f"model {self.ref.model} detects nothing; Embed asks it for the embedding of a face")
        if self.detector is None:
            raise InvalidInput(f"model {self.ref.model} takes tensors, by the Open Inference Protocol")
        return self.detector.detect(asked, before_infer)

    def embed(
        self,
        picture: Picture,
        landmarks: NDArray[np.float32] | None,
        detection: NDArray[np.int64],
        before_infer: Callable[[], None] = lambda: None,
        decoded: NDArray[np.uint8] | None = None,
    ) -> Answer:
        """Embeddings of some faces of a picture, and no detections.

        Args:
            landmarks, before_infer, decoded: as of `embed_faces`.
            detection: the faces' places among the picture's detections.

        Raises:
            InvalidInput: it is no embedding network; or as `embed_faces`.
            NetworkFails: what it gives is no vector.
        """
        if self.embedder is None:
            raise InvalidInput(f"model {self.ref.model} embeds nothing; an embedding network or a pipeline does")
        vectors, stages = embed_faces(self.embedder, picture, landmarks, before_infer, decoded)
        if not np.isfinite(vectors).all():
            raise NetworkFails("the network gives NaN or infinity for this face")
        return Answer(Detections.none(), stages, Embeddings(vectors, self.card.embedding.space, detection))
