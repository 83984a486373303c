"""The folder of published variants and routes, the only state that outlives a server.

    <root>/<model>/<variant>/<version>/{model.onnx, card.json, pictures.txt, making.json, model.sig}
    <root>/<model>/routes/<revision>.json
    <root>/<model>/experiments/<id>.json
    <root>/<pipeline>/pipeline.json

Versions and revisions are whole numbers from 1 up and never change once they are visible: a version
appears by the renaming of a finished folder, a revision by an exclusive link. `making.json`, how the
version was made in curves and tables, is optional and read by reports alone; `pictures.txt` is there
where pictures made the version, and read by evaluation alone. `model.sig` comes when somebody signs
what is there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lathe.card import CARD_FILE, MODEL_FILE, check_name, is_name, read_card, write_card
from lathe.errors import BadVariant, Conflict, InvalidInput, LatheError, NotFound, Refused
from lathe.message_file import as_json, read_message, write_durably
from lathe.pipeline_folder import PipelineFolder
from lathe.used_pictures import UsedPictures, read_used_pictures
from lathe.v1 import card_pb2, control_pb2, experiment_pb2
from lathe.version_files import MAKING_FILE, SIGNATURE_FILE, contents, read_making

ROUTES, EXPERIMENTS = "routes", "experiments"


def check_variant_name(name: str) -> str:
    """Returns a new variant's name if it may have it.

    Raises:
        InvalidInput: not a name, or that of another folder of the model.
    """
    if name in (ROUTES, EXPERIMENTS):
        raise InvalidInput(f'a variant cannot be named "{name}"')
    return check_name(name, "variant")


@dataclass(frozen=True, slots=True, order=True)
class VariantRef:
    """One version of a variant, the unit that is loaded and served."""

    model: str
    variant: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}/{self.variant}/{self.version}"


class Repository(PipelineFolder):
    """Reads and extends a repository in a folder; holds no state of its own.

    Attributes:
        look_seconds: between two looks for what others have written; change notification misses network disks.

    Raises:
        NotFound: the root is not a folder.
    """

    look_seconds = 1.0

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotFound(f"there is no repository at {root}")
        super().__init__(root)

    def refresh(self) -> None:
        """Sees what others have published; a folder always does, `lathe.mirror` has to ask."""

    def fetch(self, ref: VariantRef, max_bytes: int = 0) -> None:
        """Makes sure that all files of a version are on this machine.

        Args:
            max_bytes: of its network, where that has to be copied; 0 sets no limit.
        """

    def models(self) -> list[str]:
        return [name for name in _folders(self.root) if self.variants(name)]

    def variants(self, model: str) -> list[str]:
        """Variants with at least one version, by name."""
        return [
            name
            for name in _folders(self.root / check_name(model, "model"))
            if name not in (ROUTES, EXPERIMENTS) and self.versions(model, name)
        ]

    def versions(self, model: str, variant: str) -> list[int]:
        """Numbers of the version folders, oldest first."""
        folder = self.root / check_name(model, "model") / check_name(variant, "variant")
        return _numbers(folder)

    def newest(self, model: str, variant: str) -> VariantRef:
        """The newest version of a variant; a folder without its card is still being copied and is not seen.

        Raises:
            NotFound: no such model or variant.
        """
        if not self.variants(model):
            raise NotFound(f"there is no model {model}")
        for version in reversed(self.versions(model, variant)):
            if (self.root / model / variant / str(version) / CARD_FILE).exists():
                return VariantRef(model, variant, version)
        raise NotFound(f"model {model} has no variant {variant}; it has {', '.join(self.variants(model))}")

    def named(self, name: str) -> VariantRef:
        """The version that `MODEL/VARIANT` or `MODEL/VARIANT/VERSION` means; without a number the newest.

        Raises:
            InvalidInput: it is no such name.
            NotFound: it is not published.
        """
        parts = name.split("/")
        if len(parts) not in (2, 3) or not _NUMBER.fullmatch(parts[2] if len(parts) == 3 else "1"):
            raise InvalidInput(f"{name} is not MODEL/VARIANT or MODEL/VARIANT/VERSION")
        model, variant, *number = parts
        newest = self.newest(check_name(model, "model"), check_name(variant, "variant"))
        ref = VariantRef(model, variant, int(number[0])) if number else newest
        self.folder(ref)
        return ref

    def folder(self, ref: VariantRef) -> Path:
        """Where a version lies.

        Raises:
            NotFound: it is not published.
            BadVariant: a link leads out of the repository.
        """
        folder = self.root / check_name(ref.model, "model") / check_name(ref.variant, "variant") / str(ref.version)
        if not folder.is_dir():
            raise NotFound(f"{ref} is not published")
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise BadVariant(f"{ref} leads out of the repository", detail=str(folder))
        return folder

    def card(self, ref: VariantRef) -> card_pb2.Card:
        card = read_card(self.folder(ref) / CARD_FILE)
        if (card.model, card.variant, card.version) != (ref.model, ref.variant, ref.version):
            raise BadVariant(f"the card of {ref} names another variant")
        return card

    def model_bytes(self, ref: VariantRef) -> bytes:
        """The ONNX file, checked against the card's digest.

        Raises:
            BadVariant: missing, a link, or not what the card says.
        """
        path = self.folder(ref) / MODEL_FILE
        card = self.card(ref)
        if path.is_symlink() or not path.is_file():
            raise BadVariant(f"{ref} has no model file", detail=str(path))
        try:
            if path.stat().st_size != card.size_bytes:  # before reading: it may be of any size
                raise BadVariant(f"the model file of {ref} is not the one that its card describes (size)")
            content = path.read_bytes()
        except OSError as error:
            raise BadVariant(f"the model file of {ref} cannot be read", detail=str(error)) from error
        if hashlib.sha256(content).hexdigest() != card.sha256:
            raise BadVariant(f"the model file of {ref} is not the one that its card describes (sha256)")
        return content

    def used_pictures(self, ref: VariantRef) -> UsedPictures:
        """Those that calibrated or trained the version.

        Raises:
            BadVariant: the list is not the one that the card tells of.
        """
        return read_used_pictures(self.folder(ref), self.card(ref).lineage)

    def making(self, ref: VariantRef) -> Mapping[str, Any] | None:
        """How the version was made, as it was published; None where nothing is said. `lathe.making` reads it.

        Raises:
            BadVariant: a link, over 16 MiB, or not a JSON object.
        """
        return read_making(self.folder(ref) / MAKING_FILE, str(ref))

    def newest_cards(self, model: str) -> list[card_pb2.Card]:
        """Cards of the newest version of each variant; unreadable ones are left out."""
        cards = []
        for variant in self.variants(model):
            with contextlib.suppress(LatheError):
                cards.append(self.card(self.newest(model, variant)))
        return cards

    def publish(
        self,
        card: card_pb2.Card,
        model: bytes,
        making: Mapping[str, Any] | None = None,
        pictures: UsedPictures = UsedPictures(),  # noqa: B008  # nothing changes it
    ) -> VariantRef:
        """Makes a variant visible as a new version, whole or not at all.

        Fills in the card's version, digest, size, time and pictures.

        Args:
            pictures: that calibrated or trained it.
            making: what `lathe.making` reads; a number that is not finite becomes null.

        Raises:
            InvalidInput: the model or the variant cannot have its name.
            Refused: a pipeline has the model's.
        """
        folder = self.root / self.check_model_name(card.model) / check_variant_name(card.variant)
        files = contents(card, model, making, pictures)
        staging = self.root / f".staging-{uuid.uuid4().hex}"
        staging.mkdir()
        try:
            for name, content in files.items():
                write_durably(staging / name, content)
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                card.version = max(_numbers(folder), default=0) + 1
                write_card(card, staging / CARD_FILE)
                try:
                    staging.rename(folder / str(card.version))
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                else:
                    break
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return VariantRef(card.model, card.variant, card.version)

    def add_signature(self, ref: VariantRef, content: bytes) -> None:
        """Puts a signature beside what it vouches for, in place of another one.

        Raises:
            NotFound: the version is not published.
            Refused: the disk is full, or the folder may not be written.
        """
        folder, staging = self.folder(ref), self.root / f".staging-{uuid.uuid4().hex}"
        try:
            write_durably(staging, content)
            staging.replace(folder / SIGNATURE_FILE)
        except OSError as error:
            raise Refused(f"the signature of {ref} cannot be written", detail=str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)

    def revisions(self, model: str) -> list[int]:
        """Numbers of the routes that a model has had, rising; the last one holds."""
        return _numbers(self.root / check_name(model, "model") / ROUTES, suffix=".json")

    def newest_revisions(self) -> dict[str, int]:
        """By model, of those that have had a route; looks at no variant, because it is asked every second."""
        revisions = {model: self.revisions(model) for model in _folders(self.root)}
        return {model: numbers[-1] for model, numbers in revisions.items() if numbers}

    def route(self, model: str, revision: int = 0) -> control_pb2.Route | None:
        """One revision of a model's route; the one that holds where none is named, or None where there is none.

        Raises:
            NotFound: there is no such revision.
            BadVariant: it cannot be read, or names another model or revision.
        """
        if not revision:
            revisions = self.revisions(model)
            if not revisions:
                return None
            revision = revisions[-1]
        path = self.root / check_name(model, "model") / ROUTES / f"{revision}.json"
        route = read_message(path, control_pb2.Route(), f"revision {revision} of the route of {model}")
        if (route.model, route.revision) != (model, revision):
            raise BadVariant(
                f"revision {revision} of the route of {model} names another model or revision", detail=str(path)
            )
        return route

    def add_route(self, route: control_pb2.Route) -> None:
        """Makes a revision visible, exclusively: of two writers of one number one wins.

        Raises:
            Conflict: the revision exists.
            Refused: the disk is full, or the folder may not be written.
        """
        folder = self.root / check_name(route.model, "model") / ROUTES
        staging = folder / f".{uuid.uuid4().hex}"
        try:
            folder.mkdir(exist_ok=True)
            write_durably(staging, as_json(route))
            os.link(staging, folder / f"{route.revision}.json")
        except FileExistsError as error:
            raise Conflict(f"revision {route.revision} of the route of {route.model} exists already") from error
        except OSError as error:
            raise Refused(f"the route of {route.model} cannot be written", detail=str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                staging.unlink()

    def experiments(self, model: str) -> list[str]:
        """Their ids, the oldest first."""
        folder = self.root / check_name(model, "model") / EXPERIMENTS
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.stem for path in folder.iterdir() if path.suffix == ".json" and is_name(path.stem))
        return []

    def experiment(self, model: str, name: str = "") -> experiment_pb2.Experiment:
        """One of a model's experiments; the newest where none is named.

        Raises:
            NotFound: there is none.
            BadVariant: it cannot be read, or names another model or id.
        """
        name = check_name(name, "experiment") if name else next(reversed(self.experiments(model)), "")
        if not name:
            raise NotFound(f"{model} has had no experiment")
        path = self.root / check_name(model, "model") / EXPERIMENTS / f"{name}.json"
        experiment = read_message(path, experiment_pb2.Experiment(), f"experiment {name} of {model}")
        if (experiment.spec.model, experiment.id) != (model, name):
            raise BadVariant(f"experiment {name} of {model} names another model or id", detail=str(path))
        return experiment

    def write_experiment(self, experiment: experiment_pb2.Experiment) -> None:
        """Keeps an experiment as it is now, whole or not at all.

        Raises:
            Refused: the disk is full, or the folder may not be written.
        """
        folder = self.root / check_name(experiment.spec.model, "model") / EXPERIMENTS
        staging = folder / f".{uuid.uuid4().hex}"
        try:
            folder.mkdir(exist_ok=True)
            write_durably(staging, as_json(experiment))
            staging.replace(folder / f"{experiment.id}.json")
        except OSError as error:
            raise Refused(f"experiment {experiment.id} cannot be written", detail=str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                staging.unlink()

    def remove_experiment(self, model: str, name: str) -> None:
        """Takes away one that has not begun."""
        folder = self.root / check_name(model, "model") / EXPERIMENTS
        (folder / f"{check_name(name, 'experiment')}.json").unlink(missing_ok=True)

    def remove(self, ref: VariantRef) -> None:
        """Takes a version away, out of sight first; a server that has it in memory serves on.

        Raises:
            NotFound: it is not published.
        """
        staging = self.root / f".removed-{uuid.uuid4().hex}"
        self.folder(ref).rename(staging)
        shutil.rmtree(staging)


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and is_name(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


_NUMBER = re.compile(r"[1-9][0-9]{0,8}")  # fits the contract's uint32


def _numbers(folder: Path, suffix: str = "") -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if _NUMBER.fullmatch(stem))
