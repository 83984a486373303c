"""A torch module as an ONNX file that takes camera pixels as they are.

The graph's input is uint8, batch × height × width × RGB; casting, transposing and normalising are
nodes of the graph. So the server copies pixels and nothing else, and no client can normalise wrongly.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from lathe.errors import BadVariant

INPUT_NAME = "pixels"
OPSET = 17
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Normalisation:
    """(pixel − mean) / std, channel by channel (R, G, B), on pixels of 0 to 255."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def is_identity(self) -> bool:
        return not any(self.mean) and all(std == 1.0 for std in self.std)

    def apply(self, planes: Tensor) -> Tensor:
        """What the network sees of planes N×3×H×W of 0 to 255."""
        if self.is_identity:
            return planes
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return (planes - mean) / std


class PixelInput(nn.Module):
    """A network behind its own preprocessing: uint8 N×H×W×3 in, the network's outputs out."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.identity = normalisation.is_identity
        self.register_buffer("mean", torch.tensor(normalisation.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        planes = pixels.permute(0, 3, 1, 2).float()
        if not self.identity:
            planes = (planes - self.mean) / self.std
        outputs: Tensor | tuple[Tensor, ...] = self.network(planes)
        return outputs


def export(
    network: nn.Module,
    normalisation: Normalisation,
    output_names: Sequence[str],
    size_multiple: int,
    tolerance: float = TOLERANCE,
    fixed_wh: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """Exports a network with batch, height and width free, and checks the file against it.

    Args:
        fixed_wh: width and height of the only input that the network takes: then the batch alone is free.
        tolerance: largest difference allowed, as a share of the output's largest value where that is above 1.

    Raises:
        BadVariant: the network gives another number of outputs than there are names, or the
            exported graph differs from it by more than allowed.
    """
    twin = PixelInput(network, normalisation).eval()
    example = _noise(*(fixed_wh[::-1] if fixed_wh else (2 * size_multiple, 3 * size_multiple)))
    with torch.no_grad():
        expected = _as_tuple(twin(torch.from_numpy(example)))
    if len(expected) != len(output_names):
        raise BadVariant(f"the network has {len(expected)} outputs, and {len(output_names)} names are given for them")
    # Of outputs that are maps the sizes are free, of lists only what the exporter itself finds to be.
    free = {
        name: {0: "batch", 2: "rows", 3: "columns"} if value.dim() == 4 else {0: "batch"}
        for name, value in zip(output_names, expected, strict=True)
    }
    free[INPUT_NAME] = {0: "batch"} if fixed_wh else {0: "batch", 1: "height", 2: "width"}
    model = to_onnx(twin, INPUT_NAME, torch.from_numpy(example), output_names, free)
    # Another size than the traced one, or another batch, so that one that is frozen into the graph shows.
    check = _noise(*fixed_wh[::-1], batch=2) if fixed_wh else _noise(3 * size_multiple, 2 * size_multiple)
    with torch.no_grad():
        expected = _as_tuple(twin(torch.from_numpy(check)))
    options = onnxruntime.SessionOptions()
    # What the file says is checked, not what becomes of it: the optimiser rounds weights between quantizers.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, reference, value in zip(output_names, expected, session.run(None, {INPUT_NAME: check}), strict=True):
        difference = float(np.abs(reference.numpy() - value).max())
        allowed = tolerance * max(1.0, float(reference.abs().max()))
        if not difference <= allowed:
            raise BadVariant(
                f"the exported graph differs from the network by {difference:.2g} in output {name}; "
                f"{allowed:.2g} is allowed"
            )
    return model


def to_onnx(
    network: nn.Module,
    input_name: str,
    example: Tensor,
    output_names: Sequence[str],
    free: Mapping[str, Mapping[int, str]] | None = None,
) -> onnx.ModelProto:
    """The graph of a network with one input.

    Args:
        free: dimensions that may be of any size, by the name of the input or output.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            buffer,  # type: ignore[arg-type]  # takes a file too, as its documentation says
            input_names=[input_name],
            output_names=list(output_names),
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model


def _noise(height: int, width: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
