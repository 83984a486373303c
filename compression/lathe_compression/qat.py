"""Quantization-aware training: the network learns with the roundings that INT8 will make.

Fake quantizers stand in the graph where ONNX Runtime's INT8 kernels hand on bytes. Once trained, the graph
is exported with them, each one is read off as the range of its tensor, and taken out again: so there is one
way to an INT8 file, and training only says with which weights and ranges it is gone.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lathe_compression.fake_quantize import (
    LEVELS,
    FakeQuantize,
    FakeQuantizedConv2d,
    FakeQuantizedConvTranspose2d,
    RoundedWeights,
    WeightGrid,
)
from lathe_compression.ranges import BINS
from lathe_compression.taps import ADDITIONS, CONVOLUTIONS

FUSED_ACTIVATIONS = (nn.ReLU,)
"""Activations that INT8 convolutions do themselves: nothing is rounded before them."""
PREFIX = "rounded_"
ROUNDED_TOLERANCE = 0.1
"""A value on the border between two steps of the grid may fall on either side in another runtime."""


def prepare(network: fx.GraphModule, grid: WeightGrid = WeightGrid()) -> fx.GraphModule:  # noqa: B008
    """A copy with batch norms folded and fake quantizers in place, observing.

    Rounded are what convolutions, sums and activations give, as far as a convolution is still to come: what
    only the outputs are made of stays exact.
    """
    folded = copy.deepcopy(network).eval()
    _fold_norms(folded)
    modules = dict(folded.named_modules())
    for name, module in modules.items():
        if type(module) is nn.Conv2d:
            folded.set_submodule(name, FakeQuantizedConv2d.of(module, grid))
        elif FakeQuantizedConvTranspose2d.suits(module):
            folded.set_submodule(name, FakeQuantizedConvTranspose2d.of(module, grid))
    for node in list(folded.graph.nodes):
        if _is_rounded(node, modules) and _leads_to_convolution(node, modules):
            name = PREFIX + node.name
            folded.add_module(name, FakeQuantize())
            with folded.graph.inserting_after(node):
                rounded = folded.graph.call_module(name, (node,))
            for user in [user for user in node.users if user is not rounded and user.op != "output"]:
                user.replace_input_with(node, rounded)
    folded.recompile()
    return folded


def observe(network: fx.GraphModule, batches: Callable[[], Iterable[Tensor]], percentile: float = 100.0) -> None:
    """Sets every range to what the batches (N×3×H×W) reach, and starts rounding.

    Args:
        batches: gives them anew at each call.
        percentile: the share of values that a range holds, in per cent.
    """
    rounded = [module for module in network.modules() if isinstance(module, FakeQuantize)]

    def show() -> None:
        with torch.no_grad():
            for planes in batches():
                network(planes)

    network.eval()
    show()
    for module in rounded:
        module.observing = False
    if percentile < 100:
        for module in rounded:
            module.counts = np.zeros(BINS, np.int64)
        show()
        for module in rounded:
            module.narrow(percentile)


def ready_to_export(network: fx.GraphModule) -> fx.GraphModule:
    """Ranges as constants; weights as they are, since quantization rounds them the same way once more."""
    for module in network.modules():
        if isinstance(module, FakeQuantize):
            module.fixed = True
        if isinstance(module, RoundedWeights):
            module.exact = True
    return network


def take_ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Takes the fake quantizers out of an exported graph, in place.

    Returns:
        Low and high end of each tensor's range, by the tensor's name.
    """
    graph = model.graph
    constants = _constants(graph)
    dequantizers = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    ranges: dict[str, tuple[float, float]] = {}
    renamed: dict[str, str] = {}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.output[0] not in dequantizers:
            continue
        scale, zero_point = (float(constants[name]) for name in node.input[1:3])
        ranges[node.input[0]] = ((0 - zero_point) * scale, (LEVELS - zero_point) * scale)
        renamed[dequantizers[node.output[0]].output[0]] = node.input[0]
        gone += [node, dequantizers[node.output[0]]]
    for node in gone:
        graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    _drop_unused(graph)
    return ranges


def _fold_norms(network: fx.GraphModule) -> None:
    """Makes one layer of each convolution and the batch norm behind it, in place, under the norm's name: a block
    that ended in the norm ends there still."""
    modules = dict(network.named_modules())
    calls = Counter(str(node.target) for node in network.graph.nodes)
    for norm in list(network.graph.nodes):
        before = norm.all_input_nodes[0] if norm.op == "call_module" and norm.all_input_nodes else None
        layer, own = (modules.get(str(node.target)) if node is not None else None for node in (before, norm))
        if before is None or layer is None or not isinstance(own, nn.BatchNorm2d) or before.op != "call_module":
            continue
        foldable = type(layer) is nn.Conv2d or (type(layer) is nn.ConvTranspose2d and layer.groups == 1)
        if not foldable or len(before.users) > 1 or calls[str(before.target)] > 1 or calls[str(norm.target)] > 1:
            continue
        transposed = isinstance(layer, nn.ConvTranspose2d)
        network.set_submodule(str(before.target), fuse_conv_bn_eval(layer, own, transposed))
        name = norm.name
        norm.replace_all_uses_with(before)
        network.graph.erase_node(norm)
        before.name = name
    network.delete_all_unused_submodules()
    network.recompile()


def _is_rounded(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_function":
        return node.target in ADDITIONS
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if module is None or isinstance(module, nn.Identity):
        return False
    following = [modules.get(str(user.target)) if user.op == "call_module" else None for user in node.users]
    return not all(isinstance(one, (*FUSED_ACTIVATIONS, nn.BatchNorm2d)) for one in following)


def _leads_to_convolution(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    waiting, seen = list(node.users), set()
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.op == "call_module" and isinstance(modules.get(str(user.target)), CONVOLUTIONS):
            return True
        waiting += list(user.users)
    return False


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Constants that nothing reads any more."""
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] not in used]:
        graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
