"""The aligned faces of a recipe's pictures: what its embedding network sees in the place of whole pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lathe.progress import Progress
from lathe_compression.contract import Model
from lathe_compression.face_scenes import margin_of
from lathe_compression.faces import FaceReader, face_detector
from lathe_compression.pictures import NamedPicture
from lathe_server.vision import Detector

FACES_REVISION = 1
"""One goes up when the same pictures come to give other faces."""


class RecipeFaces:
    """Finds them with the recipe's detector.

    Args:
        folder: what the detector's path is relative to.
    """

    def __init__(self, model: Model, folder: Path, progress: Progress) -> None:
        self._model = model
        self._folder = folder
        self._progress = progress

    @cached_property
    def reader(self) -> FaceReader:
        """Of faces as the network sees them."""
        return self._reader(0)

    @property
    def key(self) -> list[Any]:
        """All that the faces to learn from depend on, beside the pictures."""
        model = self._model
        return [FACES_REVISION, model.alignment_name, model.serving_size, self._margin, self._detector[1]]

    def inputs(self, pictures: Iterable[NamedPicture]) -> list[NDArray[np.uint8]]:
        """1 × H × W × 3 each, of the pictures that show one."""
        missed: list[str] = []
        faces = [face.pixels[None] for face in self.reader.faces(pictures, missed)]
        self.say_missed(missed)
        return faces

    def to_learn_from(self, pictures: Iterable[NamedPicture]) -> Iterator[NamedPicture]:
        """With a margin around them, for scenes that shift them."""
        missed: list[str] = []
        yield from self._reader(self._margin).faces(pictures, missed)
        self.say_missed(missed)

    def say_missed(self, names: Sequence[str]) -> None:
        """Warns of pictures that the detector found no face in."""
        if names:
            self._progress.warn(f"{len(names)} pictures show no face and are left out: {', '.join(names[:5])}")

    def _reader(self, margin: int) -> FaceReader:
        return FaceReader(self._detector[0], self._model.alignment_name, self._model.serving_size, margin)

    @cached_property
    def _detector(self) -> tuple[Detector, str]:
        return face_detector(self._model.detector, self._folder)

    @property
    def _margin(self) -> int:
        """In pixels."""
        return margin_of(self._model.serving_size)
