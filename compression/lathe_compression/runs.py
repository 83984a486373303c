"""The record of a run: what was done when and how it went, line by line, as JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunRecord:
    """Appends events to a file of JSON lines and, where MLflow is installed, to its file store as well.

    Args:
        folder: a new file in it, named by the time; MLflow's store is `mlruns` beside it.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{time.monotonic_ns() % 1_000_000:06d}.jsonl"
        self._mlflow = _mlflow_run(folder / "mlruns", name, settings)
        self.event("run", name=name, **settings)

    def event(self, kind: str, **facts: Any) -> None:
        """One line: the kind, the time, and the facts, which JSON must be able to hold."""
        line = json.dumps({"event": kind, "time": round(time.time(), 3), **facts})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def measure(self, task: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a task after so many of its steps."""
        self.event("measure", task=task, step=step, **{name: round(value, 6) for name, value in figures.items()})
        if self._mlflow is not None:
            client, run_id = self._mlflow
            for name, value in figures.items():
                client.log_metric(run_id, f"{task.replace(',', '')}.{name}", value, step=step)  # it takes no commas

    def close(self) -> None:
        self.event("end")
        if self._mlflow is not None:
            client, run_id = self._mlflow
            client.set_terminated(run_id)


def _mlflow_run(folder: Path, name: str, settings: Mapping[str, str]) -> tuple[Any, str] | None:
    if importlib.util.find_spec("mlflow") is None:
        return None
    # Newer versions refuse the file store, the only one that needs no server and no database, unless told so.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=folder.resolve().as_uri())
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    run = client.create_run(experiment)
    for key, value in settings.items():
        client.log_param(run.info.run_id, key, value)
    return client, run.info.run_id
