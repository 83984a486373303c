"""Small real networks, built node by node: what a test serves, breaks and swaps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lathe.embedding_space import space_id
from lathe.v1 import card_pb2
from lathe_server.vision.align import TEMPLATES


def card_for(model: str, variant: str, *, recommended: bool = False, parent: str = "") -> card_pb2.Card:
    """A card that fits `bright_spots`."""
    return card_pb2.Card(
        model=model,
        variant=variant,
        task=card_pb2.TASK_DETECTION,
        decoder=card_pb2.DECODER_HEATMAP,
        precision=card_pb2.PRECISION_FP32,
        classes=["spot"],
        serving_size=card_pb2.PictureSize(width=160, height=128),
        size_multiple=32,
        thresholds=card_pb2.Thresholds(min_score=0.5, nms=0.3, max_detections=100),
        lineage=card_pb2.Lineage(parent=parent),
        recommended=recommended,
    )


def bright_spots(*, box_pixels: float = 12.0, work: int = 0, opset: int = 17, ir_version: int = 8) -> bytes:
    """A detector whose score at each stride-4 cell is its mean brightness.

    Args:
        box_pixels: side of every box, in canvas pixels.
        work: convolutions of 32 channels that change nothing but take time, some 1 to 2 ms each.
    """
    return model_bytes(*spots(box_pixels, work), opset=opset, ir_version=ir_version)


def model_bytes(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    input_type: int = TensorProto.UINT8,
    input_shape: tuple[object, ...] = ("batch", "height", "width", 3),
    outputs: tuple[str, ...] = ("heatmap", "scale", "offset", "landmarks"),
    opset: int = 17,
    ir_version: int = 8,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("pixels", input_type, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(model.SerializeToString())


def spots(box_pixels: float, work: int = 0) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The nodes and constants of `bright_spots`, for a network that adds to them."""
    constants = {
        "mean": np.full((1, 3, 1, 1), 1 / (3 * 255), np.float32),
        "zeros": np.zeros((12, 1, 1, 1), np.float32),
        "size": np.zeros((2, 1, 1, 1), np.float32),
        "size_bias": np.full(2, math.log(box_pixels / 4), np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes_u8"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes_u8"], ["planes"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["planes", "mean"], ["bright"]),
        helper.make_node("AveragePool", ["bright"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Identity", ["cells"], ["heatmap"]),
        helper.make_node("Conv", ["cells", "size", "size_bias"], ["scale"]),
        helper.make_node("Conv", ["cells", "zeros"], ["nothing"]),
        helper.make_node("Slice", ["nothing", "zero", "two", "one"], ["offset"]),
        helper.make_node("Slice", ["nothing", "two", "twelve", "one"], ["landmarks"]),
    ]
    constants |= {
        name: np.array([value], np.int64) for name, value in {"zero": 0, "two": 2, "twelve": 12, "one": 1}.items()
    }
    if work:
        constants["widen"] = np.zeros((32, 1, 1, 1), np.float32)
        constants["churn"] = np.zeros((32, 32, 3, 3), np.float32)
        constants["narrow"] = np.zeros((1, 32, 1, 1), np.float32)
        nodes[3:4] = [
            helper.make_node("Conv", ["bright", "widen"], ["wide0"]),
            *(
                helper.make_node("Conv", [f"wide{i}", "churn"], [f"wide{i + 1}"], pads=[1, 1, 1, 1])
                for i in range(work)
            ),
            helper.make_node("Conv", [f"wide{work}", "narrow"], ["nil"]),
            helper.make_node("Add", ["bright", "nil"], ["worked"]),
            helper.make_node("AveragePool", ["worked"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        ]
    return nodes, constants


def echo_of_every_type() -> bytes:
    """A network that gives back one input of each type that ONNX Runtime's tensors have, under other names."""
    kinds = {
        "BOOL": TensorProto.BOOL,
        "UINT8": TensorProto.UINT8,
        "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32,
        "UINT64": TensorProto.UINT64,
        "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16,
        "INT32": TensorProto.INT32,
        "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16,
        "FP32": TensorProto.FLOAT,
        "FP64": TensorProto.DOUBLE,
        "BYTES": TensorProto.STRING,
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        "echo",
        [helper.make_tensor_value_info(f"in_{name}", kind, ["rows", 3]) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"out_{name}", kind, ["rows", 3]) for name, kind in kinds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def doubler(width: int = 16, name: str = "x", *, halves: bool = False) -> bytes:
    """Rows of so many numbers, each twice as large.

    Args:
        name: of the input.
        halves: gives them as FP16, too.
    """
    nodes = [helper.make_node("Add", [name, name], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])]
    if halves:
        nodes.append(helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT16))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT16, ["batch", width]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])]
    graph = helper.make_graph(nodes, "doubler", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def spotted_faces(*, box_pixels: float = 40.0) -> bytes:
    """`bright_spots`, whose boxes hold the five landmarks of an upright face."""
    nodes, constants = spots(box_pixels)
    at = next(place for place, node in enumerate(nodes) if node.output == ["landmarks"])
    nodes[at] = helper.make_node("Conv", ["cells", "face_weights", "face"], ["landmarks"])
    face = (TEMPLATES["dlib"] / 1.5 + 1 / 6)[:, ::-1]
    constants |= {"face_weights": np.zeros((10, 1, 1, 1), np.float32), "face": face.astype(np.float32).ravel()}
    return model_bytes(nodes, constants)


def spots_without_landmarks() -> bytes:
    """A detector of the decoder `boxes` with one box, in the middle of its canvas, of a score as bright as that is."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["brightest"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["brightest", "scale"], ["share"]),
        helper.make_node("Reshape", ["share", "one_score"], ["scores"]),
        helper.make_node("Identity", ["box"], ["boxes"]),
    ]
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "one_score": np.array([-1, 1, 1], np.int64),
        "box": np.array([[[60, 44, 100, 84]]], np.float32),
    }
    return model_bytes(nodes, constants, outputs=("boxes", "scores"))


def face_vectors(
    seed: int = 0, *, size: int = 32, dimensions: int = 8, fixed: Sequence[float] | None = None, unit: bool = True
) -> bytes:
    """An embedding network: a face's mean colours, on a grid of 4 × 4, by a random matrix.

    Args:
        fixed: the one direction that every face gets.
        unit: it ends in the L2 normalisation.
    """
    dice = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes_u8"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes_u8"], ["planes"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[size // 4] * 2, strides=[size // 4] * 2),
        helper.make_node("Flatten", ["cells"], ["row"]),
        helper.make_node("MatMul", ["row", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["vector"]),
        helper.make_node("ReduceL2", ["vector"], ["length"], axes=[1], keepdims=1),
        helper.make_node(*(("Div", ["vector", "length"]) if unit else ("Identity", ["vector"])), ["embedding"]),
    ]
    matrix = dice.normal(0, 0.01, (48, dimensions)) * (fixed is None)
    bias = dice.normal(0, 1, dimensions) if fixed is None else np.array(fixed)
    constants = {"matrix": matrix.astype(np.float32), "bias": bias.astype(np.float32)}
    return model_bytes(nodes, constants, input_shape=("batch", size, size, 3), outputs=("embedding",))


def embedding_card(
    model: str, variant: str, network: bytes, *, size: int = 32, dimensions: int = 8, recommended: bool = False
) -> card_pb2.Card:
    """A card that fits `face_vectors`."""
    sha256 = hashlib.sha256(network).hexdigest()
    return card_pb2.Card(
        model=model,
        variant=variant,
        task=card_pb2.TASK_EMBEDDING,
        precision=card_pb2.PRECISION_FP32,
        serving_size=card_pb2.PictureSize(width=size, height=size),
        size_multiple=1,
        sha256=sha256,
        recommended=recommended,
        embedding=card_pb2.Embedding(
            space=space_id(model, sha256, "dlib"),
            dimensions=dimensions,
            alignment=card_pb2.ALIGNMENT_DLIB,
            thresholds=[
                card_pb2.MatchThreshold(fmr=fmr, min_similarity=least, fnmr=fnmr, fnmr_low=0.0, fnmr_high=0.5)
                for fmr, least, fnmr in ((0.01, 0.8, 0.01), (0.001, 0.9, 0.1))
            ],
        ),
    )
