"""Layers are measured in INT8 one by one, and a rule chooses those that stay in float."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest

from lathe_compression.hygiene import clean
from lathe_compression.mixed_precision import (
    LayerCost,
    layers_to_keep,
    measure_layers,
    median_and_noise,
    relative_error,
)
from lathe_compression.quantize import Quantize, quantize
from tests.compression.graphs import pixels
from tests.compression.networks import exported

CALIBRATION = [pixels(32, 64, seed=n) for n in range(3)]
WHOLE = 0.005

RULES = {
    "faster in INT8": (LayerCost(0.01, 2e-4, 1e-5, WHOLE), False),
    "slower in INT8": (LayerCost(0.01, -2e-4, 1e-5, WHOLE), True),
    "slower, but within noise": (LayerCost(0.01, -2e-4, 3e-4, WHOLE), False),
    "slower, but by less than matters": (LayerCost(0.01, -2e-5, 1e-6, WHOLE), False),
    "faster, and loses too much": (LayerCost(0.3, 2e-4, 1e-5, WHOLE), True),
    "loses as much as is allowed": (LayerCost(0.1, 0.0, 1e-5, WHOLE), False),
}


@pytest.mark.parametrize(("cost", "kept"), RULES.values(), ids=RULES)
def test_rule(cost: LayerCost, kept: bool) -> None:
    assert layers_to_keep({"layer": cost}, max_loss=0.1, slower=0.01) == (("layer",) if kept else ())


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return clean(exported())[0]


@pytest.fixture(scope="module")
def costs(fp32: onnx.ModelProto) -> dict[str, LayerCost]:
    return measure_layers(fp32, Quantize(), CALIBRATION, 32, [pixels(32, 64, seed=7)], runs=5)


def test_every_convolution_is_measured(fp32: onnx.ModelProto, costs: dict[str, LayerCost]) -> None:
    assert list(costs) == [node.name for node in fp32.graph.node if node.op_type == "Conv"]
    assert all(0 < cost.error < 0.5 and cost.seconds > 0 and cost.noise_seconds >= 0 for cost in costs.values())
    assert len({cost.error for cost in costs.values()}) > 4, "each layer has an error of its own"


def test_measurements_survive_json(costs: dict[str, LayerCost]) -> None:
    text = json.dumps({name: asdict(cost) for name, cost in costs.items()})
    assert {name: LayerCost(**table) for name, table in json.loads(text).items()} == costs


def test_the_same_choice_gives_the_same_bytes(fp32: onnx.ModelProto, costs: dict[str, LayerCost]) -> None:
    worst = max(costs, key=lambda name: costs[name].error)
    chosen = layers_to_keep(costs, max_loss=costs[worst].error * 0.999, slower=10.0)
    assert chosen == (worst,)
    step = replace(Quantize(), float_layers=chosen)
    first, second = (quantize(fp32, step, CALIBRATION, 32)[0].SerializeToString() for _ in range(2))
    assert first == second


def test_layers_that_stay_in_float_anyway_are_not_measured(fp32: onnx.ModelProto) -> None:
    step = Quantize(float_layers=("*stem*", "*heads*", "*deep*"))
    seen: list[int] = []
    costs = measure_layers(fp32, step, CALIBRATION, 32, [pixels(32, 64, seed=7)], lambda: seen.append(1), runs=1)
    assert list(costs) == [node.name for node in fp32.graph.node if node.op_type == "Conv" and "down" in node.name]
    assert len(seen) == len(costs)


def test_noise_is_deaf_to_one_interruption() -> None:
    quiet = np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95] * 10)
    interrupted = np.append(quiet, 500.0)
    assert median_and_noise(interrupted)[0] == pytest.approx(1.0, abs=0.01)
    assert median_and_noise(interrupted)[1] == pytest.approx(median_and_noise(quiet)[1], rel=0.1)
    assert median_and_noise(quiet)[1] < 0.05


def test_relative_error_is_the_worst_outputs() -> None:
    reference = [np.ones(4, np.float32), np.full(4, 2, np.float32)]
    assert relative_error([reference[0], reference[1] + 1], reference) == pytest.approx(0.5)
