"""The card of a network of tensors that somebody brings as an ONNX file, tried before it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lathe.errors import BadVariant, InvalidInput
from lathe.v1 import card_pb2
from lathe_server.engines import default_engine
from lathe_server.engines.golden import golden_answers, golden_tensors
from lathe_server.onnx_file import check_file
from lathe_server.tensors import Tensors, check_types, infer

NO_SIZE = (0, 0)


def tensor_card(
    model: str, variant: str, content: bytes, shapes: Mapping[str, Sequence[int]], source: str
) -> card_pb2.Card:
    """Runs the network once on inputs that are the same on every machine, and keeps what it answers.

    Args:
        content: the ONNX file.
        shapes: of inputs with free dimensions, by name; 1 is taken for each otherwise.
        source: where the file comes from, in a word.

    Raises:
        BadVariant: it cannot be served.
        InvalidInput: the network does not run on inputs of these shapes.
    """
    check_file(content)
    engine = default_engine(content, NO_SIZE)
    check_types(engine)
    if unknown := shapes.keys() - {spec.name for spec in engine.inputs}:
        raise InvalidInput(f"the model has no input {min(unknown)}")
    inputs = golden_tensors(engine.inputs, shapes)
    answer = infer(engine, Tensors(inputs))
    if not answer.outputs:
        raise BadVariant("the model has no outputs")
    for name, value in answer.outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise BadVariant(f"the output {name[:64]} holds NaN or infinity on the inputs that it is tried with")
    return card_pb2.Card(
        model=model,
        variant=variant,
        task=card_pb2.TASK_TENSORS,
        lineage=card_pb2.Lineage(teacher=source, steps=["as it came"], made_with=[engine.runtime]),
        golden=golden_answers(answer.outputs),
        golden_shapes=[card_pb2.TensorShape(input=name, dims=value.shape) for name, value in inputs.items()],
    )
