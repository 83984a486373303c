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


TRAINED = (
    RECIPE
    + """
[[variant]]
name = "pruned"
parent = "fp32"
steps = [
    { prune = { keep = 0.7, rounds = 2, pictures = 8, probe = 8 } },
    { distill = { pictures = 16 } },
]

[[variant]]
name = "pruned-int8"
parent = "pruned"
steps = [{ quantize = {} }]

[[variant]]
name = "student"
parent = "fp32"
steps = [{ distill = { student = { width = 0.5 }, pictures = 16 } }]

[[variant]]
name = "student-int8"
parent = "student"
steps = [{ prune = { keep = 0.2, rounds = 1, probe = 8 } }, { quantize = {} }]

[[variant]]
name = "pruned-qat"
parent = "pruned"
steps = [{ quantize = { method = "qat", pictures = 16 } }]

[training]
batch = 4
augment = { cells = [16, 96] }

[[frames]]
pictures = ["frames/*.png"]
"""
)
"""Every kind of step, in the order of a real plan."""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe as `folder/spots.toml`, four pictures to calibrate, three others to judge, six to train."""
    random = np.random.default_rng(0)
    for name, count in {"calibration": 4, "evaluation": 3, "frames": 6}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (64, 96, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    path = folder / "spots.toml"
    path.write_text(text)
    return path


def recipe(*variants: str, teacher: str = "tiny_detector", training: str = "batch = 4") -> str:
    """A recipe of the reference and of variants named `a`, `b` and so on, each by its steps."""
    text = RECIPE[: RECIPE.rindex("[[variant]]")].replace("tiny_detector", teacher)
    for name, steps in zip("abcdef", variants, strict=False):
        text += f'\n[[variant]]\nname = "{name}"\nparent = "fp32"\nsteps = [{steps}]\n'
    return text + f'\n[training]\n{training}\n\n[[frames]]\npictures = ["frames/*.png"]\n'


CHOSEN = recipe(
    "{ prune = { keep = 0.5, blocks = 1, rounds = 2, pictures = 8, probe = 4 } }",
    '{ prune = { keep = 0.7, target = "latency", rounds = 2, round_to = 2, least = 2, pictures = 8, probe = 4 } }',
    "{ quantize = { mixed = true, max_loss = 0.02, slower = 1.0 } }",
    teacher="block_detector",
)
"""Steps that decide by what they measured: which blocks go, how deep to cut, which layers stay in float."""
