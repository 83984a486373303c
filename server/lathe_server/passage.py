"""A frame's way through a pipeline, in one job: its faces are found, aligned and embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from lathe.embeddings import Embeddings
from lathe.errors import Refused
from lathe.pipeline_file import PipelineSpec
from lathe.repository import VariantRef
from lathe_server.engines.meter import gpu_seconds
from lathe_server.frames import Result
from lathe_server.servable import Asked, Servable
from lathe_server.vision import Answer, EncodedPicture, RawPicture
from lathe_server.vision.align import LANDMARKS
from lathe_server.vision.faces import largest


class Passage:
    """Of one frame. Its stages' times and costs stay apart, so that each variant bears its own.

    Raises:
        Refused: the variants make no pipeline.
    """

    __slots__ = (
        "_cpu_seconds",
        "_detected",
        "_detector",
        "_embedded",
        "_embedder",
        "_gpu_seconds",
        "_is_embedding",
        "_spec",
    )

    def __init__(self, spec: PipelineSpec, detector: Servable, embedder: Servable) -> None:
        check_detector(detector)
        check_embedder(embedder)
        self._spec = spec
        self._detector = detector
        self._embedder = embedder
        self._detected: Answer | None = None
        self._embedded: Answer | None = None
        self._is_embedding = False  # or has been
        self._cpu_seconds = self._gpu_seconds = 0.0  # of that

    @property
    def ref(self) -> VariantRef:
        """The variant that detects."""
        return self._detector.ref

    @property
    def at(self) -> VariantRef:
        """The variant that has the frame, or had it last."""
        return self._embedder.ref if self._is_embedding else self._detector.ref

    def is_brief(self, asked: Asked) -> bool:
        return False

    def ran(self, asked: Asked, cpu_seconds: float) -> None:
        pass

    def judge(self, asked: Asked, before_infer: Callable[[], None] = lambda: None) -> Answer:
        """Detections, with embeddings of the largest faces.

        Args:
            asked: a picture.
            before_infer: called before each network runs, and each decoding; what it raises ends the work there.

        Raises:
            BadPicture: it cannot be decoded.
            NetworkFails: the embedding of a face is no vector.
        """
        assert isinstance(asked, EncodedPicture | RawPicture), "pipelines are asked for pictures only"
        assert self._detector.detector, "the detector was checked"
        decoded: list[NDArray[np.uint8]] = []
        found = self._detector.detector.detect(asked, before_infer, decoded.append)
        self._detected = found
        faces = largest(found.detections, self._spec.largest, self._spec.min_side)
        if not len(faces):
            told = self._embedder.card.embedding
            return replace(found, embeddings=Embeddings.none(told.space, told.dimensions))
        self._is_embedding = True
        began, began_gpu = thread_time(), gpu_seconds()
        try:
            landmarks = found.detections.landmarks[faces]
            embedded = self._embedder.embed(asked, landmarks, faces, before_infer, decoded[0])
            self._embedded = embedded
        finally:
            self._cpu_seconds, self._gpu_seconds = thread_time() - began, gpu_seconds() - began_gpu
        return Answer(found.detections, found.stages + embedded.stages, embedded.embeddings)

    def shared_out(self, result: Result, degraded: Sequence[bool]) -> Result:
        """The frame's result with the share of each variant. One that found no face to embed is the detector's alone.

        Args:
            degraded: which of the two are cheaper ones than their routes say.
        """
        detects_cheaper, embeds_cheaper = (one and result.outcome == "answered" for one in degraded)
        if not self._is_embedding:
            return replace(result, degraded=detects_cheaper)
        of_embedder = replace(
            result,
            ref=self._embedder.ref,
            queue_seconds=0.0,  # the frame waited once, for its detector
            answer=self._embedded,
            cpu_seconds=self._cpu_seconds,
            gpu_seconds=self._gpu_seconds,
            degraded=embeds_cheaper,
        )
        of_detector = replace(
            result,
            outcome="answered",
            answer=self._detected,
            error=None,
            cpu_seconds=max(0.0, result.cpu_seconds - self._cpu_seconds),
            gpu_seconds=max(0.0, result.gpu_seconds - self._gpu_seconds),
            degraded=detects_cheaper,
        )
        return replace(result, shares=(of_detector, of_embedder))


def check_detector(servable: Servable) -> None:
    """
    Raises:
        Refused: it finds no faces that could be aligned.
    """
    ref = servable.ref
    if servable.detector is None:
        raise Refused(f"model {ref.model} detects nothing, and a pipeline detects first")
    if servable.landmarks != LANDMARKS:
        raise Refused(
            f"variant {ref.variant}/{ref.version} of {ref.model} gives {servable.landmarks} landmarks a face; a "
            f"pipeline aligns faces by {LANDMARKS}"
        )


def check_embedder(servable: Servable) -> None:
    """
    Raises:
        Refused: it embeds nothing.
    """
    if servable.embedder is None:
        raise Refused(f"model {servable.ref.model} embeds nothing, and a pipeline embeds what it detects")
