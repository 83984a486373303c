"""What only the server's tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lathe.cli import main
from lathe.repository import Repository
from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.vision import Detector
from lathe_server.vision.detections import Thresholds
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for, doubler, echo_of_every_type


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The network of bright spots with all that surrounds it, in this process."""
    return Detector(OnnxRuntimeEngine(bright_spots()), "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)


def publish_open_models(folder: Path) -> Path:
    """A repository for the Open Inference Protocol: pictures (`spots`: a, and b that is not on its route) and tensors
    (`echo`, `double`, `halves`, and `named`, whose input is called as that of pictures)."""
    root = folder / "models"
    root.mkdir()
    repository = Repository(root)
    repository.publish(card_for("spots", "a", recommended=True), bright_spots())
    repository.publish(card_for("spots", "b"), bright_spots(box_pixels=16.0))
    publish_tensors(root, "echo/plain", echo_of_every_type())
    publish_tensors(root, "double/plain", doubler())
    publish_tensors(root, "halves/plain", doubler(halves=True))
    publish_tensors(root, "named/plain", doubler(name="image"))
    return root


def publish_tensors(root: Path, name: str, network: bytes) -> None:
    """Publishes a network of tensors as the command does."""
    file = root.parent / f"{name.replace('/', '-')}.onnx"
    file.write_bytes(network)
    assert main(["repo", "publish", str(root), str(file), name]) == 0


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on `publish_open_models`, for tests that leave its routes as they are."""
    folder = tmp_path_factory.mktemp("open")
    with start_server(publish_open_models(folder), folder / "log") as running:
        yield running
