"""Steps in any order that makes sense end in INT8 that answers as its own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from lathe.repository import Repository
from lathe_compression.plan import plan
from lathe_compression.quantize import assert_int8_kernels
from tests.compression.graphs import run as answer
from tests.compression.small_recipe import recipe, write_recipe
from tests.compression.small_runs import (
    DISTILL,
    PRUNE,
    QAT,
    STUDENT,
    run,
    workshop,
)

pytestmark = pytest.mark.usefixtures("one_thread")

ORDERS = {
    "ptq": ("tiny_detector", ["{ quantize = {} }"]),
    "distill, prune, ptq": ("block_detector", [DISTILL, PRUNE, "{ quantize = {} }"]),
    "distill, prune, qat": ("block_detector", [DISTILL, PRUNE, QAT]),
    "prune, distill, qat": ("block_detector", [PRUNE, DISTILL, QAT]),
    "student, prune, qat": ("block_detector", [STUDENT, PRUNE, QAT]),
    "student, prune, distill, ptq": ("plain_block_detector", [STUDENT, PRUNE, DISTILL, "{ quantize = {} }"]),
}


@pytest.mark.parametrize(("teacher", "steps"), ORDERS.values(), ids=ORDERS)
def test_steps_in_any_order_end_in_int8_that_answers_as_its_own_network(
    teacher: str, steps: list[str], tmp_path: Path
) -> None:
    """Within a twentieth of each output's range, on a picture that calibrated nothing."""
    write_recipe(tmp_path, recipe(", ".join(steps), teacher=teacher))
    run(tmp_path)
    repository = Repository(tmp_path / "models")
    model = onnx.load_from_string(repository.model_bytes(repository.newest("spots", "a")))
    assert assert_int8_kernels(model) > 4
    shop = workshop(tmp_path)
    end = plan(shop.recipe, shop.inputs)["a"]
    assert end
    picture = np.random.default_rng(5).integers(0, 256, (1, 64, 96, 3), np.uint8)
    twin = shop.network(end.parent)(torch.from_numpy(picture).permute(0, 3, 1, 2).float())
    for own, other in zip(answer(model, picture), twin, strict=True):
        wanted = other.detach().numpy()
        assert float(np.sqrt(np.mean((own - wanted) ** 2))) < 0.05 * max(1.0, float(np.ptp(wanted)))
