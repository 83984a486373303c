"""Writes the dashboards: `python -m lathe_dashboards FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from lathe_dashboards.catalogue import DASHBOARDS
from lathe_dashboards.grafana import as_json


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (folder / f"{dashboard.uid}.json").write_text(as_json(dashboard), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
