"""What all variants of a model share: the part of a recipe that their cards repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lathe_compression.error_rates import LARGEST_FMR
from lathe_server.vision.decoders import OUTPUT_NAMES
from lathe_server.vision.embedder import EMBEDDING


@dataclass(frozen=True)
class Input:
    """(pixel − mean) / std for R, G, B of 0 to 255; it becomes part of the graph."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not all(std > 0 for std in self.std):
            raise ValueError("std must be above 0")


@dataclass(frozen=True)
class Operating:
    """The operating point that the variants are served at."""

    min_score: float
    nms: float
    max_detections: int

    def __post_init__(self) -> None:
        if not (0 <= self.min_score <= 1 and 0 <= self.nms <= 1 and self.max_detections >= 1):
            raise ValueError("min_score and nms must be from 0 to 1, and max_detections at least 1")


@dataclass(frozen=True)
class Model:
    """The contract that all variants share, and the teacher that they come from.

    Attributes:
        teacher: `package.module:factory` of an nn.Module, or an ONNX file relative to the recipe.
        serving_size: width and height that pictures are scaled to fit into; of an
            embedding network, those of its input.
        notices: licences and origins of the weights and of the pictures used.
        outputs: of a detector, names for the teacher's outputs, in its order.
        size_multiple: a detector takes widths and heights in multiples of this.
        decoder, classes, thresholds: of a detector; its classes may have no names.
        alignment: of an embedding network: where the landmarks come to lie in its input.
        detector: the variant that finds the faces in the recipe's pictures, for an embedding network, as
            `repository/model/variant`, relative to the recipe.
    """

    name: str
    task: Literal["detection", "embedding"]
    teacher: str
    serving_size: tuple[int, int]
    input: Input = Input()
    notices: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    size_multiple: int | None = None
    decoder: Literal["heatmap", "boxes"] | None = None
    classes: tuple[str, ...] = ()
    thresholds: Operating | None = None
    alignment: Literal["dlib", "arcface"] | None = None
    detector: str = ""

    def __post_init__(self) -> None:
        if min(self.serving_size) < 1:
            raise ValueError("serving_size must be at least 1")
        needed, others = (_OF_EMBEDDING, _OF_DETECTION) if self.embeds else (_NEEDED_TO_DETECT, _OF_EMBEDDING)
        for name in needed:
            if getattr(self, name) in _NOT_GIVEN:
                raise ValueError(f'the key "{name}" is missing: the task is {self.task}')
        for name in others:
            if getattr(self, name) not in _NOT_GIVEN:
                raise ValueError(f'"{name}" is not of the task {self.task}')
        if self.task == "detection":
            self._check_detection()
        elif self.detector.count("/") < 2:
            raise ValueError("detector must be repository/model/variant")

    def _check_detection(self) -> None:
        multiple = self.size_multiple or 0
        if multiple < 1 or any(side % multiple for side in self.serving_size):
            raise ValueError("serving_size must be multiples of size_multiple, and both at least 1")
        missing = OUTPUT_NAMES[self.decoder_name] - set(self.outputs)
        if missing:
            raise ValueError(f"the decoder {self.decoder} needs the output {min(missing)}")

    @property
    def embeds(self) -> bool:
        return self.task == "embedding"

    @property
    def output_names(self) -> tuple[str, ...]:
        return (EMBEDDING,) if self.embeds else self.outputs

    @property
    def multiple(self) -> int:
        """What the sides of the network's input are multiples of."""
        return self.size_multiple or math.gcd(*self.serving_size)

    @property
    def fixed_wh(self) -> tuple[int, int] | None:
        """Width and height of the only input that the network takes; None where they are free."""
        return self.serving_size if self.embeds else None

    @property
    def decoder_name(self) -> str:
        """Of a detector."""
        assert self.decoder
        return self.decoder

    @property
    def alignment_name(self) -> str:
        """Of an embedding network."""
        assert self.alignment
        return self.alignment

    @property
    def operating(self) -> Operating:
        """A detector's operating point."""
        assert self.thresholds
        return self.thresholds


_NEEDED_TO_DETECT = ("decoder", "outputs", "size_multiple", "thresholds")
_OF_DETECTION = (*_NEEDED_TO_DETECT, "classes")
_OF_EMBEDDING = ("alignment", "detector")
_NOT_GIVEN = (None, (), "")


@dataclass(frozen=True)
class Verification:
    """What an embedding network's thresholds are measured on.

    Attributes:
        pairs: a file in LFW's format, its pictures beside it, relative to the recipe; `$NAME` is taken from the
            environment. Where it is not set the cards have no thresholds, and no server loads such a variant.
        fmrs: the false match rates to find them at.
    """

    pairs: str
    fmrs: tuple[float, ...] = (0.01, 0.001, 0.0001)

    def __post_init__(self) -> None:
        if not self.fmrs or not all(0 < fmr <= LARGEST_FMR for fmr in self.fmrs):
            raise ValueError(f"fmrs must be above 0 and no more than {LARGEST_FMR}")
