"""What only the server's tests need."""

from __future__ import annotations

from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Pictures (`spots`: a, and b that is not on its route) and tensors (`echo`, `double`, `halves`, and `named`, whose
    input is called as that of pictures), for the Open Inference Protocol."""
    folder = tmp_path_factory.mktemp("open")
    root = folder / "models"
    root.mkdir()
    repository = Repository(root)
    repository.publish(card_for("spots", "a", recommended=True), bright_spots())
    repository.publish(card_for("spots", "b"), bright_spots(box_pixels=16.0))
    tensors = {
        "echo": echo_of_every_type(),
        "double": doubler(),
        "halves": doubler(halves=True),
        "named": doubler(name="image"),
    }
    for name, model in tensors.items():
        (folder / f"{name}.onnx").write_bytes(model)
        assert main(["repo", "publish", str(root), str(folder / f"{name}.onnx"), f"{name}/plain"]) == 0
    with start_server(root, folder / "log") as running:
        yield running
