"""What a detection network has to be before it serves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lathe.errors import BadVariant
from lathe.v1 import card_pb2
from lathe_server.engines import FREE, Engine
from lathe_server.engines.golden import check_golden, golden_picture
from lathe_server.vision import Detector
from lathe_server.vision.decoders import OUTPUT_NAMES, Outputs, Shape, needed_shapes


def check_detection_card(card: card_pb2.Card, max_pixels: int) -> None:
    """
    Raises:
        BadVariant: the card says what cannot be.
    """
    size, multiple, thresholds = card.serving_size, card.size_multiple, card.thresholds
    if size.width % multiple or size.height % multiple or size.width * size.height > max_pixels:
        raise BadVariant(f"the card's serving size must be in multiples of {multiple}, and at most {max_pixels} pixels")
    if not (0 <= thresholds.min_score <= 1 and 0 <= thresholds.nms <= 1 and thresholds.max_detections):
        raise BadVariant("the card's thresholds must be from 0 to 1, and max_detections above 0")
    if not card.classes or (card.decoder == card_pb2.DECODER_HEATMAP and len(card.classes) > 1):
        raise BadVariant(f"the card names {len(card.classes)} classes, which its decoder cannot have")


def check_detection_contract(engine: Engine, decoder: str) -> None:
    """
    Raises:
        BadVariant: its input or its outputs are not those of a detector.
    """
    if len(engine.inputs) != 1:
        raise BadVariant(f"the model has {len(engine.inputs)} inputs; one is served")
    pixels = engine.inputs[0]
    if pixels.dtype != "uint8" or len(pixels.shape) != 4 or pixels.shape[3] != 3:
        raise BadVariant("the model's input must be uint8, batch × height × width × 3")
    if pixels.shape[1] != FREE or pixels.shape[2] != FREE:
        raise BadVariant("height and width of the model's input must be free")
    needed = OUTPUT_NAMES.get(decoder)
    if needed is None:
        raise BadVariant("the card names no decoder that this server has")
    missing = needed - {spec.name for spec in engine.outputs}
    if missing:
        raise BadVariant(f"the model lacks the output {min(missing)}, which its decoder needs")


def check_detections(detector: Detector, engine: Engine, card: card_pb2.Card) -> None:
    """Looks at what comes out for pictures of the serving size.

    Raises:
        BadVariant: the network gives NaN or infinity, outputs that its decoder cannot read, or other ones than its
            card says.
    """
    width, height = detector.limit_wh
    outputs = engine.run(np.full((1, height, width, 3), 127, np.uint8))
    _check_outputs(outputs, needed_shapes(detector.decoder, outputs, detector.limit_wh, len(card.classes)))
    if card.golden:
        check_golden(engine.run(golden_picture(detector.limit_wh)), card.golden)


def _check_outputs(outputs: Outputs, needed: Mapping[str, Shape]) -> None:
    for name, shape in needed.items():
        if outputs[name].shape != shape:
            raise BadVariant(f"the model's output {name} has the shape {outputs[name].shape}; {shape} is needed")
    if any(value.dtype != np.float32 for value in outputs.values()):
        raise BadVariant("the model's outputs must be float32")
    if not all(np.isfinite(value).all() for value in outputs.values()):
        raise BadVariant("the model gives NaN or infinity on a grey picture")
