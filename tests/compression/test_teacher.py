"""Where a teacher may come from: a factory or an ONNX file, and never a pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from lathe.errors import BadVariant, InvalidInput, NotFound
from lathe_compression.teacher import load_teacher
from tests.compression.graphs import graph

HERE = Path()


def test_factory_gives_an_evaluating_network() -> None:
    network = load_teacher("tests.compression.networks:tiny_detector", HERE)
    assert not any(module.training for module in network.modules())
    assert len(network(torch.zeros(1, 3, 32, 32))) == 4


def test_class_is_a_factory() -> None:
    assert not load_teacher("torch.nn:Identity", HERE).training


def test_onnx_file_is_relative_to_the_recipe(tmp_path: Path) -> None:
    onnx.save(graph([helper.make_node("Relu", ["x"], ["y"])], {}), tmp_path / "net.onnx")
    assert float(load_teacher("net.onnx", tmp_path)(torch.tensor([-1.0, 2.0])).sum()) == 2.0


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("net.onnx", NotFound, "there is no ONNX file"),
        ("no_such_package.networks:build", NotFound, "there is no build in no_such_package.networks"),
        ("tests.compression.networks:no_such_factory", NotFound, "there is no no_such_factory"),
        ("tests.compression.networks:not_a_network", InvalidInput, "returned str, not a torch.nn.Module"),
        ("tests.compression.networks:OUTPUTS", InvalidInput, "it cannot be called"),
        ("networks", InvalidInput, "neither `package.module:factory` nor an .onnx file"),
        (":build", InvalidInput, "neither"),
        ("networks:", InvalidInput, "neither"),
        ("../networks:build", InvalidInput, "neither"),
        (".networks:build", InvalidInput, "neither"),
    ],
)
def test_wrong_name_is_told(name: str, error: type[Exception], told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=told):
        load_teacher(name, tmp_path)


class _Touch:
    """Its unpickling would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.fault(42)
@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "net.ckpt", "net.onnx"])
def test_pickle_is_never_loaded(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(_Touch(tmp_path / "run")))
    with pytest.raises(BadVariant, match=r"never loaded|not a valid ONNX file"):
        load_teacher(name, tmp_path)
    assert not (tmp_path / "run").exists()
