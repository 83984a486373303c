"""What a network answers to one fixed picture, or to fixed tensors: how a runtime, or a machine, that computes
something else is found out.

INT8 on a processor whose multiplications saturate, a converter with a fault, a file whose card is another's: all
of them run, and find nothing. The answer to the golden picture, as the machine that made the variant gave it, lies in
the card; who loads the variant compares.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe.v1 import card_pb2
from lathe_server.engines.engine import FREE, TensorSpec

SAMPLES = 64
MAX_ELEMENTS = 1 << 26
"""Of each input that a network of tensors is tried with."""
MAX_DEVIATION = 0.1
"""Root mean square of what the answers differ by, as a share of the output's range. ONNX Runtime and OpenVINO, which
round INT8 differently, differ by up to .036 on the shipped variants."""


def golden_picture(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """1 × H × W × 3: light from the upper left, with a grain that no library's version changes."""
    width, height = size_wh
    grain = np.frombuffer(hashlib.shake_256(b"lathe golden picture").digest(width * height * 3), np.uint8)
    slope = np.add.outer(np.arange(height) * 160 // height, np.arange(width) * 64 // width)
    picture = slope[None, :, :, None] + grain.reshape(1, height, width, 3) // 8
    return np.ascontiguousarray(picture, np.uint8)


def golden_tensors(specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
    """The same inputs on every machine: fractions from 0 to 1, and small whole numbers, because they may be indices.

    Args:
        shapes: by input; what is not there has 1 for each free dimension.

    Raises:
        BadVariant: a shape is too large.
    """
    values: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(shapes.get(spec.name, [1 if side == FREE else side for side in spec.shape]))
        size = math.prod(shape)
        if not 0 <= size <= MAX_ELEMENTS:
            raise BadVariant(f"the golden shape of {spec.name[:64]} is larger than is tried")
        if spec.dtype == "object":
            values[spec.name] = np.full(shape, "golden", object)
        elif spec.dtype.startswith("float"):
            values[spec.name] = np.linspace(0, 1, size).astype(spec.dtype).reshape(shape)
        else:
            values[spec.name] = (np.arange(size) % 2).astype(spec.dtype).reshape(shape)
    return values


def golden_answers(outputs: Mapping[str, NDArray[Any]]) -> list[card_pb2.GoldenAnswer]:
    """What a card keeps of a network's answer: of each output of numbers its range and evenly spaced values."""
    return [
        card_pb2.GoldenAnswer(output=name, low=float(value.min()), high=float(value.max()), values=_samples(value))
        for name, value in sorted(outputs.items())
        if value.size and value.dtype != object
    ]


def check_golden(
    outputs: Mapping[str, NDArray[Any]],
    answers: Sequence[card_pb2.GoldenAnswer],
    max_deviation: float = MAX_DEVIATION,
) -> None:
    """Compares what a network answers here to the golden picture with what its card says.

    Raises:
        BadVariant: an output is missing, of another size, or off by more than `max_deviation`, a share of its range.
    """
    for answer in answers:
        expected = np.array(answer.values)
        found = _samples(outputs[answer.output]) if answer.output in outputs else np.empty(0)
        if found.shape != expected.shape:
            raise BadVariant(f"the card's golden answer has another output {answer.output[:64]} than the model")
        reach = max(answer.high - answer.low, 1e-3 * max(abs(answer.low), abs(answer.high)), 1e-6)
        deviation = float(np.sqrt(np.mean((found - expected) ** 2))) / reach
        if not deviation <= max_deviation:  # NaN included
            raise BadVariant(
                f"on the golden picture the output {answer.output[:64]} is off by {deviation:.1%} of its range from "
                f"what its card says; at most {max_deviation:.0%} is allowed"
            )


def _samples(value: NDArray[Any]) -> NDArray[np.float64]:
    """Evenly spaced ones, all where there are few."""
    flat = value.ravel().astype(np.float64)
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64)] if flat.size else flat
