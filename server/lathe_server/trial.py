"""A variant is loaded in a process of its own before it comes near the frames.

A file may crash the runtime, hang it, or need more memory than there is; what that ends is a child. Only a file that a
trial has passed is loaded beside what serves.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lathe.errors import BadVariant, LatheError, NotFound, Refused
from lathe.repository import Repository, VariantRef
from lathe.signatures import Verifier
from lathe_server.engines import Build, engine_builder, in_batches, metered
from lathe_server.lifecycle import State
from lathe_server.loading import load_servable
from lathe_server.servable import Servable
from lathe_server.settings import FALL_BACK, Settings
from lathe_server.threads import become_loader

ERRORS: dict[str, type[LatheError]] = {kind.__name__: kind for kind in (BadVariant, NotFound, Refused)}
COMMAND = (sys.executable, "-m", "lathe_server.trial")


class Load(Protocol):
    """Brings a variant into memory."""

    def __call__(self, ref: VariantRef, reached: Callable[[State], None] = ..., /) -> Servable: ...


def loader(repository: Repository, settings: Settings) -> Load:
    """What loads variants, here or in a trial.

    Raises:
        Refused: this machine has not the engine that the settings ask for, or not what checks signatures.
        LatheError: there is no such key.
    """
    verifier = Verifier(Path(settings.signed_by)) if settings.signed_by else None
    engine = engine_builder(settings.engine, or_default=settings.engine_missing == FALL_BACK)
    counted = metered(engine, in_batches=settings.max_batch > 1)
    build: Build = in_batches(counted, settings.max_batch, settings.batch_wait_seconds)

    def load(ref: VariantRef, reached: Callable[[State], None] = lambda state: None, /) -> Servable:
        return load_servable(
            repository,
            ref,
            max_pixels=settings.max_frame_pixels,
            max_model_bytes=settings.max_model_bytes,
            max_slowdown=settings.max_slowdown,
            build=build,
            verifier=verifier,
            reached=reached,
        )

    return load


class Trials:
    """Tries each file once, and sees each time whether there is room for it; blocking, for the threads that load.

    Args:
        room: bytes that are free for another variant; None where nothing limits them.
        command: starts the child.
    """

    def __init__(
        self,
        repository: Repository,
        settings: Settings,
        room: Callable[[], int | None] = lambda: None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._room = room
        self._command = command
        self._passed: dict[str, int] = {}  # by digest: the bytes that loading took

    def __call__(self, ref: VariantRef) -> None:
        """Returns where the variant may be loaded.

        Raises:
            NotFound: it is not published.
            BadVariant: it fails a check, ends the process, takes too long, or needs more memory than there is.
            Refused: this machine lacks what the engine needs.
        """
        digest = self._repository.card(ref).sha256
        if digest not in self._passed:
            self._passed[digest] = self._try(ref)
        needed, room = self._passed[digest], self._room()
        if room is not None and needed > room:
            raise BadVariant(f"{ref} needs {needed >> 20} MB to load, and {room >> 20} MB are free")

    def _try(self, ref: VariantRef) -> int:
        """Bytes that the child took to load it."""
        seconds = self._settings.load_seconds
        wanted = json.dumps({"ref": str(ref), "settings": _of_loading(self._settings)})
        command = [*self._command, str(self._repository.root), wanted]
        try:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise Refused("no process can be started to try the variant in", detail=str(error)) from error
        try:
            said, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise BadVariant(f"{ref} was not loaded within {seconds:g} s") from None
        finally:
            child.kill()
            child.wait()
        return _judged(ref, child.returncode, said)


def _judged(ref: VariantRef, code: int, said: bytes) -> int:
    if code < 0:
        raise BadVariant(f"{ref} ends the process that loads it ({signal.Signals(-code).name})")
    report: dict[str, Any] = {}
    with contextlib.suppress(ValueError, IndexError):
        report = json.loads(said.splitlines()[-1])
    if "error" in report:
        raise ERRORS[report["error"]](report["message"], detail=report["detail"])
    if "bytes" not in report:
        raise BadVariant(f"{ref} cannot be loaded: its trial ended with exit code {code}")
    return int(report["bytes"])


def _of_loading(settings: Settings) -> dict[str, Any]:
    """What a loader has to know of the settings."""
    names = (
        "engine",
        "engine_missing",
        "max_batch",
        "batch_wait_seconds",
        "max_frame_pixels",
        "max_model_bytes",
        "max_slowdown",
        "signed_by",
    )
    return {name: getattr(settings, name) for name in names}


def main() -> None:
    """The child: loads one variant, and says as the last line of its output what that took, or what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("wanted", type=json.loads)
    options = parser.parse_args()
    _be_expendable()
    model, variant, version = options.wanted["ref"].split("/")
    before = _peak_bytes()
    report: dict[str, Any]
    try:
        load = loader(Repository(options.repository), Settings(**options.wanted["settings"]))
        load(VariantRef(model, variant, int(version)))
        report = {"bytes": max(0, _peak_bytes() - before)}
    except LatheError as error:
        kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "Refused")
        report = {"error": kind, "message": error.message, "detail": error.detail}
    print(f"\n{json.dumps(report)}", flush=True)


def _be_expendable() -> None:
    """Goes last, and first when memory ends; goes with the server too."""
    become_loader()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    with contextlib.suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_bytes() -> int:
    """The most memory that this process has held; 0 where the system does not say. `getrusage` also counts what the
    parent held when it started the child."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
