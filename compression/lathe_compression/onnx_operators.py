"""What each ONNX operator is in torch, and what to do about those that are not here."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lathe.errors import BadVariant

ONNX_END = (1 << 31) - 1
"""Exporters write this, or more, for a slice that goes on to the end."""


@dataclass(frozen=True)
class Layer:
    """One ONNX node while it is translated.

    Attributes:
        attributes: by name.
        weights: the node's constant inputs by position.
        given: places of all inputs that are not left out.
        outputs: how many there are.
    """

    name: str
    op: str
    attributes: Mapping[str, Any]
    weights: Mapping[int, Tensor]
    given: frozenset[int]
    outputs: int = 1

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

    def setting(self, attribute: str, place: int) -> Any:
        """What older operator sets have as an attribute, and newer ones as a constant input; None if neither is there.

        Raises:
            BadVariant: it is computed by other nodes.
        """
        if attribute in self.attributes:
            return self.attributes[attribute]
        if place in self.weights:
            return self.weights[place].tolist()
        if place in self.given:
            raise BadVariant(f"{self.op} takes {attribute} from other nodes; export with a constant there")
        return None


@dataclass(frozen=True)
class Call:
    """A function to call.

    Attributes:
        takes: how many of the inputs, from the first; all where it is None.
        listed: the inputs are one list.
        places: constants that follow the inputs.
        settings: constants, by keyword.
    """

    function: Callable[..., Any]
    takes: int | None = None
    listed: bool = False
    places: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


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


def _average_pool(layer: Layer) -> nn.Module:
    if set(layer.get("dilations", (1, 1))) != {1}:
        raise BadVariant("AveragePool with dilations is not supported")
    return nn.AvgPool2d(
        tuple(layer.attributes["kernel_shape"]),
        stride=tuple(layer.get("strides", (1, 1))),
        padding=_padding(layer),
        ceil_mode=bool(layer.get("ceil_mode", 0)),
        count_include_pad=bool(layer.get("count_include_pad", 0)),
    )


def _clip(layer: Layer) -> nn.Module | Call:
    low, high = layer.setting("min", 1), layer.setting("max", 2)
    if (low, high) == (0, 6):
        return nn.ReLU6()
    if low is None and high is None:
        return nn.Identity()
    return Call(torch.clamp, 1, settings={"min": low, "max": high})


def _concat(layer: Layer) -> Call:
    return Call(torch.cat, listed=True, settings={"dim": layer.attributes["axis"]})


def _flatten(layer: Layer) -> nn.Module:
    if layer.get("axis", 1) != 1:
        raise BadVariant("Flatten other than from axis 1 is not supported; write it as Reshape in the model")
    return nn.Flatten(1)


def _gemm(layer: Layer) -> nn.Module:
    if layer.get("transA", 0):
        raise BadVariant("Gemm with a transposed input is not supported; put a Transpose before it in the model")
    weight = layer.weight(1) if layer.get("transB", 0) else layer.weight(1).t()
    bias = layer.weight(2) * layer.get("beta", 1.0) if 2 in layer.given else None
    return _linear(weight * layer.get("alpha", 1.0), bias)


def _hard_sigmoid(layer: Layer) -> nn.Module | Call:
    slope, middle = layer.get("alpha", 0.2), layer.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and middle == 0.5:
        return nn.Hardsigmoid()
    return Call(hard_sigmoid, settings={"slope": slope, "middle": middle})


def hard_sigmoid(value: Tensor, slope: float, middle: float) -> Tensor:
    return (value * slope + middle).clamp(0, 1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    module.weight.data = weight.contiguous()
    if bias is not None:
        module.bias.data = bias.expand(weight.shape[0]).contiguous()
    return module


def _matrix_product(layer: Layer) -> nn.Module:
    if 0 in layer.weights or layer.weight(1).dim() != 2:
        raise BadVariant("MatMul is supported with a constant matrix on its right alone")
    return _linear(layer.weight(1).t(), None)


def _mean(layer: Layer) -> Call:
    axes = layer.setting("axes", 1)
    if not axes:
        raise BadVariant("ReduceMean over all axes is not supported; name the axes in the model")
    return Call(torch.mean, 1, settings={"dim": tuple(axes), "keepdim": bool(layer.get("keepdims", 1))})


def _pad(layer: Layer) -> Call:
    pads, mode = layer.setting("pads", 1), layer.get("mode", b"constant").decode()
    kinds = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    if 3 in layer.given or mode not in kinds:
        raise BadVariant("Pad with axes, or by wrapping, is not supported; pad all sides, by a constant or the edge")
    half = len(pads) // 2
    pairs = list(zip(pads[:half], pads[half:], strict=True))
    if mode != "constant":  # torch fills height and width alone with what is in the picture
        if any(pairs[0] + pairs[1]):
            raise BadVariant(f"Pad of batch or channels by {mode} is not supported")
        pairs = pairs[2:]
    settings: dict[str, Any] = {"pad": tuple(side for pair in reversed(pairs) for side in pair), "mode": kinds[mode]}
    if mode == "constant":
        settings["value"] = layer.setting("value", 2) or 0.0
    return Call(functional.pad, 1, settings=settings)


def _permute(layer: Layer) -> Call:
    if "perm" not in layer.attributes:
        raise BadVariant("Transpose without perm is not supported; name the order of the axes in the model")
    return Call(torch.permute, settings={"dims": tuple(layer.attributes["perm"])})


def _reshape(layer: Layer) -> Call:
    shape = tuple(layer.setting("shape", 1))
    if 0 not in shape or layer.get("allowzero", 0):
        return Call(torch.reshape, 1, settings={"shape": shape})
    return Call(reshape_keeping, 1, settings={"shape": shape})


def reshape_keeping(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshapes; a side of 0 stays as long as it is."""
    return value.reshape([side or value.shape[place] for place, side in enumerate(shape)])


def _resize(layer: Layer) -> nn.Module:
    other = "export with interpolate(scale_factor=2.0, mode='nearest')"
    if 3 in layer.given or layer.get("mode", b"nearest") != b"nearest":
        raise BadVariant(f"Resize to fixed sizes, or other than to the nearest, is not supported; {other}")
    scales = layer.setting("scales", 2 if 2 in layer.given else 1)
    factors = [round(scale) for scale in scales]
    how = (layer.get("coordinate_transformation_mode", b"half_pixel"), layer.get("nearest_mode", b"round_prefer_floor"))
    same = how == (b"asymmetric", b"floor") or (
        how[0] in (b"half_pixel", b"pytorch_half_pixel") and how[1] in (b"round_prefer_floor", b"round_prefer_ceil")
    )
    twice = how == (b"asymmetric", b"round_prefer_floor") and max(factors) <= 2
    if factors != scales or factors[:2] != [1, 1] or len(factors) != 4 or not (same or twice):
        raise BadVariant(f"Resize other than by whole factors of height and width is not supported; {other}")
    return nn.Upsample(scale_factor=(float(factors[2]), float(factors[3])), mode="nearest")


def _slice(layer: Layer) -> Call:
    starts, ends = layer.setting("starts", 1), layer.setting("ends", 2)
    axes = layer.setting("axes", 3) or list(range(len(starts)))
    steps = layer.setting("steps", 4) or [1] * len(starts)
    if min(axes) < 0 or min(steps) < 1:
        raise BadVariant("Slice backwards, or of axes counted from the end, is not supported")
    kept = [slice(None)] * (max(axes) + 1)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        kept[axis] = slice(start, None if end >= ONNX_END else end, step)
    return Call(operator.getitem, 1, places=(tuple(kept),))


def _split(layer: Layer) -> Call:
    sizes, axis = layer.setting("split", 1), layer.get("axis", 0)
    if sizes is None:
        return Call(torch.chunk, settings={"chunks": layer.outputs, "dim": axis})
    return Call(torch.split, 1, settings={"split_size_or_sections": list(sizes), "dim": axis})


OPERATORS: Mapping[str, Callable[[Layer], nn.Module | Call]] = {
    "Add": lambda layer: Call(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Div": lambda layer: Call(torch.div),
    "Exp": lambda layer: Call(torch.exp),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda layer: nn.AdaptiveAvgPool2d(1),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda layer: nn.Hardswish(),
    "Identity": lambda layer: nn.Identity(),
    "LeakyRelu": lambda layer: nn.LeakyReLU(layer.get("alpha", 0.01)),
    "MatMul": _matrix_product,
    "MaxPool": _max_pool,
    "Mul": lambda layer: Call(torch.mul),
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": lambda layer: nn.ReLU(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda layer: nn.Sigmoid(),
    "Slice": _slice,
    "Split": _split,
    "Sub": lambda layer: Call(torch.sub),
    "Transpose": _permute,
}

SEVERAL_OUTPUTS = ("Split",)
"""Operators whose further outputs are read."""

FOREIGN = "export with operators of the ONNX standard alone"
_FACTORY = "give the model as `package.module:factory`"
_REMEDIES: Mapping[str, tuple[str, ...]] = {
    "let the file end before it: the server itself sorts and suppresses boxes": ("NonMaxSuppression", "TopK"),
    "give the model before quantization": (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
        *("ConvInteger", "MatMulInteger"),
    ),
    "let the file start with float planes, batch × 3 × height × width": ("Cast",),
    f"it computes with sizes: export with constant ones and without the decoding of boxes, or {_FACTORY}": (
        *("Shape", "Size", "ConstantOfShape", "Range", "CumSum", "Expand", "Tile", "Gather", "GatherND", "ScatterND"),
        *("Where", "NonZero", "Squeeze", "Unsqueeze", "Constant"),
    ),
    f"it branches: export by tracing, or {_FACTORY}": ("If", "Loop", "Scan"),
    "export with operator set 11 or later, which writes it as Resize": ("Upsample",),
}


def remedy(kind: str) -> str:
    """What to do about an operator that the importer does not know."""
    return next((told for told, kinds in _REMEDIES.items() if kind in kinds), _FACTORY)
