"""A load test's file: nothing is lost on the way through it, and what contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lathe.errors import InvalidInput, NotFound
from lathe_loadtest.histogram import decoded, encoded
from lathe_loadtest.result import as_json, from_json, read_result, write_result
from tests.loadtest.synthetic import synthetic_result


@pytest.mark.parametrize("price", [0.04, None])
def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path, price: float | None) -> None:
    result = synthetic_result(latency_ms={"int8": 20, "fp32": 60}, drops=0.2, price_per_hour=price)
    write_result(result, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_histogram_holds_three_digits_of_each_value() -> None:
    values = np.random.default_rng(0).lognormal(10, 2, 5000)
    found = decoded(encoded(values))
    for percent in (1, 50, 99, 100):
        exact = np.percentile(values, percent, method="inverted_cdf")
        assert found.get_value_at_percentile(percent) == pytest.approx(exact, rel=2e-3)
    assert decoded(encoded([7.0, 9e12])).get_total_count() == 2
    assert decoded(encoded([])).get_total_count() == 0


def _set(*way: str | int, to: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for step in way[:-1]:
            table = table[step]
        table[way[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", to=2), "bad.json has the format 2; this reads 1"),
        (_set("ended", to="complete"), '"ended" must be one of'),
        (_set("per_second", 0, "due", to="1"), '"due" must be a whole number'),
        (_set("per_second", 0, "due", to=39), "second 0: 39 frames were due, 40 sent, and 40 have an outcome"),
        (_set("per_second", 0, "outcomes", to={"anwsered": 40}), 'second 0: there is no outcome "anwsered"'),
        (_set("per_second", 0, "latencies", "int8", to="HISTF"), "second 0: a histogram is not HdrHistogram's base64"),
        (_set("per_second", 0, "latencies", to={}), "second 0: its histograms hold 0 frames, and 40 were answered"),
        (_set("per_second", 1, "second", to=0), '"per_second" is not in order'),
        (_set("cameras", to=[]), '"due" of the seconds and of the cameras differ'),
        (_set("scenario", "cameras", 0, "fps", to=-1), '"fps" must be above 0'),
        (_set("cpu", to=1), 'unknown key "cpu"'),
    ],
)
def test_a_file_that_is_no_result_is_refused(change: Callable[[Any], None], message: str) -> None:
    table = json.loads(as_json(synthetic_result()))
    change(table)
    with pytest.raises(InvalidInput) as caught:
        from_json(json.dumps(table), "bad.json")
    assert message in caught.value.message


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_result(tmp_path / "none.json")
    for text, message in [("{", "is not JSON"), ("[]", "is not the result of a load test")]:
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(InvalidInput, match=message):
            read_result(tmp_path / "other.json")
