"""Brings the versions of one repository into another that lives: under their own numbers, whole, and no routes; and
the pipelines whose names are free there.

Who answers is the living repository's own business, so routes and experiments stay as they are on both sides.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from typing import Literal

from lathe.card import CARD_FILE, MODEL_FILE
from lathe.errors import LatheError, Refused
from lathe.housekeeping import versions
from lathe.message_file import write_durably
from lathe.repository import Repository, VariantRef
from lathe.version_files import FILES

Outcome = Literal[
    "copied",
    "there already",
    "copied again: the one there is damaged",
    "left: another one is there",
    "left: a pipeline has the name",
    "left: a model has the name",
]


def seed(source: Repository, target: Repository) -> Iterator[tuple[VariantRef, Outcome | LatheError]]:
    """Copies every version that `target` has not, or has not whole; a whole one there is never changed.

    Args:
        target: in a folder.

    Returns:
        what became of each version, as soon as it has; an error where the source's own is damaged.

    Raises:
        Refused: the target's disk is full, or its folder may not be written.
    """
    taken = set(target.pipelines())
    for ref in versions(source):
        if ref.model in taken:
            yield ref, "left: a pipeline has the name"
            continue
        try:
            files = _files(source, ref)
        except LatheError as error:
            yield ref, error
            continue
        if (target.root / str(ref)).is_dir():
            try:
                _files(target, ref)
            except LatheError:
                _put(target, ref, files)
                yield ref, "copied again: the one there is damaged"
            else:
                is_same = source.card(ref) == target.card(ref)
                yield ref, "there already" if is_same else "left: another one is there"
        else:
            _put(target, ref, files)
            yield ref, "copied"


def seed_pipelines(source: Repository, target: Repository) -> Iterator[tuple[str, Outcome | LatheError]]:
    """Publishes every pipeline whose name `target` has not; as `seed`."""
    for name in source.pipelines():
        if target.variants(name):
            yield name, "left: a model has the name"
            continue
        try:
            spec = source.pipeline(name)
            if name not in target.pipelines():
                target.write_pipeline(name, spec)
                yield name, "copied"
                continue
        except LatheError as error:
            yield name, error
            continue
        try:
            is_same = target.pipeline(name) == spec
        except LatheError:
            is_same = False
        yield name, "there already" if is_same else "left: another one is there"


def _files(repository: Repository, ref: VariantRef) -> dict[str, bytes]:
    """All files of a version by name, each checked as far as its card tells of it.

    Raises:
        LatheError: one is missing or is not the one that it should be.
    """
    repository.fetch(ref)
    files = {MODEL_FILE: repository.model_bytes(ref)}
    repository.used_pictures(ref)
    repository.making(ref)
    folder = repository.folder(ref)
    for name in (*FILES - {MODEL_FILE}, CARD_FILE):
        path = folder / name
        try:
            if path.is_file() and not path.is_symlink():
                files[name] = path.read_bytes()
        except OSError as error:
            raise Refused(f"{name} of {ref} cannot be read", detail=str(error)) from error
    return files


def _put(target: Repository, ref: VariantRef, files: dict[str, bytes]) -> None:
    """Makes a version visible by a rename, in the place of a damaged one if there is one."""
    folder, staging = target.root / str(ref), target.root / f".staging-{uuid.uuid4().hex}"
    damaged = staging.with_name(f"{staging.name}-damaged")
    try:
        staging.mkdir()
        for name, content in files.items():
            write_durably(staging / name, content)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(damaged)
        staging.rename(folder)
    except OSError as error:
        raise Refused(f"{ref} cannot be written", detail=str(error)) from error
    finally:
        for left in (staging, damaged):
            shutil.rmtree(left, ignore_errors=True)
