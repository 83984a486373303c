"""A repository with a pipeline: small networks that find bright spots, take them for faces, and embed them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lathe.pipeline_file import PipelineSpec
from lathe.repository import Repository, VariantRef
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.frames import Frame
from lathe_server.loading import load_servable
from lathe_server.servable import Servable
from lathe_server.vision import Detector, Embedder, EncodedPicture
from lathe_server.vision.detections import Thresholds
from tests.models import card_for, embedding_card, face_vectors, spots_without_landmarks, spotted_faces
from tests.pictures import jpeg, scene

NETWORK, OTHER = face_vectors(0), face_vectors(1)
DETECTOR = Detector(OnnxRuntimeEngine(spotted_faces()), "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)
EMBEDDER = Embedder(OnnxRuntimeEngine(NETWORK), "dlib", (32, 32))
"""What the variants `a` are, in this process."""


FACE, EMBED, OTHER_EMBED = (
    VariantRef(model, variant, 1) for model, variant in (("face", "a"), ("face-embed", "a"), ("face-embed", "b"))
)
SPEC = PipelineSpec("face", "face-embed", largest=2)


def publish_faces(root: Path, *, largest: int = 2) -> Repository:
    """The models `face` (a) and `face-embed` (a, b) with the pipeline `face-id`; and `spots`, a detector without
    landmarks."""
    root.mkdir(exist_ok=True)
    repository = Repository(root)
    repository.publish(card_for("face", "a", recommended=True), spotted_faces())
    repository.publish(embedding_card("face-embed", "a", NETWORK, recommended=True), NETWORK)
    repository.publish(embedding_card("face-embed", "b", OTHER), OTHER)
    repository.write_pipeline("face-id", PipelineSpec("face", "face-embed", largest=largest))
    return repository


def publish_without_landmarks(repository: Repository, model: str, variant: str) -> None:
    card = card_for(model, variant)
    card.decoder = type(card).DESCRIPTOR.fields_by_name["decoder"].enum_type.values_by_name["DECODER_BOXES"].number
    repository.publish(card, spots_without_landmarks())


def faces_in_memory(folder: Path) -> dict[VariantRef, Servable]:
    """All of these models' variants."""
    repository = publish_faces(folder / "models")
    publish_without_landmarks(repository, "spots", "a")
    refs = [FACE, EMBED, OTHER_EMBED, VariantRef("spots", "a", 1)]
    return {ref: load_servable(repository, ref, max_pixels=10**7, max_model_bytes=10**8) for ref in refs}


def crowd(*places: tuple[int, int]) -> NDArray[np.uint8]:
    """640 × 480, dim colours with a white spot at each place, left and top: faces of 160 × 160 around it."""
    pixels = scene(640, 480) // 4
    for left, top in places:
        pixels[top : top + 16, left : left + 16] = 255
    return pixels


def crowd_jpeg(*places: tuple[int, int]) -> bytes:
    return jpeg(crowd(*places))


ONE = crowd_jpeg((320, 240))


def frame(picture: bytes = ONE, **how: float) -> Frame:
    """Of a camera whose faces are to be embedded."""
    now = time.monotonic()
    return Frame("face-id", "camera", "", 0, EncodedPicture(picture), now, now, embeddings=True, **how)
