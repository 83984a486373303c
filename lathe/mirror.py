"""A repository in an object store, and its copy in a folder of this machine.

The store holds the same tree of files as a folder, under an address such as `s3://bucket/models`. Cards, routes,
experiments and pipelines are copied when the repository is refreshed, the other files of a version when it is
fetched; so whoever reads a folder reads the copy, and a server starts from it while the store is away. What is
written goes to the store first. Stores rename nothing, so a version becomes visible with its card, written last, and
its number is claimed before by an object that only one writer can create.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lathe.card import CARD_FILE, MODEL_FILE, check_name
from lathe.errors import BadVariant, Conflict, Refused
from lathe.message_file import as_json, write_durably
from lathe.object_store import Mark, ObjectStore
from lathe.pipeline_file import PIPELINE_FILE, PipelineSpec
from lathe.repository import EXPERIMENTS, ROUTES, Repository, VariantRef, check_variant_name
from lathe.used_pictures import UsedPictures
from lathe.v1 import card_pb2, control_pb2, experiment_pb2
from lathe.version_files import FILES, SIGNATURE_FILE, contents

log = logging.getLogger(__name__)

CACHE_VARIABLE = "LATHE_CACHE"
CLAIM = ".claim"
MAX_COPIED_BYTES = 64 << 20
"""Of a card, a route or an experiment; larger ones are none."""
MAX_OTHER_BYTES = 256 << 20
"""Of each of a version's files beside its network."""
STALE_SECONDS = 3600.0
"""After which a half-copied file belongs to nobody."""

_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
_NUMBER = r"[1-9][0-9]{0,8}"
_COPIED = re.compile(
    rf"(?P<version>{_NAME}/{_NAME}/{_NUMBER})/{re.escape(CARD_FILE)}"
    rf"|{_NAME}/{ROUTES}/{_NUMBER}\.json|(?P<changing>{_NAME}/(?:{EXPERIMENTS}/{_NAME}\.json|{re.escape(PIPELINE_FILE)}))"
)
"""What a refresh copies; nothing else of the store's names comes near a path."""


def open_repository(location: str | Path, cache: str | Path = "") -> Repository:
    """The repository in a folder, or at an address such as `s3://bucket/models`.

    Args:
        cache: folder for the copies of object stores; LATHE_CACHE, or one in the home folder, where it is empty.

    Raises:
        NotFound: there is no such folder.
        Refused: the package that reads such addresses is not installed, or the store cannot be read and was never
            copied.
    """
    if "://" not in str(location):
        return Repository(Path(location))
    folder = cache or os.environ.get(CACHE_VARIABLE) or _home() / "lathe"
    return Mirror(str(location), Path(folder))


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


class Mirror(Repository):
    """As `open_repository` makes it; safe for threads."""

    look_seconds = 2.0  # each look is a request for every thousand objects, and has its price

    def __init__(self, address: str, cache: Path) -> None:
        self._store = ObjectStore(address)
        self._turn = threading.RLock()
        self._known: dict[str, Mark] = {}
        root = cache / hashlib.sha256(address.encode()).hexdigest()[:16]
        was_copied = root.exists()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused("the folder for copies of object stores cannot be made", detail=str(error)) from error
        super().__init__(root)
        self._sweep()
        try:
            self.refresh()
        except Refused as error:
            if not was_copied:
                shutil.rmtree(root, ignore_errors=True)
                raise
            log.warning("%s; what was copied earlier is used: %s", error.message, error.detail)

    def refresh(self) -> None:
        """Copies what is new in the store, and forgets what is gone from it.

        Raises:
            Refused: it cannot be read, or is empty and was not; the copy stays as it is.
        """
        with self._turn:
            everything, before = self._store.marks(), self._known or self._copied()
            found = {
                name: mark
                for name, mark in everything.items()
                if _COPIED.fullmatch(name) and mark.size <= MAX_COPIED_BYTES
            }
            if before and not everything:
                raise Refused("the object store is empty, where it was not: a bucket that is gone looks like that")
            missing = [name for name, mark in found.items() if not self._holds(name, mark)]
            for name, content in self._store.contents(missing).items():
                self._keep(name, content)
            for name in before.keys() - found.keys():
                self._forget(name)
            self._known = found

    def fetch(self, ref: VariantRef, max_bytes: int = 0) -> None:
        """Copies the files of a version that are not here as they are in the store, the network last.

        Raises:
            NotFound: it is not published.
            BadVariant: its network is not the one that its card describes, or a file is larger than it may be.
            Refused: the store cannot be read, and the network was never copied.
        """
        folder, card = self.folder(ref), self.card(ref)
        try:
            marks = {name.rpartition("/")[2]: mark for name, mark in self._store.marks(f"{ref}/").items()}
        except Refused:
            if not (folder / MODEL_FILE).exists():
                raise
            return
        for name in sorted(FILES & marks.keys(), key=lambda name: name == MODEL_FILE):
            path, size = folder / name, marks[name].size
            most = card.size_bytes if name == MODEL_FILE else MAX_OTHER_BYTES
            if size > most or (max_bytes and name == MODEL_FILE and size > max_bytes):
                raise BadVariant(f"{name} of {ref} has {size} bytes in the store, more than it may")
            if name == SIGNATURE_FILE or not path.exists() or path.stat().st_size != size:
                self._copy(f"{ref}/{name}", path)
        if SIGNATURE_FILE not in marks:  # it was withdrawn
            (folder / SIGNATURE_FILE).unlink(missing_ok=True)
        if MODEL_FILE in marks and _sha256(folder / MODEL_FILE) != card.sha256:
            self._copy(f"{ref}/{MODEL_FILE}", folder / MODEL_FILE)  # the copy may have been damaged here
            if _sha256(folder / MODEL_FILE) != card.sha256:
                (folder / MODEL_FILE).unlink()
                raise BadVariant(f"the model file of {ref} is not the one that its card describes (sha256)")

    def publish(
        self,
        card: card_pb2.Card,
        model: bytes,
        making: Mapping[str, Any] | None = None,
        pictures: UsedPictures = UsedPictures(),  # noqa: B008  # nothing changes it
    ) -> VariantRef:
        variant = f"{check_name(card.model, 'model')}/{check_variant_name(card.variant)}"
        files = contents(card, model, making, pictures)
        with self._turn:
            self.refresh()
            self.check_model_name(card.model)
            card.version = max(self.versions(card.model, card.variant), default=0) + 1
            while not self._store.create(f"{variant}/{card.version}/{CLAIM}", uuid.uuid4().bytes):
                card.version += 1
            for name, content in files.items():
                self._store.put(f"{variant}/{card.version}/{name}", content)
            self._store.put(f"{variant}/{card.version}/{CARD_FILE}", as_json(card))
            self.refresh()
        return VariantRef(card.model, card.variant, card.version)

    def add_signature(self, ref: VariantRef, content: bytes) -> None:
        self.folder(ref)
        self._store.put(f"{ref}/{SIGNATURE_FILE}", content)
        super().add_signature(ref, content)

    def add_route(self, route: control_pb2.Route) -> None:
        name = f"{check_name(route.model, 'model')}/{ROUTES}/{route.revision}.json"
        with self._turn:
            if not self._store.create(name, as_json(route)):
                raise Conflict(f"revision {route.revision} of the route of {route.model} exists already")
            self._keep(name, as_json(route))

    def write_experiment(self, experiment: experiment_pb2.Experiment) -> None:
        model, name = check_name(experiment.spec.model, "model"), check_name(experiment.id, "experiment")
        with self._turn:
            self._store.put(f"{model}/{EXPERIMENTS}/{name}.json", as_json(experiment))
            super().write_experiment(experiment)

    def remove_experiment(self, model: str, name: str) -> None:
        with self._turn:
            self._store.remove(f"{model}/{EXPERIMENTS}/{check_name(name, 'experiment')}.json")
            super().remove_experiment(model, name)

    def write_pipeline(self, name: str, spec: PipelineSpec) -> None:
        with self._turn:
            self.refresh()
            self._store.put(f"{self.check_pipeline_name(name)}/{PIPELINE_FILE}", spec.as_json())
            super().write_pipeline(name, spec)

    def remove_pipeline(self, name: str) -> None:
        with self._turn:
            self._store.remove(f"{check_name(name, 'pipeline')}/{PIPELINE_FILE}")
            super().remove_pipeline(name)

    def remove(self, ref: VariantRef) -> None:
        """Takes a version away, its card first; its number stays taken."""
        with self._turn:
            names = [name for name in self._store.marks(f"{ref}/") if not name.endswith(CLAIM)]
            for name in sorted(names, key=lambda name: not name.endswith(CARD_FILE)):
                self._store.remove(name)
            super().remove(ref)

    def _holds(self, name: str, mark: Mark) -> bool:
        """Whether the copy of an object is still good. What never changes is known by its size from an earlier run."""
        if name in self._known:
            return self._known[name] == mark
        path, match = self.root / name, _COPIED.fullmatch(name)
        return not (match and match["changing"]) and path.is_file() and path.stat().st_size == mark.size

    def _copied(self) -> dict[str, Mark]:
        """What an earlier run has copied."""
        names = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*.json"))
        return {name: Mark(0, "") for name in names if _COPIED.fullmatch(name)}

    def _keep(self, name: str, content: bytes) -> None:
        path = self.root / name
        with self._staged() as staging:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(staging, content)
            staging.replace(path)

    def _copy(self, name: str, path: Path) -> None:
        with self._staged() as staging:
            self._store.download(name, staging)
            staging.replace(path)

    @contextlib.contextmanager
    def _staged(self) -> Iterator[Path]:
        """A name for a file on its way into the copy.

        Raises:
            Refused: the disk is full, or the folder may not be written.
        """
        staging = self.root / f".staging-{uuid.uuid4().hex}"
        try:
            yield staging
        except OSError as error:
            raise Refused("the copy of the object store cannot be written", detail=str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)

    def _forget(self, name: str) -> None:
        match = _COPIED.fullmatch(name)
        if match and match["version"]:
            shutil.rmtree(self.root / match["version"], ignore_errors=True)
        else:
            (self.root / name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Removes what killed processes have left half copied."""
        for left in self.root.glob(".staging-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
