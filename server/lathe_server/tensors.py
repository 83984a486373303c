"""Named tensors in, named tensors out: what a network takes and gives, without pictures around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import BadVariant, InvalidInput
from lathe_server.engines import FREE, Engine, TensorSpec
from lathe_server.vision.detector import Stages

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""NumPy's name of each datatype of the Open Inference Protocol that is served; elements of BYTES are bytes or texts."""
DATATYPES: Mapping[str, str] = {dtype: datatype for datatype, dtype in DTYPES.items()}
_DATATYPES_OF = {np.dtype(dtype): datatype for dtype, datatype in DATATYPES.items()}


class NetworkFails(InvalidInput):
    """A network breaks on inputs that are what it asks for, as far as it tells: the caller's fault or its own."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a call asks of a network.

    Attributes:
        inputs: by name.
        outputs: names of those that are wanted; none means all.
    """

    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """Attributes:
    outputs: by name, in the order in which they were asked for.
    """

    outputs: Mapping[str, NDArray[Any]]
    stages: Stages


def infer(engine: Engine, asked: Tensors, before_infer: Callable[[], None] = lambda: None) -> TensorAnswer:
    """Runs a network on what a call brings.

    Args:
        before_infer: called when the network could run; what it raises ends the work there.

    Raises:
        InvalidInput: names, types or shapes are not the network's, or a number is not finite.
        NetworkFails: it cannot run on them.
    """
    began = perf_counter()
    _check_inputs(engine.inputs, asked.inputs)
    inputs = {name: _text(value) if value.dtype == object else value for name, value in asked.inputs.items()}
    names = asked.outputs or tuple(spec.name for spec in engine.outputs)
    if unknown := set(names) - {spec.name for spec in engine.outputs}:
        raise InvalidInput(f"the model has no output {min(unknown)[:64]}; it has {_names(engine.outputs)}")
    before_infer()
    checked = perf_counter()
    try:
        outputs = engine.infer(inputs)
    except MemoryError:
        raise
    except Exception as error:  # runtimes raise what they like when dimensions do not go together
        raise NetworkFails("the model fails on inputs of these shapes and values", detail=str(error)) from error
    done = perf_counter()
    return TensorAnswer({name: outputs[name] for name in names}, Stages(0.0, checked - began, done - checked, 0.0))


def _check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[Any]]) -> None:
    if inputs.keys() != {spec.name for spec in specs}:
        raise InvalidInput(f"the model takes the inputs {_names(specs)}, each once")
    for spec in specs:
        value = inputs[spec.name]
        if (told := datatype_of(value)) != DATATYPES[spec.dtype]:
            raise InvalidInput(f"the input {spec.name} is {DATATYPES[spec.dtype]}, not {told}")
        if len(value.shape) != len(spec.shape) or any(
            wanted not in (FREE, side) for wanted, side in zip(spec.shape, value.shape, strict=True)
        ):
            raise InvalidInput(f"the input {spec.name} has the shape {list(spec.shape)}, not {list(value.shape)}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InvalidInput(f"the input {spec.name} holds NaN or infinity")


def _text(elements: NDArray[Any]) -> NDArray[Any]:
    """Runtimes take texts, the protocol brings their bytes."""
    try:
        texts = [one if isinstance(one, str) else one.decode() for one in elements.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInput("a text is not UTF-8") from error
    return np.array(texts, object).reshape(elements.shape)


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


def datatype_of(value: NDArray[Any]) -> str:
    """By the protocol's name; NumPy's own, `dtype.name`, is made anew at each look."""
    return _DATATYPES_OF[value.dtype]


def check_types(engine: Engine) -> None:
    """Looks at what a network takes and gives.

    Raises:
        BadVariant: a type that the protocol does not carry.
    """
    for spec in (*engine.inputs, *engine.outputs):
        if spec.dtype not in DATATYPES:
            raise BadVariant(f"the tensor {spec.name[:64]} has the type {spec.dtype[:64]}, which is not served")
