"""The pipelines of a repository in a folder: one file each, in a folder of the pipeline's name."""

from __future__ import annotations

import contextlib
import uuid
from abc import ABC, abstractmethod
from pathlib import Path

from lathe.card import check_name, is_name
from lathe.errors import NotFound, Refused
from lathe.message_file import write_durably
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec, read_pipeline


class PipelineFolder(ABC):
    """Reads and writes them.

    Attributes:
        root: the repository's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def variants(self, model: str) -> list[str]:
        """Of a model, by name; none where there is no such model."""

    def pipelines(self) -> list[str]:
        """Their names."""
        found = (path.parent.name for path in self.root.glob(f"*/{PIPELINE_FILE}"))
        return sorted(name for name in found if is_name(name))

    def pipeline(self, name: str) -> PipelineSpec:
        """What a pipeline is made of.

        Raises:
            NotFound: there is none of that name.
            BadVariant: it cannot be read.
        """
        return read_pipeline(self.root / check_name(name, "pipeline") / PIPELINE_FILE, name)

    def write_pipeline(self, name: str, spec: PipelineSpec) -> None:
        """Publishes a pipeline, or another one in its place, whole or not at all.

        Raises:
            Refused: a model has the name, the disk is full, or the folder may not be written.
        """
        folder, staging = self.root / self.check_pipeline_name(name), self.root / f".staging-{uuid.uuid4().hex}"
        try:
            folder.mkdir(exist_ok=True)
            write_durably(staging, spec.as_json())
            staging.replace(folder / PIPELINE_FILE)
        except OSError as error:
            raise Refused(f"the pipeline {name} cannot be written", detail=str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)

    def check_model_name(self, name: str) -> str:
        """Returns a model's name if it may have it.

        Raises:
            InvalidInput: it is none.
            Refused: a pipeline has it.
        """
        if (self.root / check_name(name, "model") / PIPELINE_FILE).exists():
            raise Refused(f"a pipeline has the name {name}; a model needs one of its own")
        return name

    def check_pipeline_name(self, name: str) -> str:
        """Returns a pipeline's name if it may have it.

        Raises:
            InvalidInput: it is none.
            Refused: a model has it.
        """
        if self.variants(check_name(name, "pipeline")):
            raise Refused(f"a model has the name {name}; a pipeline needs one of its own")
        return name

    def remove_pipeline(self, name: str) -> None:
        """Takes a pipeline away; its models stay.

        Raises:
            NotFound: there is none of that name.
        """
        try:
            (self.root / check_name(name, "pipeline") / PIPELINE_FILE).unlink()
        except FileNotFoundError as error:
            raise NotFound(f"there is no pipeline {name}") from error
