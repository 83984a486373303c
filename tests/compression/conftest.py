"""What takes long to make, once for all tests: the shapes detector's weights, kept from run to run, and a small run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.compression import shapes_detector, shapes_pictures
from tests.compression.small_recipe import TRAINED, write_recipe
from tests.compression.small_runs import run


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums are rounded otherwise on two; the same bytes are promised for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an undisturbed run of every kind of step, on one thread."""
    folder = tmp_path_factory.mktemp("whole")
    write_recipe(folder, TRAINED)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run(folder)
    torch.set_num_threads(before)
    return folder
