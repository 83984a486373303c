"""What a student finds while it still learns, against what its teacher finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lathe.agreement import AgreementSamples
from lathe.detections import Detections
from lathe_server.vision import suppress
from lathe_server.vision.decoders import DECODERS
from lathe_server.vision.detections import Thresholds


class Watch:
    """Looks at the same scenes again and again.

    Args:
        names: of the networks' outputs, in order.
        decoder: of these outputs.
        probe: batches N×3×H×W.
    """

    def __init__(
        self, teacher: nn.Module, names: Sequence[str], decoder: str, thresholds: Thresholds, probe: Sequence[Tensor]
    ) -> None:
        self._names = tuple(names)
        self._decode, self._thresholds = DECODERS[decoder], thresholds
        self._probe = probe
        self._wanted = self._found(teacher)

    def agreement(self, student: nn.Module) -> float:
        """0 to 1, as of `AgreementSamples`; NaN where neither finds anything. The student learns on as it was."""
        modes = {module: module.training for module in student.modules()}
        student.eval()
        found = self._found(student)
        for module, mode in modes.items():
            module.training = mode
        return AgreementSamples(list(zip(self._wanted, found, strict=True))).agreement()

    def _found(self, network: nn.Module) -> list[Detections]:
        """In every scene, at the operating point."""
        found = []
        for planes in self._probe:
            with torch.no_grad():
                answers = network(planes)
            outputs = (answers,) if isinstance(answers, Tensor) else answers
            for scene in range(len(planes)):
                named = {
                    name: value[scene : scene + 1].numpy() for name, value in zip(self._names, outputs, strict=True)
                }
                found.append(suppress(self._decode(named, self._thresholds.min_score), self._thresholds))
        return found
