"""A detector that finds a face in the same place of every bright picture, networks that embed what lies there, and
pictures of people who are patterns of colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lathe.embedding_space import space_id
from lathe.repository import Repository
from lathe.v1 import card_pb2
from lathe_server.vision.align import TEMPLATES

SIDE = 64
"""Of a picture, which is all face."""
CHIP = 32
CELLS = 4
DIMENSIONS = 3 * CELLS**2


def face_finder() -> bytes:
    """The score is the picture's mean brightness; box and landmarks are of a face that fills 64 × 64 pixels."""
    constants = {
        "shape": np.array([1, 1, 1], np.int64),
        "white": np.array(255, np.float32),
        "box": np.array([[[0, 0, SIDE, SIDE]]], np.float32),
        "points": (TEMPLATES["dlib"] * SIDE)[None, None].astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["bright"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["bright"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Reshape", ["mean", "shape"], ["score"]),
        helper.make_node("Div", ["score", "white"], ["scores"]),
        helper.make_node("Identity", ["box"], ["boxes"]),
        helper.make_node("Identity", ["points"], ["landmarks"]),
    ]
    return _model(nodes, constants, ("batch", "height", "width", 3), ("boxes", "scores", "landmarks"))


def cell_colours(mixing: NDArray[np.floating] | None = None) -> bytes:
    """The mean colours of 4 × 4 cells as a unit vector, after a 48 × 48 matrix; without one, as they are."""
    constants = {
        "grey": np.array(127.5, np.float32),
        "mixing": (np.eye(DIMENSIONS) if mixing is None else mixing).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(
            "AveragePool", ["floats"], ["cells"], kernel_shape=[CHIP // CELLS] * 2, strides=[CHIP // CELLS] * 2
        ),
        helper.make_node("Flatten", ["cells"], ["colours"]),
        helper.make_node("Sub", ["colours", "grey"], ["centred"]),
        helper.make_node("MatMul", ["centred", "mixing"], ["mixed"]),
        helper.make_node("LpNormalization", ["mixed"], ["embedding"], axis=1, p=2),
    ]
    return _model(nodes, constants, ("batch", CHIP, CHIP, 3), ("embedding",))


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    shape: tuple[object, ...],
    outputs: tuple[str, ...],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def detector_card(variant: str = "fp32", *, model: str = "face", recommended: bool = False) -> card_pb2.Card:
    """A card that fits `face_finder`."""
    return card_pb2.Card(
        model=model,
        variant=variant,
        task=card_pb2.TASK_DETECTION,
        decoder=card_pb2.DECODER_BOXES,
        precision=card_pb2.PRECISION_FP32,
        classes=["face"],
        serving_size=card_pb2.PictureSize(width=SIDE, height=SIDE),
        size_multiple=32,
        thresholds=card_pb2.Thresholds(min_score=0.1, nms=0.3, max_detections=10),
        recommended=recommended,
    )


def embedder_card(variant: str, content: bytes, *, model: str = "face-embed", parent: str = "") -> card_pb2.Card:
    """A card that fits `cell_colours`."""
    return card_pb2.Card(
        model=model,
        variant=variant,
        task=card_pb2.TASK_EMBEDDING,
        precision=card_pb2.PRECISION_FP32,
        serving_size=card_pb2.PictureSize(width=CHIP, height=CHIP),
        size_multiple=1,
        embedding=card_pb2.Embedding(
            space=space_id(model, "0" * 64, "dlib"), dimensions=DIMENSIONS, alignment=card_pb2.ALIGNMENT_DLIB
        ),
        lineage=card_pb2.Lineage(parent=parent),
    )


def publish_embedder(repository: Repository, variant: str, content: bytes, parent: str = "") -> None:
    repository.publish(embedder_card(variant, content, parent=parent), content)


def draw_people(folder: Path, people: int, pictures: int, noise: float = 60.0) -> None:
    """`P00/P00_0001.png` and so on, with a `pairs.txt` of two folds: a pair of each person, and one with the next."""
    random = np.random.default_rng(0)
    for person in range(people):
        name = f"P{person:02}"
        (folder / name).mkdir(parents=True)
        own = random.uniform(40, 215, (CELLS, CELLS, 3))
        for number in range(1, pictures + 1):
            cells = np.clip(own + random.normal(scale=noise, size=own.shape), 0, 255).astype(np.uint8)
            pixels = np.repeat(np.repeat(cells, SIDE // CELLS, axis=0), SIDE // CELLS, axis=1)
            assert cv2.imwrite(str(folder / name / f"{name}_{number:04}.png"), pixels)
    half = people // 2
    lines = [f"2\t{half}"]
    for fold in range(2):
        these = range(fold * half, (fold + 1) * half)
        lines += [f"P{one:02}\t1\t2" for one in these]
        lines += [f"P{one:02}\t1\tP{these[(place + 1) % half]:02}\t2" for place, one in enumerate(these)]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
