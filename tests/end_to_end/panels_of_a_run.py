"""Pictures of the dashboards, drawn from a run that a real Prometheus watches.

`python -m tests.end_to_end.panels_of_a_run FOLDER` takes some five minutes, and needs prometheus and chromium.
"""

from __future__ import annotations

import shutil
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
    "busy": Load(22, 14.0, joining=0.7),
}
MOST_PIXELS_HIGH = 5000
COLOR_STEP = 17
"""Of the 256 shades of each color 16 stay, white among them: the files are smaller by a third."""
NEEDED = ("prometheus", "chromium")


def moment(run: WatchedRun, dashboard: str) -> float:
    """When somebody looks: while all variants answer, while an experiment is on, and under the greatest load."""
    trial = run.phases["second trial"].began
    if dashboard == "lathe-variants":
        return trial + SECONDS * SHARED - 1
    if dashboard == "lathe-experiment":
        return trial + SECONDS * (SHARED + TRIED) - 1
    return run.phases["busy"].began + SECONDS - 2


def answers(run: WatchedRun, dashboard: str) -> Answers:
    """Of all that it asks, and of the marks, from the run's beginning until somebody looks."""
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
    few_colors = (np.round(_filled(pixels) / COLOR_STEP) * COLOR_STEP).astype(np.uint8)
    cv2.imwrite(str(path), few_colors, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _filled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Without the white below all else, but for a margin."""
    rows = np.flatnonzero((pixels != 255).any(axis=(1, 2)))
    return pixels[: int(rows[-1]) + 20]


def main(folder: Path) -> None:
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        sys.exit(f"not installed: {', '.join(missing)}, packages of Debian")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, watched_run(Path(temporary) / "run", SECONDS, 1.0, LOADS) as run:
        for dashboard in DASHBOARDS:
            span = Span(run.began, moment(run, dashboard.uid), STEP_SECONDS)
            photograph(page(dashboard, answers(run, dashboard.uid), span), folder / f"{dashboard.uid}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
