"""What a network answers to one fixed picture: how a runtime, or a machine, that computes something else is found out.

INT8 on a processor whose multiplications saturate, a converter with a fault, a file whose card is another's: all
of them run, and find nothing. The answer to the golden picture, as the machine that made the variant gave it, lies in
the card; who loads the variant compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lathe.errors import BadVariant
from lathe.v1 import card_pb2
from lathe_server.engines.engine import Engine

SAMPLES = 64
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


def golden_answers(engine: Engine, size_wh: tuple[int, int]) -> list[card_pb2.GoldenAnswer]:
    """What a card keeps of the network's answer: of each output its range and evenly spaced values."""
    outputs = engine.run(golden_picture(size_wh))
    return [
        card_pb2.GoldenAnswer(output=name, low=float(value.min()), high=float(value.max()), values=_samples(value))
        for name, value in sorted(outputs.items())
    ]


def check_golden(outputs: Mapping[str, NDArray[np.float32]], answers: Sequence[card_pb2.GoldenAnswer]) -> None:
    """Compares what a network answers here to the golden picture with what its card says.

    Raises:
        BadVariant: an output is missing, of another size, or off by more than `MAX_DEVIATION`.
    """
    for answer in answers:
        expected = np.array(answer.values)
        found = _samples(outputs[answer.output]) if answer.output in outputs else np.empty(0)
        if found.shape != expected.shape:
            raise BadVariant(f"the card's golden answer has another output {answer.output[:64]} than the model")
        reach = max(answer.high - answer.low, 1e-3 * max(abs(answer.low), abs(answer.high)), 1e-6)
        deviation = float(np.sqrt(np.mean((found - expected) ** 2))) / reach
        if not deviation <= MAX_DEVIATION:  # NaN included
            raise BadVariant(
                f"on the golden picture the output {answer.output[:64]} is off by {deviation:.1%} of its range from "
                f"what its card says; at most {MAX_DEVIATION:.0%} is allowed"
            )


def _samples(value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Evenly spaced ones, all where there are few."""
    flat = value.ravel().astype(np.float64)
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(np.int64)] if flat.size else flat
