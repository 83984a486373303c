"""A variant taken through its steps, before it is measured and published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2
from lathe_compression.arithmetic import Arithmetic, arithmetic, layer_arithmetic
from lathe_compression.plan import Task
from lathe_compression.recipe import Variant
from lathe_compression.workshop import Workshop

PRECISIONS = {
    "": "PRECISION_FP32",
    "ptq": "PRECISION_INT8",
    "qat": "PRECISION_INT8",
    "dynamic": "PRECISION_INT8",
    "fp16": "PRECISION_FP16",
}
"""Of the card, by the method of quantization."""


@dataclass(frozen=True)
class Made:
    """A finished variant before its publication.

    Attributes:
        key: of its last task; empty where it is the teacher itself.
        steps: what was done to the teacher's network, in order.
        on_the_way: the graph after each of its tasks, by the task's key.
        arithmetic: of the float network, which quantization leaves as it is.
        pictures: that it has seen.
        making: how it came about and what its layers cost, for reports.
    """

    variant: Variant
    key: str
    content: bytes
    on_the_way: Mapping[str, bytes]
    steps: tuple[str, ...]
    arithmetic: Arithmetic
    precision: card_pb2.Precision.ValueType
    pictures: UsedPictures
    making: Mapping[str, Any]


def make(variant: Variant, task: Task | None, workshop: Workshop) -> Made:
    """Takes a variant through its steps."""
    quantized = task if task and task.step.quantize else None
    network_task = quantized.parent if quantized else task
    graph, hygiene = workshop.float_graph(network_task)
    cost = arithmetic(graph, workshop.serving_size)
    chain = task.chain if task else []
    sentences = [sentence for one in chain for sentence in workshop.facts(one)["sentences"]]
    method = quantized.step.quantize.method if quantized and quantized.step.quantize else ""
    final = workshop.quantized_graph(quantized) if quantized else graph
    content = final.SerializeToString(deterministic=True)
    on_the_way = {one.key: workshop.float_graph(one)[0].SerializeToString(deterministic=True) for one in chain[:-1]}
    key = task.key if task else ""
    return Made(
        variant,
        key,
        content,
        on_the_way | {key: content},
        (hygiene, *sentences),
        cost,
        card_pb2.Precision.Value(PRECISIONS[method]),
        workshop.used_pictures(task),
        {
            "steps": [
                {"key": one.key, "name": one.name, "kind": one.step.kind, **workshop.facts(one)} for one in chain
            ],
            "layers": [asdict(layer) for layer in layer_arithmetic(final, workshop.serving_size)],
        },
    )
