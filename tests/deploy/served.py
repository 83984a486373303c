"""What a server tells Prometheus, whatever its settings, and what the rules make of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lathe_server.accounts.accountant import Accountant, NoJobs, Tariff
from lathe_server.accounts.power import Power, Rapl
from lathe_server.metrics import Metrics
from tests.conftest import ROOT

RULES = ROOT / "deploy/prometheus/rules.yml"
_NAME = re.compile(r"(?<![\w:$\"=~])[a-zA-Z_][\w:]*")
_OURS = re.compile(r"lathe_|process_|up$|.*:")
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def served() -> frozenset[str]:
    """Names of all series that a server may have."""
    metrics = Metrics(price_per_core_hour=1.0)
    Accountant(metrics.registry, Tariff(per_hour=1.0, grams_per_kwh=1.0), Power(5.0, Rapl()), list, NoJobs())
    names = (
        f"{family.name}{suffix}"
        for family in metrics.registry.collect()
        for suffix in _SUFFIXES.get(family.type, ("",))
    )
    return frozenset(names)


def groups(path: Path = RULES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["groups"]
    return found


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """By name.

    Args:
        kind: record or alert.
    """
    return {rule[kind]: rule for group in groups() for rule in group["rules"] if kind in rule}


def names_in(expr: str) -> set[str]:
    """Metrics that PromQL asks for: Lathe's, the process's own, whether a server answers, and what is recorded.

    >>> sorted(names_in('sum by (job) (rate(lathe_frames_total{outcome="lathe_x"}[5m])) / job:up:sum > up'))
    ['job:up:sum', 'lathe_frames_total', 'up']
    """
    without_strings = re.sub(r'"[^"]*"', '""', expr)
    return {name for name in _NAME.findall(without_strings) if _OURS.match(name)}
