"""The record of a run: lines of JSON that stay readable whatever happens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lathe_compression.runs import RunRecord


def lines(record: RunRecord) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.path.read_text("utf-8").splitlines()]


def test_record_tells_what_happened_in_order(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "runs", "spots", {"recipe_sha256": "abc", "cpu": "one"})
    record.event("round", task="pruned, step 1", left=0.5)
    record.measure("pruned, step 1", 25, {"loss": 0.123456789})
    record.close()
    told = lines(record)
    assert [one["event"] for one in told] == ["run", "round", "measure", "end"]
    assert told[0] | {"time": 0} == {"event": "run", "time": 0, "name": "spots", "recipe_sha256": "abc", "cpu": "one"}
    assert told[2] | {"time": 0} == {
        "event": "measure",
        "time": 0,
        "task": "pruned, step 1",
        "step": 25,
        "loss": 0.123457,
    }
    assert [one["time"] for one in told] == sorted(one["time"] for one in told)


def test_every_line_is_on_the_disk_before_the_next_thing_happens(tmp_path: Path) -> None:
    """A run that is killed leaves all that it said."""
    record = RunRecord(tmp_path, "spots", {})
    for number in range(3):
        record.event("round", number=number)
        assert lines(record)[-1]["number"] == number


def test_two_runs_have_two_files(tmp_path: Path) -> None:
    first, second = RunRecord(tmp_path, "spots", {}), RunRecord(tmp_path, "spots", {})
    assert first.path != second.path
    assert first.path.name.startswith("spots-")
    second.event("more")
    assert len(lines(first)) == 1


CLIENT = '''
import json
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlparse


class MlflowClient:
    """Writes down what it is told, as MLflow's file store does."""

    def __init__(self, tracking_uri):
        self._file = Path(urlparse(tracking_uri).path) / "told.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)

    def _tell(self, *told):
        with self._file.open("a") as file:
            file.write(json.dumps(told) + "\\n")

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        self._tell("experiment", name)
        return "7"

    def create_run(self, experiment):
        self._tell("run", experiment)
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_param(self, *told):
        self._tell("param", *told)

    def log_metric(self, *told, step):
        self._tell("metric", *told, step)

    def set_terminated(self, run_id):
        self._tell("end", run_id)
'''


def test_mlflow_hears_of_it_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of the same calls: the real one is large, and not among what Lathe needs."""
    (tmp_path / "site/mlflow").mkdir(parents=True)
    (tmp_path / "site/mlflow/__init__.py").touch()
    (tmp_path / "site/mlflow/tracking.py").write_text(CLIENT)
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("mlflow", "mlflow.tracking"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    record = RunRecord(tmp_path / "runs", "spots", {"cpu": "one"})
    record.measure("pruned, step 1", 25, {"loss": 0.5})
    record.close()
    for name in ("mlflow", "mlflow.tracking"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    told = [json.loads(line) for line in (tmp_path / "runs/mlruns/told.jsonl").read_text().splitlines()]
    assert told[:3] == [["experiment", "spots"], ["run", "7"], ["param", "r", "cpu", "one"]]
    (metric,) = [one for one in told if one[0] == "metric"]
    assert (metric[1], metric[3:]) == ("r", [0.5, 25])
    assert metric[2].endswith(".loss")
    assert all(letter.isalnum() or letter in "_-. :/" for letter in metric[2])  # of mlflow.utils.validation
    assert told[-1] == ["end", "r"]
    assert [one["event"] for one in lines(record)] == ["run", "measure", "end"]
