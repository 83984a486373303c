"""Real servers on real ports with small real models, and the fault list's bookkeeping."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from lathe import Client
from lathe.repository import Repository
from lathe.server_process import ServerProcess
from lathe.v1 import card_pb2
from tests.models import bright_spots, card_for

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="print the fault list with the test of each line")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults"):
        config.option.verbose = -2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--faults"):
        return
    tests: dict[int, list[str]] = {}
    for item in config.stash.get(_COLLECTED, []):
        for mark in item.iter_markers("fault"):
            for number in mark.args:
                tests.setdefault(number, []).append(item.nodeid.partition("[")[0])
    for number in range(1, 92):
        terminalreporter.write_line(f"{number:2}  {', '.join(sorted(set(tests.get(number, ['-']))))}")


_COLLECTED: pytest.StashKey[list[pytest.Item]] = pytest.StashKey()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_COLLECTED] = list(items)


class RunningServer(ServerProcess):
    """A `lathe serve` process on free ports."""

    def client(self) -> Client:
        return Client(self.grpc, self.control)


@contextmanager
def start_server(repository: Path | str, log: Path, *flags: str) -> Iterator[RunningServer]:
    """Starts `lathe serve` and waits until it says that it is ready."""
    with RunningServer(repository, log, flags) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Variants `a` (recommended) and `b` of the model `spots`: small networks that find bright spots."""
    root = tmp_path / "models"
    root.mkdir()
    repository = Repository(root)
    repository.publish(card_for("spots", "a", recommended=True), bright_spots())
    repository.publish(card_for("spots", "b"), bright_spots(box_pixels=16.0))
    return repository


@pytest.fixture
def server(repository: Repository, tmp_path: Path) -> Iterator[RunningServer]:
    """A server on `repository`."""
    with start_server(repository.root, tmp_path / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for the many tests that only ask; nobody changes its route or repository."""
    folder = tmp_path_factory.mktemp("shared")
    root = folder / "models"
    root.mkdir()
    Repository(root).publish(card_for("spots", "a", recommended=True), bright_spots())
    with start_server(root, folder / "server.log") as running:
        yield running


@pytest.fixture
def publish(repository: Repository) -> Callable[[card_pb2.Card, bytes], object]:
    return repository.publish


@pytest.fixture(scope="session")
def spot_jpeg() -> bytes:
    """640×480, black with one white square: one detection."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[240:256, 320:336] = 255  # one cell of the network
    ok, jpeg = cv2.imencode(".jpg", pixels)
    assert ok
    return jpeg.tobytes()


@pytest.fixture(scope="session")
def lathe_data() -> Path:
    """Real labelled pictures; tests that need them skip where they are not."""
    folder = os.environ.get("LATHE_DATA")
    if not folder:
        pytest.skip("LATHE_DATA is not set: no labelled pictures")
    return Path(folder)


@pytest.fixture(scope="session")
def face_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed recipe's variants, made once."""
    from lathe.progress import Progress
    from lathe_compression.compress import compress
    from lathe_compression.recipe import load_recipe

    root = tmp_path_factory.mktemp("face") / "models"
    compress(load_recipe(ROOT / "recipes/face.toml"), root, Progress())
    return root
