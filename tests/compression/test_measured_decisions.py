"""Decisions that rest on measurements: taken once, and kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from lathe_compression import carry_out
from lathe_compression.quantize import assert_int8_kernels
from tests.compression.small_recipe import recipe, write_recipe
from tests.compression.small_runs import (
    chain,
    latency_by_macs,
    run,
    workshop,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_latency_is_the_target_and_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts are made anew until the time fits."""
    asked: list[float] = []

    def share(model: onnx.ModelProto, reference: onnx.ModelProto, size_wh: tuple[int, int]) -> float:
        asked.append(latency_by_macs(model, reference, size_wh))
        return asked[-1]

    monkeypatch.setattr(carry_out, "latency_share", share)
    prune = '{ prune = { keep = 0.8, target = "latency", rounds = 1, round_to = 2, least = 2, probe = 4 } }'
    write_recipe(tmp_path, recipe(prune, teacher="block_detector"))
    (task,) = chain(tmp_path, "a")
    shop = workshop(tmp_path)
    facts = shop.facts(task)
    assert facts["rounds"][-1]["left"] == pytest.approx(0.8, rel=carry_out.LATENCY_TOLERANCE)
    assert len(asked) > 2, "the start, before the cut, and at least one cut"
    measured = len(asked)
    assert workshop(tmp_path).facts(task) == facts
    assert len(asked) == measured


def test_latencies_of_an_interrupted_step_are_not_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They decided the first cut, so the second run must go by the same ones."""
    times = itertools.count(100, -3)
    monkeypatch.setattr(carry_out, "latency_share", lambda *_: next(times) / 100)
    monkeypatch.setattr(carry_out, "LATENCY_ATTEMPTS", 1)
    prune = '{ prune = { keep = 0.7, target = "latency", rounds = 2, pictures = 8, probe = 4 } }'
    write_recipe(tmp_path, recipe(prune, teacher="block_detector"))
    (task,) = chain(tmp_path, "a")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carry_out, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            workshop(tmp_path).facts(task)
    taken = json.loads((tmp_path / f"cache/steps/{task.key}.part/{carry_out.LATENCIES_FILE}").read_text())
    facts = workshop(tmp_path).facts(task)
    kept = json.loads((tmp_path / f"cache/steps/{task.key}/{carry_out.LATENCIES_FILE}").read_text())
    assert taken.items() <= kept.items()
    assert len(kept) > len(taken) >= 2
    assert [one["round"] for one in facts["rounds"]] == [1, 2]


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_layers_that_lose_too_much_stay_in_float(method: str, tmp_path: Path) -> None:
    """Half of them do, where the middle one's loss is the most that is allowed."""

    def made(max_loss: float) -> tuple[dict[str, float], int]:
        """Each layer's error, and how many INT8 kernels the file has."""
        settings = f'method = "{method}", mixed = true, max_loss = {max_loss}, slower = 1.0, pictures = 8'
        write_recipe(tmp_path, recipe(f"{{ quantize = {{ {settings} }} }}"))
        run(tmp_path)
        (task,) = chain(tmp_path, "a")
        shop = workshop(tmp_path)
        errors = {name: cost["error"] for name, cost in shop.facts(task)["layers"].items()}
        return errors, assert_int8_kernels(shop.quantized_graph(task))

    errors, all_kernels = made(1.0)
    middle = float(np.median(list(errors.values())))
    again, kernels = made(middle)
    assert again == errors
    assert 0 < kernels < all_kernels
