"""An ONNX file as a torch module that can be pruned, trained and exported again.

The result is a `torch.fx.GraphModule`: a flat list of named layers and the calls between them, so
that every later step can read the graph as data. Supported operators: the keys of `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from lathe.errors import BadVariant, NotFound


@dataclass(frozen=True)
class Layer:
    """One ONNX node while it is translated.

    Attributes:
        attributes: by name.
        weights: the node's constant inputs by position.
    """

    name: str
    op: str
    attributes: Mapping[str, Any]
    weights: Mapping[int, Tensor]

    def get(self, attribute: str, default: Any) -> Any:
        return self.attributes.get(attribute, default)

    def weight(self, place: int) -> Tensor:
        """A constant input.

        Raises:
            BadVariant: it is computed by other nodes.
        """
        if place not in self.weights:
            raise BadVariant(f"{self.op} takes computed weights; the importer knows constant ones only")
        return self.weights[place]


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
    unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
    if unknown:
        raise BadVariant(
            f"{path.name} uses {', '.join(unknown)}, which the importer does not know "
            f"(it knows {', '.join(sorted(OPERATORS))}); give the model as `package.module:factory`"
        )
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
        if len(node.output) > 1:
            raise BadVariant(f"{node.op_type} with {len(node.output)} outputs is not supported; the importer takes one")
        layer = Layer(
            f"{node.op_type.lower()}_{position}",
            node.op_type,
            {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute},
            {place: constants[name] for place, name in enumerate(node.input) if name in constants},
        )
        translated = OPERATORS[layer.op](layer)
        if isinstance(translated, nn.Module):  # holds its weights itself
            root.add_module(layer.name, translated)
            values[node.output[0]] = traced.call_module(layer.name, (argument(node.input[0]),))
        else:
            values[node.output[0]] = _call(traced, translated, layer, [argument(name) for name in node.input])
    outputs = tuple(argument(value.name) for value in graph.output)
    traced.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(root, traced, class_name=_identifier(path.stem)).eval()


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name) or "input"


def _call(traced: fx.Graph, function: Callable[..., Any], layer: Layer, arguments: list[fx.Node]) -> fx.Node:
    if layer.op == "Concat":
        return traced.call_function(function, (arguments,), {"dim": layer.get("axis", 1)})
    return traced.call_function(function, tuple(arguments))


def _padding(layer: Layer) -> tuple[int, int]:
    """Symmetric padding, which is all that torch's layers have.

    Raises:
        BadVariant: the padding differs between two opposite sides, or is automatic.
    """
    if layer.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise BadVariant(f"{layer.op} with auto_pad is not supported; export with explicit pads")
    if len(layer.get("pads", (0, 0, 0, 0))) != 4:
        raise BadVariant(f"{layer.op} over other than height and width is not supported")
    top, left, bottom, right = layer.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise BadVariant(f"{layer.op} with uneven pads is not supported; put a Pad before it in the model")
    return top, left


def _convolution(layer: Layer) -> nn.Module:
    weight, bias = layer.weight(1), layer.weights.get(2)
    if weight.dim() != 4:
        raise BadVariant(f"{layer.op} over other than height and width is not supported")
    if "output_shape" in layer.attributes:
        raise BadVariant(f"{layer.op} with output_shape is not supported; export with explicit pads")
    groups = layer.get("group", 1)
    transposed = layer.op == "ConvTranspose"
    channels_in, channels_out = (
        (weight.shape[0], weight.shape[1] * groups) if transposed else (weight.shape[1] * groups, weight.shape[0])
    )
    kind: Any = nn.ConvTranspose2d if transposed else nn.Conv2d
    extra = {"output_padding": tuple(layer.get("output_padding", (0, 0)))} if transposed else {}
    module: nn.Conv2d | nn.ConvTranspose2d = kind(
        channels_in,
        channels_out,
        tuple(weight.shape[2:]),
        stride=tuple(layer.get("strides", (1, 1))),
        padding=_padding(layer),
        dilation=tuple(layer.get("dilations", (1, 1))),
        groups=groups,
        bias=bias is not None,
        **extra,
    )
    module.weight.data = weight
    if bias is not None and module.bias is not None:
        module.bias.data = bias
    return module


def _batch_norm(layer: Layer) -> nn.Module:
    scale, shift, mean, variance = (layer.weight(place) for place in range(1, 5))
    module = nn.BatchNorm2d(len(scale), eps=layer.get("epsilon", 1e-5))
    module.weight.data, module.bias.data = scale, shift
    module.running_mean, module.running_var = mean, variance
    return module


def _prelu(layer: Layer) -> nn.Module:
    slope = layer.weight(1).reshape(-1)
    module = nn.PReLU(len(slope))
    module.weight.data = slope
    return module


def _max_pool(layer: Layer) -> nn.Module:
    return nn.MaxPool2d(
        tuple(layer.attributes["kernel_shape"]),
        stride=tuple(layer.get("strides", (1, 1))),
        padding=_padding(layer),
        dilation=tuple(layer.get("dilations", (1, 1))),
        ceil_mode=bool(layer.get("ceil_mode", 0)),
    )


OPERATORS: Mapping[str, Callable[[Layer], nn.Module | Callable[..., Any]]] = {
    "Add": lambda layer: torch.add,
    "BatchNormalization": _batch_norm,
    "Concat": lambda layer: torch.cat,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "GlobalAveragePool": lambda layer: nn.AdaptiveAvgPool2d(1),
    "Identity": lambda layer: nn.Identity(),
    "LeakyRelu": lambda layer: nn.LeakyReLU(layer.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Mul": lambda layer: torch.mul,
    "PRelu": _prelu,
    "Relu": lambda layer: nn.ReLU(),
    "Sigmoid": lambda layer: nn.Sigmoid(),
}
