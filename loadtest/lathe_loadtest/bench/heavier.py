"""A network with more work in it and the same answers: a variant that is slower by a known part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lathe.repository import Repository
from lathe_loadtest.bench.rig import MODEL, Raw, Rig

TRY_CHANNELS, TRIES = 64, 3


def publish_heavier(
    rig: Rig, root: Path, variant: str, name: str, figure: Callable[[Raw], float], target: Callable[[float], float]
) -> None:
    """Publishes a variant with as much more work in it as brings a figure to its target.

    Args:
        figure: of the bare loop, such as the network's time.
        target: of the figure, from that of the variant itself.
    """
    repository = Repository(root)
    ref = repository.newest(MODEL, variant)
    plain = repository.model_bytes(ref)

    def publish(channels: int) -> None:
        card = repository.card(ref)
        card.variant, card.recommended = name, False
        del card.latency[:], card.quality[:]
        repository.publish(card, heavier(plain, channels))

    publish(TRY_CHANNELS)
    pairs = [(figure(rig.raw(variant)), figure(rig.raw(name))) for _ in range(TRIES)]
    now = median(one for one, _ in pairs)
    gained = median(other - one for one, other in pairs)
    publish(max(1, round(TRY_CHANNELS * (target(now) - now) / gained)))


def heavier(model: bytes, channels: int) -> bytes:
    """Adds a branch of two convolutions whose result counts nothing.

    Args:
        model: an ONNX file whose input is N × H × W × 3 uint8 and whose output `heatmap` has a quarter of its size.
        channels: of the branch; how much work it is.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.load_from_string(model)
    image = graph.graph.input[0].name
    for node in graph.graph.node:
        for number, name in enumerate(node.output):
            if name == "heatmap":
                node.output[number] = "heatmap_alone"
    random = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "more_in": random.normal(0, 0.01, (channels, 3, 4, 4)),
        "more_out": random.normal(0, 0.01, (1, channels, 3, 3)),
        "more_nothing": np.zeros(1),
    }
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()
    )
    graph.graph.node.extend(
        [
            helper.make_node("Transpose", [image], ["more_planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["more_planes"], ["more_float"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["more_float", "more_in"], ["more_wide"], strides=[4, 4]),
            helper.make_node("Conv", ["more_wide", "more_out"], ["more_one"], pads=[1, 1, 1, 1]),
            helper.make_node("Mul", ["more_one", "more_nothing"], ["more_zero"]),
            helper.make_node("Add", ["heatmap_alone", "more_zero"], ["heatmap"]),
        ]
    )
    return bytes(graph.SerializeToString())
