"""What a student finds while it still learns, against what its teacher finds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from lathe.agreement import AgreementSamples
from lathe.detections import Detections
from lathe_server.vision import suppress
from lathe_server.vision.decoders import DECODERS
from lathe_server.vision.detections import Thresholds


class Watch(Protocol):
    """Looks at the same scenes again and again. The student learns on as it was.

    Attributes:
        figure: the name of what it tells.
    """

    figure: str

    def agreement(self, student: nn.Module) -> float:
        """At most 1, where the two are the same; NaN where nothing can be said."""


class CosineWatch:
    """Of an embedding network: the mean cosine to the teacher's embeddings.

    Args:
        probe: batches N×3×H×W.
    """

    figure = "cosine"

    def __init__(self, teacher: nn.Module, probe: Sequence[Tensor]) -> None:
        self._probe = probe
        self._wanted = self._embeddings(teacher)

    def agreement(self, student: nn.Module) -> float:
        with _as_it_serves(student):
            own = self._embeddings(student)
        return float(functional.cosine_similarity(own, self._wanted, dim=1).mean())

    def _embeddings(self, network: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([network(planes) for planes in self._probe])


class DetectionWatch:
    """Of a detector.

    Args:
        names: of the networks' outputs, in order.
        decoder: of these outputs.
        probe: batches N×3×H×W.
    """

    figure = "agreement"

    def __init__(
        self, teacher: nn.Module, names: Sequence[str], decoder: str, thresholds: Thresholds, probe: Sequence[Tensor]
    ) -> None:
        self._names = tuple(names)
        self._decode, self._thresholds = DECODERS[decoder], thresholds
        self._probe = probe
        self._wanted = self._found(teacher)

    def agreement(self, student: nn.Module) -> float:
        """0 to 1, as of `AgreementSamples`; NaN where neither finds anything."""
        with _as_it_serves(student):
            found = self._found(student)
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


@contextmanager
def _as_it_serves(student: nn.Module) -> Generator[None]:
    modes = {module: module.training for module in student.modules()}
    student.eval()
    yield
    for module, mode in modes.items():
        module.training = mode
