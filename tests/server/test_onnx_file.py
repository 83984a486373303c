"""Where an ONNX file may hide what must not be loaded: every place that can hold a tensor or an operator."""

from __future__ import annotations

import contextlib
import random

import onnx
import pytest
from onnx import TensorProto

from lathe.errors import BadVariant
from lathe_server.onnx_file import inspect
from tests.models import bright_spots

MODEL = bright_spots()


def elsewhere() -> TensorProto:
    """A tensor whose bytes lie in another file."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=elsewhere(), dims=[4])


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return onnx.GraphProto(name="inner", node=nodes)


def attribute_of(**fields: object) -> onnx.NodeProto:
    made = onnx.NodeProto(op_type="Constant", output=["out"])
    made.attribute.add(name="value", **fields)  # type: ignore[arg-type]
    return made


def function_with_default(model: onnx.ModelProto) -> None:
    function = model.functions.add(name="f", domain="")
    function.attribute_proto.add(name="value", t=elsewhere(), type=onnx.AttributeProto.TENSOR)


HIDING_PLACES = {
    "initialiser": lambda m: m.graph.initializer.append(elsewhere()),
    "sparse initialiser": lambda m: m.graph.sparse_initializer.append(sparse()),
    "attribute": lambda m: m.graph.node.append(attribute_of(t=elsewhere())),
    "list attribute": lambda m: m.graph.node.append(attribute_of(tensors=[elsewhere()])),
    "sparse attribute": lambda m: m.graph.node.append(attribute_of(sparse_tensor=sparse())),
    "sparse list attribute": lambda m: m.graph.node.append(attribute_of(sparse_tensors=[sparse()])),
    "branch of an If": lambda m: m.graph.node.append(attribute_of(g=graph(attribute_of(t=elsewhere())))),
    "list of graphs": lambda m: m.graph.node.append(attribute_of(graphs=[graph(attribute_of(t=elsewhere()))])),
    "function": lambda m: m.functions.add(name="f").node.append(attribute_of(t=elsewhere())),
    "function's default": function_with_default,
}


@pytest.mark.fault(32)
@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_data_is_found_wherever_it_hides(place: str) -> None:
    model = onnx.load_from_string(MODEL)
    assert not inspect(model.SerializeToString()).has_external_data
    HIDING_PLACES[place](model)
    assert inspect(model.SerializeToString()).has_external_data


@pytest.mark.fault(33)
def test_an_operators_domain_is_found_in_graphs_branches_and_functions() -> None:
    model = onnx.load_from_string(MODEL)
    model.graph.node.append(onnx.NodeProto(op_type="X", domain="one"))
    model.graph.node.append(attribute_of(g=graph(onnx.NodeProto(op_type="Y", domain="two"))))
    model.functions.add(name="f").node.append(onnx.NodeProto(op_type="Z", domain="three"))
    assert {"one", "two", "three"} <= inspect(model.SerializeToString()).domains


def test_versions_are_read() -> None:
    facts = inspect(MODEL)
    assert (facts.ir_version, facts.opsets) == (8, {"": 17})


@pytest.mark.fault(31)
def test_damaged_files_are_refused_or_read_but_never_crash() -> None:
    dice = random.Random(5)
    for _ in range(500):
        content = bytearray(MODEL[: dice.randint(1, len(MODEL))] if dice.random() < 0.3 else MODEL)
        for _ in range(dice.randint(0, 5)):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        with contextlib.suppress(BadVariant):
            inspect(bytes(content))


@pytest.mark.fault(31)
def test_graphs_within_graphs_without_end_are_refused() -> None:
    inner = graph()
    for _ in range(20):
        inner = graph(attribute_of(g=inner))
    model = onnx.load_from_string(MODEL)
    model.graph.node.append(attribute_of(g=inner))
    with pytest.raises(BadVariant):
        inspect(model.SerializeToString())
