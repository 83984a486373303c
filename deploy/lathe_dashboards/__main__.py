"""Writes what is made in deploy: the dashboards, and the rules as Kubernetes has them.

`python -m lathe_dashboards FOLDER [FILE]`
"""

from __future__ import annotations

import sys
from pathlib import Path

from lathe_dashboards.catalogue import DASHBOARDS
from lathe_dashboards.grafana import as_json
from lathe_dashboards.operator_rules import as_resource

RULES = Path(__file__).parents[1] / "prometheus/rules.yml"


def main(folder: Path, resource: Path | None = None) -> None:
    """
    Args:
        folder: of the dashboards.
        resource: the rules' file for Kubernetes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.uid}.json").write_text(as_json(dashboard), "utf-8")
    if resource:
        resource.write_text(as_resource(RULES.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
