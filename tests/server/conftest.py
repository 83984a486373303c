"""What only the server's tests need."""

from __future__ import annotations

import pytest

from lathe_server.engines import OnnxRuntimeEngine
from lathe_server.vision import Detector
from lathe_server.vision.detections import Thresholds
from tests.models import bright_spots


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The network of bright spots with all that surrounds it, in this process."""
    return Detector(OnnxRuntimeEngine(bright_spots()), "heatmap", Thresholds(0.5, 0.3, 100), (160, 128), 32)
