"""`making.json`: published with its version, read strictly, and optional."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lathe.errors import BadVariant
from lathe.making import Standing, parse_making
from lathe.repository import Repository, VariantRef
from tests.models import card_for

STEPS: list[dict[str, Any]] = [
    {
        "name": "pruned, step 1",
        "kind": "prune",
        "sentences": ["hidden channels by taylor"],
        "curve": [[16, 0.5], [32, None], [48, 0.25]],
        "rounds": [{"round": 1, "left": 0.8, "note": "ignored"}],
        "channels": {"conv_5": {"width": 96, "kept": 32, "losses": [[0.0, 0.1], [0.5, 0.3]]}},
        "layers": {"conv_2": {"error": 0.01, "seconds_saved": -0.0002}, "conv_3": {"error": None}},
        "size_bytes": 1_250_000,
        "agreement": 0.931,
        "speedup": 2.5,
        "of a later release": {},
    },
    {"name": "bare", "kind": "quantize", "sentences": []},
]
LAYER: dict[str, Any] = {
    "name": "conv_0",
    "operator": "Conv",
    "shape": [1, 32, -1, 160],
    "macs": 17694720,
    "parameters": 896,
    "precision": "int8",
    "sparsity": 0.0,
}


@pytest.fixture
def ref(repository: Repository) -> VariantRef:
    return repository.publish(card_for("spots", "c"), b"weights", {"steps": STEPS, "layers": [LAYER], "new": 1})


def test_it_is_published_and_read_back(repository: Repository, ref: VariantRef) -> None:
    content = repository.making(ref)
    assert content is not None
    making = parse_making(content, str(ref))
    prune, bare = making.steps
    assert prune.curve == [(16, 0.5), (48, 0.25)]
    assert prune.rounds == [{"round": 1, "left": 0.8}]
    assert (prune.channels["conv_5"].kept, prune.channels["conv_5"].losses[1]) == (32, (0.5, 0.3))
    assert list(prune.layers) == ["conv_2"]
    assert prune.after == Standing(1_250_000, 0.931, 2.5)
    assert bare.after is None
    assert (bare.curve, bare.channels, bare.layers) == ([], {}, {})
    assert (making.layers[0].shape, making.layers[0].precision) == ([1, 32, -1, 160], "int8")


def test_a_version_without_it(repository: Repository) -> None:
    assert repository.making(repository.newest("spots", "a")) is None
    assert sorted(path.name for path in repository.folder(VariantRef("spots", "a", 1)).iterdir()) == [
        "card.json",
        "model.onnx",
    ]


def test_what_is_not_finite_is_published_as_null(repository: Repository) -> None:
    curve = [(1, float("nan")), (2, float("inf")), (3, 0.5)]
    steps = [{"name": "a", "kind": "distill", "sentences": [], "curve": curve}]
    ref = repository.publish(card_for("spots", "c"), b"weights", {"steps": steps})
    content = repository.making(ref)
    assert content is not None
    assert parse_making(content, "it").steps[0].curve == [(3, 0.5)]


def test_what_is_no_json_leaves_nothing(repository: Repository) -> None:
    with pytest.raises(TypeError):
        repository.publish(card_for("spots", "c"), b"weights", {"steps": object()})
    assert sorted(path.name for path in repository.root.iterdir()) == ["spots"]
    assert repository.variants("spots") == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b" " * ((16 << 20) + 1), "is larger than 16 MiB"),
    ],
)
def test_a_broken_file_is_an_error(content: bytes, told: str, repository: Repository, ref: VariantRef) -> None:
    (repository.folder(ref) / "making.json").write_bytes(content)
    with pytest.raises(BadVariant, match=told):
        repository.making(ref)


@pytest.mark.fault(46)
def test_a_link_or_a_pipe_is_not_followed(repository: Repository, ref: VariantRef, tmp_path: Path) -> None:
    path = repository.folder(ref) / "making.json"
    path.rename(tmp_path / "making.json")
    path.symlink_to(tmp_path / "making.json")
    with pytest.raises(BadVariant, match="not a plain file"):
        repository.making(ref)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadVariant, match="not a plain file"):
        repository.making(ref)


STEP = {"name": "a", "kind": "prune", "sentences": []}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"steps": {}}, "making.json of x: steps is not a list"),
        ({"steps": [1]}, "making.json of x, steps 1: is not an object"),
        ({"steps": [{"kind": "prune", "sentences": []}]}, "steps 1: name is not text"),
        ({"steps": [STEP | {"sentences": [1]}]}, "steps 1: sentences is not a list of texts"),
        ({"steps": [STEP, STEP | {"curve": [[1]]}]}, "steps 2: curve is not a list of pairs of numbers"),
        ({"steps": [STEP | {"curve": [[1, "2"]]}]}, "curve is not a list of pairs"),
        ({"steps": [STEP | {"curve": [[1, 10**400]]}]}, "curve is not a list of pairs"),
        ({"steps": [STEP | {"channels": []}]}, "channels is not an object"),
        ({"steps": [STEP | {"channels": {"c": {"width": -1}}}]}, "channels c: width is not a whole number"),
        ({"steps": [STEP | {"layers": {"c": {"error": True}}}]}, "layers c: error is not a number"),
        ({"layers": [LAYER | {"shape": [1.5]}]}, "layers 1: shape is not a list of whole numbers"),
        ({"layers": [LAYER | {"macs": float("inf")}]}, "layers 1: macs is not a whole number"),
    ],
)
def test_a_key_of_the_wrong_form_is_named(content: dict[str, Any], told: str) -> None:
    with pytest.raises(BadVariant) as raised:
        parse_making(content, "x")
    assert told in raised.value.message
