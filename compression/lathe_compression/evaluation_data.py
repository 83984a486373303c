"""The pictures that judge, with their labels where they have some, less those that made a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lathe.errors import InvalidInput, NotFound
from lathe.used_pictures import UsedPictures
from lathe_compression.average_precision import Labels
from lathe_compression.pictures import file_digest, folder_pictures

LABEL_FILES = "instances_*.json"
LABEL_PREFIX = "instances_"


@dataclass(frozen=True)
class EvaluationData:
    """Attributes:
    label_sets: by short name; empty for a folder of bare pictures.
    paths: of the pictures that judge.
    left_out: how many others there were.
    """

    label_sets: Mapping[str, Labels]
    paths: Sequence[Path]
    left_out: int


def load_data(data: Path, used: UsedPictures) -> EvaluationData:
    """A folder of pictures, a folder with COCO files, or one COCO file.

    Args:
        used: pictures that made a variant: they never judge it.

    Raises:
        NotFound: no such data.
        InvalidInput: labels that make no sense, or no picture left.
    """
    label_sets = _label_sets(data)
    paths = _picture_paths(data, label_sets)
    kept = [path for path in paths if file_digest(path) not in used] if used else paths
    if not paths:
        raise InvalidInput("the labels name no pictures")
    if not kept:
        raise InvalidInput("every picture was used to make the variant; none is left to judge it")
    return EvaluationData(label_sets, kept, len(paths) - len(kept))


def _label_sets(data: Path) -> dict[str, Labels]:
    """Label files by short name; empty for a folder of bare pictures."""
    if data.is_file():
        return {data.stem.removeprefix(LABEL_PREFIX): Labels(data)}
    if not data.exists():
        raise NotFound(f"there is no folder or label file {data}")
    return {path.stem.removeprefix(LABEL_PREFIX): Labels(path) for path in sorted(data.glob(LABEL_FILES))}


def _picture_paths(data: Path, label_sets: Mapping[str, Labels]) -> list[Path]:
    if not label_sets:
        return folder_pictures(data)
    paths = sorted({path for labels in label_sets.values() for path in labels.pictures.values()})
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise NotFound(f"{len(missing)} labelled pictures are missing, {missing[0]} among them")
    return paths
