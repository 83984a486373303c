"""kill -9 at random moments of a gallery's life: what was acknowledged is kept, and what was deleted stays away."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ROUNDS = 30


@pytest.mark.parametrize("seed", [1])
def test_what_was_acknowledged_outlives_its_process(seed: int) -> None:
    """A thousand rounds: `make gallery-kills`."""
    command = [sys.executable, "-m", "tests.gallery_kills", str(ROUNDS), str(seed)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "server")])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    assert tally["kills"] == ROUNDS
    assert tally["enrolled"] > ROUNDS
    assert tally["deleted"] > 0
