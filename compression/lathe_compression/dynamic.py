"""Dynamic quantization: INT8 weights of matrix products, and ranges of activations found anew at every run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from lathe.errors import InvalidInput

DYNAMIC_OPERATORS = ("MatMul", "Gemm")


def quantize_products(model: onnx.ModelProto, kept: frozenset[str], reduce_range: bool) -> onnx.ModelProto:
    """A copy of a clean float graph whose products with constant matrices are INT8.

    Args:
        kept: names of layers that stay in float.

    Raises:
        InvalidInput: the graph has no such product. Convolutions are none: ONNX Runtime's dynamic INT8
            convolution takes twice the time of the float one.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type in DYNAMIC_OPERATORS and node.input[1] in constants and node.name not in kept
    ]
    if not chosen:
        raise InvalidInput(
            'method = "dynamic" quantizes only matrix products (MatMul, Gemm), and this network has none to quantize; '
            'for convolutions say method = "ptq"'
        )
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    add_pre_process_metadata(prepared)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(prepared, source)
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            # The library writes a Gemm as a MatMul of this name and an Add.
            nodes_to_quantize=[name for one in chosen for name in (one, f"{one}_MatMul")],
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(target)
