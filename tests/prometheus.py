"""A real Prometheus that scrapes what it is told to, and what it has seen."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.calls import until

SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class PrometheusApi:
    """A running Prometheus, asked as Grafana and autoscalers do."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **asked: str) -> Any:
        """`data` of an answer of its API.

        Raises:
            AssertionError: it refuses what is asked, and says why.
        """
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {error.read().decode()}") from error

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """Series with their `metric` and `value`, now or then."""
        found: list[dict[str, Any]] = self.get("query", query=expr, **({"time": f"{at:.3f}"} if at else {}))["result"]
        return found

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Series with their `metric` and `values`."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        found: list[dict[str, Any]] = self.get("query_range", query=expr, **span)["result"]
        return found

    def value(self, expr: str, at: float | None = None) -> float:
        """Of a query with one series; 0 where there is none."""
        found = self.query(expr, at)
        assert len(found) <= 1, expr
        return float(found[0]["value"][1]) if found else 0.0

    def has_scraped(self, expr: str, value: float) -> None:
        """Returns when a figure is that one, and fails when it does not come to be."""
        until(lambda: [float(one["value"][1]) for one in self.query(expr)] == [value], SECONDS)

    def up(self) -> dict[str, str]:
        """Health of the targets by job."""
        return {target["labels"]["job"]: target["health"] for target in self.get("targets")["activeTargets"]}

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False


class Prometheus(PrometheusApi):
    """One of its own.

    Args:
        targets: addresses by job.
        rules: file of rules; evaluated at each scrape, however seldom it asks for that.
        scrape_seconds: between two.
    """

    def __init__(
        self, folder: Path, targets: Mapping[str, Sequence[str]], rules: Path | None = None, scrape_seconds: float = 1.0
    ) -> None:
        if not shutil.which("prometheus"):
            pytest.skip("there is no prometheus: it is a package of Debian")
        folder.mkdir(parents=True, exist_ok=True)
        every = f"{round(scrape_seconds * 1000)}ms"
        config: dict[str, Any] = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        if rules:
            text = re.sub(r"^(\s+interval:) \S+", rf"\1 {every}", rules.read_text("utf-8"), flags=re.MULTILINE)
            (folder / "rules.yml").write_text(text, "utf-8")
            config["rule_files"] = ["rules.yml"]
        (folder / "prometheus.yml").write_text(json.dumps(config), "utf-8")  # JSON is YAML
        super().__init__(f"127.0.0.1:{free_port()}")
        self._log = (folder / "log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
            ],
            stderr=self._log,
            stdout=self._log,
        )
        until(self._is_there, SECONDS)

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _is_there(self) -> bool:
        assert self.process.poll() is None, Path(self._log.name).read_text("utf-8")
        return self.is_ready()
