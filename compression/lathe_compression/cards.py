"""What the card of a variant says before anything has been measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import onnx
import torch

from lathe.embedding_space import space_id
from lathe.v1 import card_pb2
from lathe_compression.contract import Model
from lathe_compression.made import Made
from lathe_compression.pictures import file_digest
from lathe_compression.recipe import RecipeFile
from lathe_server.engines import RUNTIME


def cards_of(file: RecipeFile, made: Sequence[Made]) -> list[card_pb2.Card]:
    recipe = file.recipe.model
    onnx_file = file.folder / recipe.teacher
    cards = [
        card_pb2.Card(
            model=recipe.name,
            variant=one.variant.name,
            task=card_pb2.Task.Value(f"TASK_{recipe.task.upper()}"),
            precision=one.precision,
            classes=recipe.classes,
            serving_size=card_pb2.PictureSize(width=recipe.serving_size[0], height=recipe.serving_size[1]),
            size_multiple=recipe.multiple,
            parameters=one.arithmetic.parameters,
            macs=one.arithmetic.macs,
            sparsity=one.arithmetic.sparsity,
            lineage=card_pb2.Lineage(
                teacher=recipe.teacher,
                teacher_sha256=file_digest(onnx_file) if onnx_file.is_file() else "",
                parent=one.variant.parent,
                steps=one.steps,
                recipe_sha256=file.sha256,
                made_with=[
                    f"torch {torch.__version__}",
                    f"onnx {onnx.__version__}",
                    RUNTIME,
                ],
            ),
            recommended=one.variant.recommended,
            notices=recipe.notices,
        )
        for one in made
    ]
    for card, one in zip(cards, made, strict=True):
        one.pictures.fill_in(card.lineage)
        if recipe.embeds:
            _of_embedding(card, recipe, one.content)
        else:
            _of_detection(card, recipe)
    return cards


def _of_detection(card: card_pb2.Card, model: Model) -> None:
    card.decoder = card_pb2.Decoder.Value(f"DECODER_{model.decoder_name.upper()}")
    operating = model.operating
    card.thresholds.min_score = operating.min_score
    card.thresholds.nms = operating.nms
    card.thresholds.max_detections = operating.max_detections


def _of_embedding(card: card_pb2.Card, model: Model, content: bytes) -> None:
    card.embedding.space = space_id(model.name, hashlib.sha256(content).hexdigest(), model.alignment_name)
    card.embedding.dimensions = dimensions(content)
    card.embedding.alignment = card_pb2.Alignment.Value(f"ALIGNMENT_{model.alignment_name.upper()}")


def dimensions(content: bytes) -> int:
    """How many numbers an embedding network gives."""
    shape = onnx.load_from_string(content).graph.output[0].type.tensor_type.shape
    return int(shape.dim[-1].dim_value)
