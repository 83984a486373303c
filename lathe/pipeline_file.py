"""A pipeline on disk: which model finds the faces of a frame, and which one embeds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lathe.card import check_name
from lathe.config import parse
from lathe.errors import BadVariant, InvalidInput, LatheError, NotFound
from lathe.plain_file import read_plain

PIPELINE_FILE = "pipeline.json"
MAX_LARGEST = 64
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class PipelineSpec:
    """
    Attributes:
        detector, embedder: names of models; which of their variants judges a stream, their own routes say.
        largest: faces of a frame that are embedded, by the area of their boxes.
        min_side: pixels; a face whose box has a shorter side is not.

    Raises:
        InvalidInput: that makes no pipeline.
    """

    detector: str
    embedder: str
    largest: int = 4
    min_side: float = 32.0

    def __post_init__(self) -> None:
        check_name(self.detector, "model")
        check_name(self.embedder, "model")
        if self.detector == self.embedder:
            raise InvalidInput("a pipeline's detector and its embedder are two models")
        if not 1 <= self.largest <= MAX_LARGEST:
            raise InvalidInput(f"a pipeline embeds 1 to {MAX_LARGEST} faces of a frame")
        if not 0 <= self.min_side < 1e6:
            raise InvalidInput("min_side is 0 or more pixels")

    def __str__(self) -> str:
        return f"{self.detector}, then {self.embedder} of the {self.largest} largest faces"

    def as_json(self) -> bytes:
        """What the file holds."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


def read_pipeline(path: Path, name: str) -> PipelineSpec:
    """
    Args:
        name: of the pipeline, for the errors.

    Raises:
        NotFound: there is no such file.
        BadVariant: a link, too large, or not what a pipeline's file says.
    """
    try:
        content = read_plain(path, f"{PIPELINE_FILE} of {name}", _MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFound(f"there is no pipeline {name}") from error
    try:
        table = json.loads(content)
        if not isinstance(table, dict):
            raise InvalidInput("it is not a JSON object")
        return parse(PipelineSpec, table, content.decode(), PIPELINE_FILE)
    except (ValueError, RecursionError, LatheError) as error:
        said = error.message if isinstance(error, LatheError) else "it is not JSON"
        raise BadVariant(f"pipeline {name} cannot be read: {said}", detail=str(path)) from error
