"""What a teacher answers and what it has in the middle of its graph, for training: run by ONNX Runtime.

It needs two thirds of the time that torch takes, and any number of threads may ask at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from lathe.errors import BadVariant
from lathe_compression.export import to_onnx
from lathe_compression.hygiene import clean
from lathe_compression.taps import with_taps
from lathe_server.engines import OnnxRuntimeEngine

INPUT_NAME = "planes"
TOLERANCE = 1e-3


class TeacherAnswers:
    """Answers and features of one network, without gradients.

    Args:
        teacher: the network.
        taps: names of its nodes.
        outputs: whether its answers are wanted too.
        example: planes 1×3×H×W of the size that it will be asked about.

    Raises:
        BadVariant: the graph that the exporter made answers differently from the network.
    """

    def __init__(self, teacher: fx.GraphModule, taps: Sequence[str], example: Tensor, *, outputs: bool) -> None:
        network = _Flat(with_taps(teacher, taps, outputs=outputs)).eval()
        with torch.no_grad():
            expected = network(example)
        self._answers, self._taps = len(expected) - len(taps), tuple(taps)
        names = [f"output_{place}" for place in range(len(expected))]
        graph = clean(to_onnx(network, INPUT_NAME, example, names))[0]
        self._engine = OnnxRuntimeEngine(graph.SerializeToString())
        self._names = names
        for wanted, given in zip(expected, self._run(example), strict=True):
            if not torch.allclose(wanted, given, rtol=0, atol=TOLERANCE * max(1.0, float(wanted.abs().max()))):
                raise BadVariant("the teacher's exported graph does not answer as the teacher does")

    def __call__(self, planes: Tensor, taps: Sequence[str]) -> tuple[list[Tensor], list[Tensor]]:
        """Of planes N×3×H×W: the answers, and the features of some of the taps, N×…"""
        scenes = [self._run(one) for one in torch.split(planes, 1)]
        found = [torch.cat(parts) for parts in zip(*scenes, strict=True)]
        features = dict(zip(self._taps, found[self._answers :], strict=True))
        return found[: self._answers], [features[name] for name in taps]

    def _run(self, planes: Tensor) -> list[Tensor]:
        outputs = self._engine.run(np.ascontiguousarray(planes.numpy()))
        return [torch.from_numpy(outputs[name]) for name in self._names]


class _Flat(nn.Module):
    """Answers and features as one tuple."""

    def __init__(self, tapped: nn.Module) -> None:
        super().__init__()
        self.tapped = tapped

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        answers, features = self.tapped(planes)
        return (*answers, *features)
