"""The committed recipe's INT8 variant on real faces, as the command line judges it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lathe.progress import Progress
from lathe.repository import Repository, VariantRef
from lathe_compression.comparisons import Faces
from lathe_compression.compress import compress
from lathe_compression.error_rates import ErrorRates, error_rates
from lathe_compression.evaluate_embedding import EmbeddingEvaluation, FaceProtocol, evaluate_embedding
from lathe_compression.match_thresholds import points_within, thresholds_of
from lathe_compression.recipe import load_recipe
from tests.conftest import ROOT

FMR = 1e-3


@pytest.fixture(scope="module")
def evaluation(lathe_data: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingEvaluation:
    """`int8` beside `fp32` on all pairs, the faces found by the detector that ships."""
    root = tmp_path_factory.mktemp("face-embed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LATHE_DATA")  # cards without thresholds will do, and take half the time
        compress(load_recipe(ROOT / "recipes/face-embed.toml"), root, Progress(), only=["int8"])
    protocol = FaceProtocol(detector=ROOT / "models/face/int8")
    ref = VariantRef("face-embed", "int8", 1)
    return evaluate_embedding(Repository(root), ref, lathe_data / "lfw-dev/pairs.txt", protocol, Progress())


def test_fp32_is_as_good_as_published(evaluation: EmbeddingEvaluation) -> None:
    """98.93 % on all ten folds."""
    assert evaluation.its.accuracy.mean.value > 0.987


def test_int8_is_within_a_point_and_the_faces_are_enough_to_know(evaluation: EmbeddingEvaluation) -> None:
    difference = evaluation.difference
    assert difference.accuracy.interval().low > -0.01
    assert difference.fnmr[FMR].interval().high < 0.01
    assert difference.rank1.interval().low > -0.01


def test_enrolled_faces_may_stay(evaluation: EmbeddingEvaluation) -> None:
    assert evaluation.cross
    assert evaluation.cross.less(evaluation.its).fnmr[FMR].interval().high < 0.01


def test_nobody_is_missed(evaluation: EmbeddingEvaluation) -> None:
    figures = evaluation.as_json()
    assert figures["failures_to_acquire"] <= 3
    assert (figures["pictures"], figures["pairs"], figures["left_out"]) == (3074, 2400, 0)
    assert list(figures["fnmr"]) == ["0.01", "0.001", "0.0001"]


def test_int8_is_faster(evaluation: EmbeddingEvaluation) -> None:
    """How much faster is the benchmark's to say: this machine may be busy."""
    assert evaluation.speedup > 1.5


def test_thresholds_keep_their_rate_with_other_people(evaluation: EmbeddingEvaluation) -> None:
    """Found on every second person, tried on the others."""
    people = np.array(evaluation.data.subjects)
    is_known = np.unique(people, return_inverse=True)[1] % 2 == 0
    for embedded in evaluation.judged.embedded.values():
        known, others = (Faces(people[half], embedded.vectors[half]) for half in (is_known, ~is_known))
        for one in thresholds_of(points_within(known.probes, people[is_known], (1e-2, FMR))):
            rates: ErrorRates = error_rates(others, (), thresholds=(one.min_similarity,), resamples=1)
            assert one.fmr_low <= rates.decided[one.min_similarity].fmr.value <= one.fmr_high
