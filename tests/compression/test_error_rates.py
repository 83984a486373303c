"""Error rates against sums done by hand and done the long way, and intervals against many made-up worlds."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe.evidence import resamples_of
from lathe_compression import comparisons, error_rates
from lathe_compression.comparisons import NO_MATCH, Faces
from lathe_compression.match_thresholds import points_across, points_within, thresholds_of
from tests.compression.face_vectors import exact_vectors, people

Comparison = tuple[float, int, int]
"""Similarity, and both subjects."""

FMRS = (0.5, 0.2, 0.05)


def one_by_one(faces: Faces) -> list[Comparison]:
    """Every comparison, the slow way."""
    found = []
    for i, j in product(range(len(faces)), repeat=2):
        if i == j or (j < i and not faces.is_cross):
            continue
        one, other = faces.enrolled[i], faces.probes[j]
        similarity = float(one @ other) if one.any() and other.any() else NO_MATCH
        found.append((similarity, int(faces.subjects[i]), int(faces.subjects[j])))
    return found


def fnmr_the_long_way(found: list[Comparison], fmr: float, counts: NDArray[np.int64]) -> float:
    """Tries every threshold, the lowest first."""
    genuine = [(score, counts[one]) for score, one, other in found if one == other]
    impostor = [(score, counts[one] * counts[other]) for score, one, other in found if one != other]
    total = sum(weight for _, weight in genuine)
    if not total:
        return math.nan
    for highest_excluded in sorted({score for score, _ in impostor}):
        false_matches = sum(weight for score, weight in impostor if score > highest_excluded)
        if false_matches <= fmr * sum(weight for _, weight in impostor):
            return float(sum(weight for score, weight in genuine if score <= highest_excluded) / total)
    raise AssertionError


def rate_the_long_way(found: list[Comparison], threshold: float, counts: NDArray[np.int64], is_of_one: bool) -> float:
    """Errors of the comparisons of one person, or of those of two."""
    chosen = [
        (score, counts[one] if is_of_one else counts[one] * counts[other])
        for score, one, other in found
        if (one == other) == is_of_one
    ]
    wrong = sum(weight for score, weight in chosen if (score < threshold) == is_of_one)
    total = sum(weight for _, weight in chosen)
    return float(wrong / total) if total else math.nan


class TestRates:
    """Of one network, and of two."""

    @pytest.mark.parametrize("is_cross", [False, True])
    def test_as_the_long_way(self, is_cross: bool) -> None:
        @settings(max_examples=100, deadline=None)
        @given(exact_vectors())
        def check(drawn: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]) -> None:
            subjects, probes, enrolled = drawn
            faces = Faces(subjects, probes, enrolled if is_cross else None)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(error_rates, "EXPECTED_FALSE_MATCHES", 1e-9)
                rates = error_rates.error_rates(faces, FMRS, thresholds=(0.3, 0.5), resamples=4)
            found = one_by_one(faces)
            impostors = sum(one != other for _, one, other in found)
            assert (rates.impostors, rates.genuine) == (impostors, len(found) - impostors)
            if not impostors or not rates.genuine:
                assert math.isnan(rates.eer)
                return
            people_once = np.ones(len(faces.counts), np.int64)
            resampled = list(resamples_of(len(faces.counts), 4))
            for fmr in FMRS:
                point = rates.at[fmr]
                assert point.fnmr.value == pytest.approx(fnmr_the_long_way(found, fmr, people_once))
                reached = sum(score >= point.min_similarity for score, one, other in found if one != other)
                assert reached <= fmr * impostors
                assert point.measured_fmr.value == pytest.approx(reached / impostors)
                for number, counts in enumerate(resampled):
                    if faces.impostors(counts):
                        expected = fnmr_the_long_way(found, fmr, counts)
                        assert point.fnmr.values[number] == pytest.approx(expected, nan_ok=True)
                        assert point.measured_fmr.values[number] == pytest.approx(
                            rate_the_long_way(found, point.min_similarity, counts, is_of_one=False)
                        )
            for threshold, decided in rates.decided.items():
                for number, counts in enumerate((people_once, *resampled)):
                    values = [(one.value, *one.values)[number] for one in (decided.fmr, decided.fnmr)]
                    for value, is_of_one in zip(values, (False, True), strict=True):
                        expected = rate_the_long_way(found, threshold, counts, is_of_one)
                        assert value == pytest.approx(expected, nan_ok=True)
            thresholds = sorted({score for score, _, _ in found} - {NO_MATCH})
            both = [
                max(
                    np.mean([score >= threshold for score, one, other in found if one != other]),
                    np.mean([score < threshold for score, one, other in found if one == other]),
                )
                for threshold in [*thresholds, 2.0]
            ]
            assert rates.eer == pytest.approx(min(both))

        check()

    def test_by_hand(self) -> None:
        """Directions in the plane, in degrees: Ann 0 and 10, Bob 60 and 100, Cid 200."""
        degrees = np.array([0, 10, 60, 100, 200])
        vectors = np.stack((np.cos(np.radians(degrees)), np.sin(np.radians(degrees))), axis=1)
        faces = Faces(np.array(["Ann", "Ann", "Bob", "Bob", "Cid"]), vectors)
        rates = error_rates.error_rates(faces, ())
        # Of one person: 10° and 40° apart. Of two: 50°, 60°, 90°, 100°, 100°, 140°, 160°, 170°.
        assert (rates.genuine, rates.impostors, rates.eer) == (2, 8, 0.0)

    def test_similarities_are_cosines_however_long_the_vectors_are(self) -> None:
        subjects, vectors = people(40, 3, 0.8, np.random.default_rng(0))
        lengths = np.random.default_rng(1).uniform(0.1, 30, (len(vectors), 1))
        one, other = (error_rates.error_rates(Faces(subjects, each)) for each in (vectors, vectors * lengths))
        assert one.at[1e-2].min_similarity == pytest.approx(other.at[1e-2].min_similarity, abs=1e-6)

    def test_lowest_threshold_that_keeps_the_rate(self) -> None:
        subjects, vectors = people(60, 4, 0.8, np.random.default_rng(2))
        faces = Faces(subjects, vectors)
        impostor = sorted(score for score, one, other in one_by_one(faces) if one != other)
        point = error_rates.error_rates(faces, (1e-2,), resamples=2).at[1e-2]
        allowed = math.floor(1e-2 * len(impostor))
        assert sum(score >= point.min_similarity for score in impostor) == allowed
        assert point.min_similarity == pytest.approx(impostor[-allowed - 1], abs=1e-6)

    def test_a_short_tail_gives_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        faces = Faces(*people(100, 5, 0.8, np.random.default_rng(3)))
        whole = error_rates.error_rates(faces, resamples=50)
        monkeypatch.setattr(comparisons, "_LEAST_TAIL", 1)
        monkeypatch.setattr(comparisons, "_BLOCK", 3000)
        short = error_rates.error_rates(faces, resamples=50)
        assert whole.at.keys() == short.at.keys() == {1e-2, 1e-3, 1e-4}
        for fmr, point in whole.at.items():
            assert short.at[fmr].fnmr.values == pytest.approx(point.fnmr.values, abs=2e-3)
            assert short.at[fmr].min_similarity == pytest.approx(point.min_similarity, abs=1e-6)

    def test_a_low_threshold_lengthens_the_tail(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(comparisons, "_LEAST_TAIL", 1)
        monkeypatch.setattr(comparisons, "_BLOCK", 3000)
        faces = Faces(*people(40, 4, 0.8, np.random.default_rng(12)))
        decided = error_rates.error_rates(faces, (1e-2,), thresholds=(0.0, 0.9), resamples=3).decided
        found = one_by_one(faces)
        for number, counts in enumerate(resamples_of(40, 3)):
            for threshold, one in decided.items():
                expected = rate_the_long_way(found, threshold, counts, is_of_one=False)
                assert one.fmr.values[number] == pytest.approx(expected, abs=1e-5)
        assert decided[0.0].fmr.value > 0.4

    def test_a_threshold_decides_as_it_is_written(self) -> None:
        """0.7 is no float32: the nearest one is below it, and must not match."""
        just = [float(one) for one in (np.float32(0.7), np.nextafter(np.float32(0.7), np.float32(1)))]
        for similarity, matches in zip(just, (False, True), strict=True):
            vectors = np.array([[1, 0], [similarity, np.sqrt(1 - similarity**2)], [-1, 0], [0, -1]])
            faces = Faces(np.array([0, 0, 1, 2]), vectors)
            exactly = float(faces.similarity(slice(0, 1), slice(1, 2))[0, 0])
            fnmr = error_rates.error_rates(faces, (), thresholds=(0.7,), resamples=1).decided[0.7].fnmr
            assert (fnmr.value == 0) == matches == (exactly >= 0.7)

    def test_curve_passes_through_the_points(self) -> None:
        rates = error_rates.error_rates(Faces(*people(60, 4, 0.8, np.random.default_rng(4))), (1e-2,), resamples=2)
        fmr, fnmr = rates.roc.T
        assert (np.diff(fmr) > 0).all()
        assert (np.diff(fnmr) <= 0).all()
        assert fmr[0] == pytest.approx(10 / rates.impostors)
        assert (fmr[-1], fnmr[-1]) == (1.0, 0.0)
        assert np.interp(0.01, fmr, fnmr) == pytest.approx(rates.at[1e-2].fnmr.value)


class TestWhatIsMissing:
    def test_rate_without_enough_comparisons_is_left_out(self) -> None:
        faces = Faces(*people(30, 4, 0.8, np.random.default_rng(0)))  # 6 960 comparisons of two people
        assert list(error_rates.error_rates(faces, resamples=2).at) == [1e-2]

    def test_comparing_both_ways_does_not_make_more_of_them(self) -> None:
        subjects, vectors = people(30, 4, 0.8, np.random.default_rng(0))
        rates = error_rates.error_rates(Faces(subjects, vectors, vectors), resamples=2)
        assert rates.impostors == 2 * 6960
        assert list(rates.at) == [1e-2]

    @pytest.mark.parametrize("subjects", [[0, 0, 0], [0, 1, 2]])
    def test_one_kind_of_comparison_alone_gives_no_rate(self, subjects: list[int]) -> None:
        vectors = np.random.default_rng(0).normal(size=(3, 4))
        rates = error_rates.error_rates(Faces(np.array(subjects), vectors), resamples=2)
        assert math.isnan(rates.eer)
        assert len(rates.roc) == 0
        assert rates.at == {}

    def test_pictures_without_a_vector_match_nobody_and_count(self) -> None:
        subjects, vectors = people(50, 4, 0.05, np.random.default_rng(5))
        before = error_rates.error_rates(Faces(subjects, vectors), (1e-2,), resamples=2)
        vectors[::8] = np.nan  # of every second person one picture of four: half of its six comparisons
        faces = Faces(subjects, vectors)
        rates = error_rates.error_rates(faces, (1e-2,), resamples=2)
        assert before.at[1e-2].fnmr.value == 0
        assert (faces.failures, rates.genuine, rates.impostors) == (25, before.genuine, before.impostors)
        assert rates.at[1e-2].fnmr.value == 0.25
        assert rates.roc[-1].tolist() == [1.0, 0.25]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
    def test_what_is_no_vector_matches_nobody(self, bad: float) -> None:
        vectors = np.ones((3, 4), np.float32)
        vectors[1] = bad
        faces = Faces(np.array([0, 0, 1]), vectors)
        assert faces.failures == 1
        assert faces.similarity(slice(None), slice(None))[1].tolist() == [NO_MATCH] * 3

    def test_a_rate_that_is_asked_for_twice_is_told_once(self) -> None:
        faces = Faces(*people(60, 4, 0.8, np.random.default_rng(4)))
        once, twice = (
            error_rates.error_rates(faces, fmrs, thresholds=(0.5,), resamples=3)
            for fmrs in ((1e-2, 0.02), (1e-2, 0.02, 1e-2))
        )
        assert list(twice.at) == list(once.at)
        for one, other in ((once.at[1e-2], twice.at[1e-2]), (once.at[0.02], twice.at[0.02])):
            assert one.min_similarity == other.min_similarity
            assert one.fnmr.values.tolist() == other.fnmr.values.tolist()
        assert once.decided[0.5].fnmr.value == twice.decided[0.5].fnmr.value

    @pytest.mark.parametrize("fmr", [0.0, 1.0, -0.1, math.nan])
    def test_a_rate_must_be_one(self, fmr: float) -> None:
        with pytest.raises(InvalidInput, match="between 0 and 1"):
            error_rates.error_rates(Faces(*people(3, 2, 0.5, np.random.default_rng(0))), (fmr,))

    @pytest.mark.parametrize("shape", [(3,), (4, 8)])
    def test_each_picture_has_a_subject_and_a_vector(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidInput, match="one subject and one vector"):
            Faces(np.arange(3), np.zeros(shape))


@pytest.mark.parametrize(("rate", "reached"), [(0.01, 2), (0.5, 100), (0.0149, 2), (0.004, 0)])
def test_lowest_threshold_that_keeps_a_rate(rate: float, reached: int) -> None:
    similarity = np.linspace(1, 0, 200, dtype=np.float32)
    threshold = error_rates.lowest_threshold(-similarity, np.arange(1, 201), rate * 200)
    assert np.count_nonzero(similarity >= threshold) == reached


class TestIntervals:
    def test_they_hold_the_truth(self) -> None:
        """Of 80 worlds of 60 people some 95 % hold the false non-match rate of all people, and at least as many the
        false match rate that all people have at the threshold of these; 0.85 to 1 is within chance."""
        random = np.random.default_rng(6)
        everyone = error_rates.error_rates(Faces(*people(1000, 3, 0.8, random)), (1e-2,), resamples=1)
        of_two = np.sort(
            [score for score, one, other in one_by_one(Faces(*people(300, 2, 0.8, random))) if one != other]
        )
        truth = everyone.at[1e-2].fnmr.value
        held = np.zeros(2)
        for _ in range(80):
            point = error_rates.error_rates(Faces(*people(60, 3, 0.8, random)), (1e-2,), resamples=200).at[1e-2]
            true_fmr = 1 - np.searchsorted(of_two, point.min_similarity) / len(of_two)
            for number, (one, true) in enumerate(((point.fnmr, truth), (point.measured_fmr, true_fmr))):
                interval = one.interval()
                held[number] += interval.low <= true <= interval.high
        assert 0.1 < truth < 0.9
        assert (held / 80 >= 0.85).all()

    def test_networks_that_hardly_differ_are_paired(self) -> None:
        random = np.random.default_rng(7)
        subjects, vectors = people(60, 4, 0.8, random)
        other = vectors + random.normal(scale=0.01, size=vectors.shape)
        points = [error_rates.error_rates(Faces(subjects, each), (1e-2,)).at[1e-2] for each in (vectors, other)]
        alone = points[0].fnmr.interval()
        paired = points[1].fnmr.less(points[0].fnmr).interval()
        assert paired.low <= 0 <= paired.high
        assert paired.high - paired.low < 0.5 * (alone.high - alone.low)

    def test_the_same_network_differs_by_nothing(self) -> None:
        faces = Faces(*people(60, 4, 0.8, np.random.default_rng(8)))
        one, other = (error_rates.error_rates(faces, (1e-2,), resamples=20).at[1e-2].fnmr for _ in range(2))
        difference = other.less(one).interval()
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_thresholds_of_a_card() -> None:
    subjects, vectors = people(120, 4, 0.6, np.random.default_rng(9))
    names = [f"person {number}" for number in subjects]
    found = thresholds_of(points_within(vectors, names), "made-up people")
    assert [one.fmr for one in found] == [1e-2, 1e-3, 1e-4]
    assert found[0].min_similarity < found[1].min_similarity < found[2].min_similarity
    assert all(one.fnmr_low <= one.fnmr <= one.fnmr_high for one in found)
    assert all(one.fmr_low < one.fmr < one.fmr_high for one in found)
    assert (found[0].data, found[0].impostor_comparisons) == ("made-up people", 120 * 119 // 2 * 16)


class TestAcross:
    """Another network's vectors may be compared with the enrolled ones where it is proven, and only there."""

    def test_near_vectors_may(self) -> None:
        random = np.random.default_rng(10)
        subjects, vectors = people(120, 4, 0.5, random)
        near = vectors + random.normal(scale=1e-3, size=vectors.shape)
        within = points_within(vectors, subjects, (1e-2,))
        (found,) = points_across(vectors, near, subjects, within, margin=0.03).values()
        (own,) = within.values()
        assert found.min_similarity == pytest.approx(own.min_similarity, abs=0.01)
        assert found.fnmr.value == pytest.approx(own.fnmr.value, abs=0.01)
        assert found.impostor_comparisons == 2 * own.impostor_comparisons

    def test_few_people_prove_nothing_however_well_they_do(self) -> None:
        """Vectors that hardly differ, of so few people that their interval is a point: 3 / 100 may still be refused."""
        subjects, vectors = people(100, 2, 0.01, np.random.default_rng(10))
        alone = np.arange(1000, 1030)  # who has one picture is not compared with himself
        subjects = np.concatenate((subjects, alone))
        vectors = np.concatenate((vectors, np.random.default_rng(1).normal(size=(len(alone), 8))))
        within = points_within(vectors, subjects, (1e-2,))
        assert within[1e-2].fnmr.interval().high == 0
        found = {margin: points_across(vectors, vectors, subjects, within, margin) for margin in (0.01, 0.029, 0.031)}
        assert [len(one) for one in found.values()] == [0, 0, 1]

    def test_another_space_may_not(self) -> None:
        """However well each does alone."""
        subjects, vectors = people(120, 4, 0.2, np.random.default_rng(10))
        turned = vectors[:, ::-1] * np.array([1, -1] * 4)
        assert points_within(turned, subjects, (1e-2,))[1e-2].fnmr.value < 0.05
        within = points_within(vectors, subjects, (1e-2,))
        assert points_across(vectors, turned, subjects, within, margin=0.1) == {}

    def test_what_the_faces_cannot_prove_is_not_allowed(self) -> None:
        """The same loss on average, but of people who are too few to know."""
        random = np.random.default_rng(13)
        allowed = []
        for count in (40, 300):
            subjects, vectors = people(count, 4, 0.6, random)
            probes = vectors + random.normal(scale=0.15, size=vectors.shape)
            within = points_within(vectors, subjects, (1e-2,))
            allowed.append(points_across(vectors, probes, subjects, within, margin=0.13))
        assert [len(one) for one in allowed] == [0, 1]
