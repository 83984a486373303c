"""A detector that finds a face in the middle of every picture, and a recipe of a tiny embedding network over it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_compression.export import Normalisation, export
from lathe_server.vision.align import TEMPLATES
from tests.compression.small_recipe import write_recipe

RECIPE = """\
[model]
name = "marks"
task = "embedding"
teacher = "tests.compression.networks:tiny_embedder"
serving_size = [32, 32]
alignment = "dlib"
detector = "models/middle/fp32"
input = { std = [128, 128, 128] }

[[calibration]]
pictures = ["calibration/*.png"]

[[evaluation]]
pictures = ["evaluation/*.png"]

[[frames]]
pictures = ["frames/*.png"]

[training]
batch = 4

[[variant]]
name = "fp32"

[[variant]]
name = "int8"
parent = "fp32"
recommended = true
steps = [{ quantize = {} }]

[[variant]]
name = "pruned"
parent = "fp32"
steps = [
    { prune = { keep = 0.8, rounds = 2, round_to = 4, least = 4, pictures = 8, probe = 8 } },
    { distill = { pictures = 16 } },
]

[[variant]]
name = "pruned-qat"
parent = "pruned"
steps = [{ quantize = { method = "qat", pictures = 8 } }]
"""


class Middle(nn.Module):
    """One box of 40 × 40 on a canvas of 96 × 64, with a face's landmarks, whatever the picture shows."""

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        nothing = planes.mean((1, 2, 3)).reshape(-1, 1, 1) * 0
        box = torch.tensor([[[28.0, 12.0, 68.0, 52.0]]])
        landmarks = torch.tensor(TEMPLATES["dlib"] * 40 + (28, 12), dtype=torch.float32)[None, None]
        return nothing + box, nothing + 0.9, nothing[..., None] + landmarks


def publish_detector(root: Path, model: str = "middle", min_score: float = 0.5) -> None:
    """As `model/fp32`."""
    root.mkdir(parents=True, exist_ok=True)
    graph = export(Middle(), Normalisation(), ("boxes", "scores", "landmarks"), 32)
    card = card_pb2.Card(
        model=model,
        variant="fp32",
        task=card_pb2.TASK_DETECTION,
        decoder=card_pb2.DECODER_BOXES,
        serving_size=card_pb2.PictureSize(width=96, height=64),
        size_multiple=32,
        thresholds=card_pb2.Thresholds(min_score=min_score, nms=0.3, max_detections=4),
    )
    Repository(root).publish(card, graph.SerializeToString())


def write_embedding_recipe(folder: Path, text: str = RECIPE) -> Path:
    """The recipe as `folder/marks.toml`, its detector, and pictures as of `write_recipe`."""
    write_recipe(folder)
    publish_detector(folder / "models")
    path = folder / "marks.toml"
    path.write_text(text)
    return path
