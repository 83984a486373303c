"""A recipe of the tiny detector with pictures made on the spot: a whole run in a second or two."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

RECIPE = """\
[model]
name = "spots"
task = "detection"
decoder = "heatmap"
classes = ["spot"]
teacher = "tests.compression.networks:tiny_detector"
outputs = ["heatmap", "scale", "offset", "landmarks"]
serving_size = [96, 64]
size_multiple = 32
thresholds = { min_score = 0.5, nms = 0.3, max_detections = 100 }
notices = ["weights: made on the spot"]

[[calibration]]
pictures = ["calibration/*.png"]

[[evaluation]]
pictures = ["evaluation/*.png"]

[[variant]]
name = "fp32"

[[variant]]
name = "int8"
parent = "fp32"
recommended = true
steps = [{ quantize = {} }]
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe as `folder/spots.toml`, four pictures to calibrate and three others to judge."""
    random = np.random.default_rng(0)
    for name, count in {"calibration": 4, "evaluation": 3}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (64, 96, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    path = folder / "spots.toml"
    path.write_text(text)
    return path
