"""The variants that come with the repository: small, told about, and at work at once, without torch."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from lathe.errors import NotFound
from lathe.packaged import packaged_file
from lathe.repository import Repository
from lathe.v1 import card_pb2
from tests.conftest import ROOT, start_server

MODELS = ROOT / "models"
VARIANTS = ("int8", "pruned-int8", "student-int8")
TRAINED_ON = ("Labeled Faces in the Wild", "COCO", "crowds", "Intel IoT DevKit", "facenet-pytorch")


def card(variant: str) -> card_pb2.Card:
    repository = Repository(MODELS)
    return repository.card(repository.newest("face", variant))


def test_they_are_three_and_take_four_megabytes_at_most() -> None:
    assert tuple(sorted(Repository(MODELS).variants("face"))) == VARIANTS
    assert sum(path.stat().st_size for path in (MODELS / "face").rglob("*") if path.is_file()) <= 4e6


@pytest.mark.parametrize("variant", VARIANTS)
def test_card_is_of_its_file_and_names_what_made_it(variant: str) -> None:
    own = card(variant)
    content = (MODELS / f"face/{variant}/{own.version}/model.onnx").read_bytes()
    assert (own.sha256, own.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert own.precision == card_pb2.PRECISION_INT8
    assert own.latency[0].size == own.serving_size
    notices, notice_file = " ".join(own.notices), (MODELS / "NOTICE").read_text("utf-8")
    assert f"`{variant}`" in notice_file
    for source in TRAINED_ON:
        assert source in notices
        assert source in notice_file


def test_each_finds_a_face_when_served(tmp_path: Path) -> None:
    try:
        picture = packaged_file("scikit-image:skimage/data/astronaut.png").read_bytes()
    except NotFound as error:
        pytest.skip(error.message)
    shutil.copytree(MODELS, tmp_path / "models")
    with start_server(tmp_path / "models", tmp_path / "server.log") as server, server.client() as client:
        assert client.detect("face", picture).variant == "int8"  # what its recipe recommends
        for variant in VARIANTS:
            client.set_route("face", {variant: 1})
            result = client.detect("face", picture)
            assert result.variant == variant
            np.testing.assert_allclose(result.detections.xyxy[0], (176, 58, 272, 180), atol=20)
