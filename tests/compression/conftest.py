"""The shapes detector's weights, trained once and kept from run to run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.compression import shapes_detector, shapes_pictures


@pytest.fixture(scope="session")
def shapes_weights(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of weights for the factory `tests.compression.shapes_detector:shapes_detector`, which finds it.

    Trained where pytest's cache has none that this very code made with this very torch.
    """
    sources = [Path(str(module.__file__)).read_bytes() for module in (shapes_detector, shapes_pictures)]
    key = hashlib.sha256(b"".join([*sources, torch.__version__.encode()])).hexdigest()[:16]
    cache = pytestconfig.cache
    folder = cache.mkdir("shapes_detector") if cache else tmp_path_factory.mktemp("shapes_detector")
    path = folder / f"{key}.pt"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save(shapes_detector.train().state_dict(), unfinished)
        unfinished.replace(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(shapes_detector.WEIGHTS_VARIABLE, str(path))
        yield path
