"""An ONNX file as a torch module that can be pruned, trained and exported again.

The result is a `torch.fx.GraphModule`: a flat list of named layers and the calls between them, so
that every later step can read the graph as data. Supported operators: the keys of `OPERATORS`.
"""

from __future__ import annotations

import operator
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from lathe.errors import BadVariant, NotFound
from lathe_compression.hygiene import fold_constants
from lathe_compression.onnx_operators import FOREIGN, OPERATORS, SEVERAL_OUTPUTS, Call, Layer, remedy
from lathe_compression.wiring import attributes

__all__ = ["OPERATORS", "import_onnx"]


def import_onnx(path: Path) -> fx.GraphModule:
    """Reads an ONNX file as an eval'd module that equals it to rounding.

    Input and output shapes that the file declares are ignored: the module takes any size that its
    layers take. Outputs come as a tuple in the file's order (one output: as it is).

    Raises:
        NotFound: there is no such file.
        BadVariant: not ONNX, or an operator or a form of it that the importer does not know.
    """
    if not path.is_file():
        raise NotFound(f"there is no ONNX file {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's errors share no base class
        raise BadVariant(f"{path.name} is not a valid ONNX file", detail=str(error)) from error
    graph = model.graph
    fold_constants(model)
    _refuse_unknown(graph, path.name)
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    root = nn.Module()
    traced = fx.Graph()
    values: dict[str, fx.Node] = {
        value.name: traced.placeholder(_identifier(value.name)) for value in graph.input if value.name not in constants
    }

    def argument(name: str) -> fx.Node:
        if name not in values:
            buffer = f"constant_{len(values)}"
            root.register_buffer(buffer, constants[name])
            values[name] = traced.get_attr(buffer)
        return values[name]

    for position, node in enumerate(graph.node):
        if len(node.output) > 1 and node.op_type not in SEVERAL_OUTPUTS:
            raise BadVariant(f"{node.op_type} with {len(node.output)} outputs is not supported; the importer takes one")
        layer = Layer(
            f"{node.op_type.lower()}_{position}",
            node.op_type,
            attributes(node),
            {place: constants[name] for place, name in enumerate(node.input) if name in constants},
            frozenset(place for place, name in enumerate(node.input) if name),
            len(node.output),
        )
        translated = OPERATORS[layer.op](layer)
        if isinstance(translated, nn.Module):  # holds its weights itself
            root.add_module(layer.name, translated)
            given = traced.call_module(layer.name, (argument(node.input[0]),))
        else:
            given = _call(traced, translated, [argument(name) for name in node.input[: translated.takes]])
        if node.op_type in SEVERAL_OUTPUTS:
            values |= {
                name: traced.call_function(operator.getitem, (given, place)) for place, name in enumerate(node.output)
            }
        else:
            values[node.output[0]] = given
    outputs = tuple(argument(value.name) for value in graph.output)
    traced.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(root, traced, class_name=_identifier(path.stem)).eval()


def _refuse_unknown(graph: onnx.GraphProto, file: str) -> None:
    """Raises:
    BadVariant: an operator that is not in the table; says what to do about each.
    """
    told: dict[str, list[str]] = {}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            told.setdefault(FOREIGN, []).append(f"{node.domain}.{node.op_type}")
        elif node.op_type not in OPERATORS:
            told.setdefault(remedy(node.op_type), []).append(node.op_type)
    if told:
        named = "; and ".join(
            f"uses {', '.join(sorted(set(kinds)))}, which the importer does not know: {what}"
            for what, kinds in told.items()
        )
        raise BadVariant(f"{file} {named} (the importer knows {', '.join(sorted(OPERATORS))})")


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name) or "input"


def _call(traced: fx.Graph, call: Call, arguments: list[fx.Node]) -> fx.Node:
    if call.listed:
        return traced.call_function(call.function, (arguments,), dict(call.settings))
    return traced.call_function(call.function, (*arguments, *call.places), dict(call.settings))
