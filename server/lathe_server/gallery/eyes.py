"""What a gallery sees with: a pipeline of its own server, asked as any caller asks it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from lathe.card import check_name
from lathe.errors import InvalidInput, Refused, Unavailable
from lathe.pipeline_file import MAX_LARGEST, PipelineSpec
from lathe.repository import VariantRef
from lathe.v1 import card_pb2
from lathe_server.calls import Calls
from lathe_server.frames import Frame, Result
from lathe_server.gallery.kept_face import cut, portrait
from lathe_server.gallery.probe import Probe
from lathe_server.manager import Manager
from lathe_server.origin import current
from lathe_server.router import Router
from lathe_server.vision import Answer, Picture, Portrait
from lathe_server.vision.faces import largest as largest_faces


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture's face.

    Attributes:
        xyxy: 4, its box in pixels of the upright picture.
        landmarks: 5 × 2, in the same.
    """

    probe: Probe
    picture: Picture
    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]


class Eyes:
    """On the event loop.

    Args:
        model: the pipeline.
        max_pixels: of a picture.
    """

    def __init__(self, model: str, calls: Calls, router: Router, manager: Manager, max_pixels: int) -> None:
        self.model = model
        self._calls = calls
        self._router = router
        self._manager = manager
        self._max_pixels = max_pixels

    def looks_by(self, model: str) -> bool:
        """Whether a model is the embedding network of the pipeline, as that is served now."""
        spec = self._router.pipeline(self.model)
        return spec is not None and spec.embedder == model

    async def face(self, picture: Picture, deadline: float, *, largest: bool) -> Seen:
        """The face that a picture shows.

        Args:
            deadline: on the monotonic clock.
            largest: of several the largest is meant.

        Raises:
            InvalidInput: it shows no face, or several where one is asked for.
            LatheError: the pipeline does not answer.
        """
        spec = self._spec()
        answer, ref = await self._asked(self.model, "", picture, deadline, embeddings=True)
        found, embeddings = answer.detections, answer.embeddings
        if embeddings is None or not len(embeddings):
            raise InvalidInput("the picture shows no face that is large and clear enough")
        shown = len(largest_faces(found, MAX_LARGEST, spec.min_side))
        if shown > 1 and not largest:
            raise InvalidInput(f"the picture shows {shown} faces; it has to show one, or the largest be asked for")
        place = int(embeddings.detection[0])
        probe = Probe(embeddings.vectors[0], self.embedding(ref))
        return Seen(probe, picture, found.xyxy[place], found.landmarks[place])

    async def keepsake(self, seen: Seen) -> bytes:
        """What may be kept of a face, to look at it again."""
        return await asyncio.to_thread(cut, seen.picture, seen.xyxy, seen.landmarks, self._max_pixels)

    async def again(self, kept: bytes, by: VariantRef) -> Probe:
        """A face that was kept, as a variant of the pipeline's embedding network sees it.

        Raises:
            LatheError: the variant is not in memory, or does not answer.
        """
        answer, ref = await self._asked(by.model, f"{by.variant}/{by.version}", portrait(kept), math.inf)
        assert answer.embeddings is not None, "an embedding network's answer has one"
        return Probe(answer.embeddings.vectors[0], self.embedding(ref))

    async def variant(self, variant: str) -> VariantRef:
        """The one in memory that `again` may ask.

        Args:
            variant: VARIANT or VARIANT/VERSION.

        Raises:
            InvalidInput: that is no name of one.
            NotFound: there is none.
            Refused: it is not in memory.
        """
        name, _, version = variant.partition("/")
        check_name(name, "variant")
        if version and not (version.isascii() and version.isdecimal() and len(version) < 10):
            raise InvalidInput("a variant is named by VARIANT or VARIANT/VERSION")
        embedder = self._spec().embedder
        await self._calls.check(embedder, self._calls.new_stream_id(), variant, ())
        return self._manager.ready(embedder, name, int(version or 0))

    def meaning(self, space: str) -> card_pb2.Embedding:
        """What the card says whose network makes the vectors of a space: of the variants in memory, whose cards were
        checked with them, first those of the route, then the newest.

        Raises:
            Refused: none of them does.
        """
        embedder = self._spec().embedder
        route = self._router.route(embedder)
        routed = route.needs() if route else []
        ready = [ref for ref, state in self._manager.states().items() if ref.model == embedder and state == "ready"]
        for ref in sorted(ready, key=lambda ref: (ref not in routed, -ref.version)):
            if (known := self.embedding(ref)).space == space:
                return known
        raise Refused(f"no variant of {embedder} that is in memory makes vectors of this embedding space")

    def embedding(self, ref: VariantRef) -> card_pb2.Embedding:
        """Of the card of a variant in memory.

        Raises:
            Unavailable: it has just gone.
        """
        try:
            with self._manager.lease(ref) as servable:
                return servable.card.embedding
        except Refused as error:
            raise Unavailable(f"{ref} was just taken out of memory; ask again") from error

    def _spec(self) -> PipelineSpec:
        spec = self._router.pipeline(self.model)
        if spec is None:
            raise Refused(f"the gallery sees by the pipeline {self.model}, which is not served here")
        return spec

    async def _asked(
        self, model: str, variant: str, asked: Picture | Portrait, deadline: float, *, embeddings: bool = False
    ) -> tuple[Answer, VariantRef]:
        """The answer, and the variant that has made the embeddings, or would have."""
        origin, stream_id, now = current.get(), self._calls.new_stream_id(), monotonic()
        await self._calls.check(model, stream_id, variant, origin.headers, embeddings=embeddings)
        frame = Frame(
            model,
            stream_id,
            variant,
            0,
            asked,
            now,
            now,
            deadline=deadline,
            is_call=True,
            origin=origin,
            embeddings=embeddings,
            is_private=True,
        )
        result: Result = await self._calls.answer(frame)
        ref = result.parts[-1].ref
        assert isinstance(result.answer, Answer), "a picture's answer is detections and embeddings"
        assert ref, "what is answered was answered by somebody"
        return result.answer, ref
