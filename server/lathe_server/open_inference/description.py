"""What a model takes and gives, as the protocol tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.detections import Detections
from lathe.repository import VariantRef
from lathe_server.engines import FREE, TensorSpec
from lathe_server.servable import Servable
from lathe_server.tensors import DATATYPES

IMAGE = "image"
"""Input of models that take pictures: whole JPEG or PNG files, one an element."""
MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class Tensor:
    """Attributes:
    shape: `FREE` for a dimension of any size.
    optional: there is another way to ask.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """Attributes:
    max_batch: the first dimension of every tensor is a batch of up to so many; 0 where it is not.
    """

    ref: VariantRef
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int = 0


def describe(servable: Servable) -> Description:
    """A network of tensors is described as it is. One that takes pictures is so too, and beside that as what it is with
    all that surrounds it: files in, detections out."""
    engine, platform = servable.engine, servable.runtime.partition(" ")[0] + "_onnx"
    if servable.detector is None:
        specs = (*engine.inputs, *engine.outputs)
        is_batched = all(spec.shape[:1] == (FREE,) for spec in specs)
        max_batch = MAX_BATCH if is_batched else 0
        return Description(servable.ref, platform, _told(engine.inputs), _told(engine.outputs), max_batch)
    inputs = (Tensor(IMAGE, "BYTES", (FREE,), optional=True), *_told(engine.inputs, optional=True))
    return Description(servable.ref, platform, inputs, (*_DETECTIONS, *_told(engine.outputs)))


def _told(specs: Sequence[TensorSpec], *, optional: bool = False) -> tuple[Tensor, ...]:
    return tuple(Tensor(spec.name, DATATYPES[spec.dtype], spec.shape, optional) for spec in specs)


_DETECTIONS = (
    Tensor("xyxy", "FP32", (FREE, 4)),
    Tensor("score", "FP32", (FREE,)),
    Tensor("class_id", "INT64", (FREE,)),
    Tensor("landmarks_xy", "FP32", (FREE, FREE, 2)),
    Tensor("image_index", "INT32", (FREE,)),
)


def as_tensors(found: Sequence[Detections]) -> dict[str, NDArray[np.generic]]:
    """Detections of several pictures one after the other; `image_index` says which picture each is of."""
    return {
        "xyxy": np.concatenate([one.xyxy for one in found]).astype(np.float32),
        "score": np.concatenate([one.score for one in found]).astype(np.float32),
        "class_id": np.concatenate([one.class_id for one in found]).astype(np.int64),
        "landmarks_xy": np.concatenate([one.landmarks for one in found]).astype(np.float32),
        "image_index": np.repeat(np.arange(len(found), dtype=np.int32), [len(one) for one in found]),
    }
