"""Pictures of the dashboards' panels, of a run that a real Prometheus watches: `python -m ... FOLDER`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lathe_dashboards.answers import Answers
from lathe_dashboards.catalogue import ANY, DASHBOARDS, queries, substitute
from lathe_dashboards.marks import MARKS
from lathe_dashboards.pictures import WIDTH, Span, page
from tests.end_to_end.test_demo import CHROMIUM
from tests.end_to_end.watched_run import SHARED, TRIED, Load, WatchedRun, watched_run

SECONDS = 60.0
STEP_SECONDS = 2.0
VALUES = ANY | {"__rate_interval": "15s"}
LOADS: Mapping[str, Load] = {
    "quiet": Load(4, 6.0, joining=0.4),
    "first trial": Load(6, 6.0),
    "second trial": Load(8, 8.0, joining=0.3),
    "busy": Load(18, 14.0, joining=0.7),
}
MOST_PIXELS_HIGH = 5000


def moment(run: WatchedRun, dashboard: str) -> float:
    """When somebody looks: where there is most to be seen."""
    trial = run.phases["second trial"].began
    if dashboard == "lathe-variants":
        return trial + SECONDS * SHARED - 1
    if dashboard == "lathe-experiment":
        return trial + SECONDS * (SHARED + TRIED) - 1
    return run.ended


def answers(run: WatchedRun, dashboard: str) -> Answers:
    end = moment(run, dashboard)
    found = {}
    asked = [(one.expr, one.is_instant) for one in queries() if one.dashboard == dashboard]
    asked += [(mark.expr, False) for mark in MARKS]
    for expr, is_instant in asked:
        text = substitute(expr, VALUES)
        found[expr, is_instant] = (
            run.prometheus.query(text, end)
            if is_instant
            else run.prometheus.query_range(text, run.began, end, STEP_SECONDS)
        )
    return found


def photograph(html: str, path: Path) -> None:
    """As chromium shows it, as high as what is in it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "page.html").write_text(html, "utf-8")
        shot = folder / "shot.png"
        asked = (f"--screenshot={shot}", "--hide-scrollbars", f"--window-size={WIDTH},{MOST_PIXELS_HIGH}")
        command = ["chromium", *CHROMIUM, f"--user-data-dir={folder / 'profile'}", *asked]
        subprocess.run([*command, (folder / "page.html").as_uri()], check=True, capture_output=True, timeout=120)
        pixels = cv2.imread(str(shot))
    assert pixels is not None
    cv2.imwrite(str(path), _filled(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _filled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Without the white below all else, but for a margin."""
    rows = np.flatnonzero((pixels != 255).any(axis=(1, 2)))
    return pixels[: int(rows[-1]) + 20]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, watched_run(Path(temporary) / "run", SECONDS, 1.0, LOADS) as run:
        for dashboard in DASHBOARDS:
            span = Span(run.began, moment(run, dashboard.uid), STEP_SECONDS)
            photograph(page(dashboard, answers(run, dashboard.uid), span), folder / f"{dashboard.uid}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
