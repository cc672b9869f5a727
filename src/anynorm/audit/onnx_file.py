"""Read an ONNX model: its graph, and its weights one at a time, also from files beside it."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anynorm.audit.program import Op, Program, Ref, in_order
from anynorm.errors import AnynormError

__all__ = ["is_onnx", "read_onnx"]

# The common name of an operator, and those of its inputs.
_AFFINE = ("x", "weight", "bias")
_INPUTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "BatchNormalization": ("batch", (*_AFFINE, "running_mean", "running_var")),
    "LayerNormalization": ("layer", _AFFINE),
    "RMSNormalization": ("rms", _AFFINE),
    "SimplifiedLayerNormalization": ("rms", _AFFINE),
    "SkipLayerNormalization": ("layer", ("x", "residual", "weight", "bias")),
    "SkipSimplifiedLayerNormalization": ("rms", ("x", "residual", "weight")),
    "InstanceNormalization": ("instance", _AFFINE),
    "GroupNormalization": ("group", _AFFINE),
    "Conv": ("conv", _AFFINE),
    "ConvTranspose": ("conv_transpose", _AFFINE),
    "Gemm": ("linear", _AFFINE),
    "MatMul": ("linear", ("x", "weight")),
    "ReduceMean": ("mean", ("x", "axes")),
    "Cast": ("cast", ("x",)),
    "CastLike": ("cast", ("x",)),
    "Identity": ("identity", ("x",)),
    "QuantizeLinear": ("quantize", ("x", "scale", "zero")),
    "DequantizeLinear": ("dequantize", ("x", "scale", "zero")),
    "Sqrt": ("sqrt", ("x",)),
    "Reciprocal": ("reciprocal", ("x",)),
    **{name: (name.lower(), ("x", "other")) for name in ("Add", "Sub", "Mul", "Div", "Pow")},
}
# Attributes by their common names, and what the standard says if they are missing.
_COMMON = {"epsilon": "eps", "training_mode": "training", "group": "groups", "axis": "axis"}
_MISSING: Mapping[str, Mapping[str, Any]] = {
    "BatchNormalization": {"epsilon": 1e-5, "momentum": 0.9},
    "SkipLayerNormalization": {"epsilon": 1e-12},
    "SkipSimplifiedLayerNormalization": {"epsilon": 1e-12},
    "LayerNormalization": {"epsilon": 1e-5},
    "RMSNormalization": {"epsilon": 1e-5},
    "SimplifiedLayerNormalization": {"epsilon": 1e-5},
    "InstanceNormalization": {"epsilon": 1e-5},
    "GroupNormalization": {"epsilon": 1e-5},
}
_STANDARD = ("", "ai.onnx", "com.microsoft")


def read_onnx(source: Any) -> Program:
    """Read an ONNX file or an ``onnx.ModelProto``.

    Raises `AnynormError` if the extra is missing or the file cannot be read.
    """
    if find_spec("onnx") is None:
        raise AnynormError(
            "to audit ONNX models needs onnx, which is not installed. "
            "Run: pip install 'anynorm[onnx]'"
        )
    import onnx

    model, folder = source, ""
    if not isinstance(source, onnx.ModelProto):
        model, folder = _loaded(Path(source)), str(Path(source).parent)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    versions = {one.domain: one.version for one in model.opset_import}
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    ops = [_op(node, versions.get("", 1)) for node in nodes]
    types, ranks = _types_and_ranks(model)
    ranks |= {op.output: 2 for op, node in zip(ops, nodes, strict=True) if node.op_type == "Gemm"}
    return Program(
        "onnx",
        in_order(ops),
        dict(_tensors(graphs, folder)),
        frozenset(str(value.name) for graph in graphs for value in graph.output),
        types=types,
        ranks=ranks,
    )


def _loaded(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise AnynormError(
            f"the model {str(path)!r} cannot be read as ONNX: {error or 'it is incomplete'}. The "
            "file is broken, or of another format."
        ) from error
    if not model.graph.node:
        raise AnynormError(
            f"the model {str(path)!r} has no operators: it is empty, or no ONNX model."
        )
    return model


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(inner)


def _op(node: Any, version: int) -> Op:
    import onnx

    known = node.domain in _STANDARD and node.op_type in _INPUTS
    kind, names = _INPUTS[node.op_type] if known else (str(node.op_type), ())
    numbered = (names[i] if i < len(names) else f"input {i}" for i in range(len(node.input)))
    args: dict[str, Any] = {
        name: Ref(value) for name, value in zip(numbered, node.input, strict=True) if value
    }
    given: dict[str, Any] = dict(_MISSING.get(node.op_type, {})) if known else {}
    given |= {
        one.name: onnx.helper.get_attribute_value(one)
        for one in node.attribute
        if one.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    }
    # ONNX has single precision, in which 1e-5 is another number.
    given |= {key: float(f"{v:.7g}") for key, v in given.items() if isinstance(v, float)}
    if kind == "batch":
        given["training_mode"] = _is_training(node, given, version)
        given["momentum"] = 1 - given["momentum"]  # the weight of the newest batch, as in torch
    args |= {_COMMON.get(name, name): value for name, value in given.items()}
    outputs = tuple(map(str, node.output))  # a broken name is bytes
    name = str(node.name) or "".join(outputs[:1])
    return Op(kind, name, _layer(node), args, outputs)


def _is_training(node: Any, given: Mapping[str, Any], version: int) -> bool:
    """Whether a batch norm uses the statistics of the batch, which each version says otherwise."""
    if version >= 14:
        return bool(given.get("training_mode", 0))
    if version >= 7:
        return sum(bool(name) for name in node.output) > 1
    return not given.get("is_test", 0)


def _layer(node: Any) -> str:
    """The module that an operator comes from, where torch's exporter wrote it down."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(entry.value)
                return str(scopes[-2])
            except (ValueError, SyntaxError, IndexError, TypeError, MemoryError, RecursionError):
                return ""
    return ""


def _tensors(graphs: list[Any], folder: str) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    import onnx

    for graph in graphs:
        for one in graph.initializer:
            yield str(one.name), partial(_tensor, one, folder)
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    value = onnx.helper.get_attribute_value(attribute)
                    yield str(node.output[0]), partial(_tensor, value, folder)


def _tensor(stored: Any, folder: str) -> Tensor:
    import numpy as np
    import onnx

    if not isinstance(stored, onnx.TensorProto):
        plain = stored if isinstance(stored, (int, float, list, tuple)) else []
        return torch.tensor(plain)
    try:
        array = onnx.numpy_helper.to_array(stored, base_dir=folder)
    except Exception as error:  # of files beside the model, and of broken ones
        raise AnynormError(
            f"the tensor {stored.name!r} of the model cannot be read: {error}. If its values are "
            "in a file beside the model, put that file there."
        ) from error
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    try:
        return torch.from_numpy(np.array(array))
    except TypeError:  # types of 4 bits, and text: no statistics
        return torch.zeros(0, dtype=torch.int8)


def _types_and_ranks(model: Any) -> tuple[dict[str, str], dict[str, int]]:
    """What is known of values; little if the model is too large or its shapes are wrong."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:
        inferred = model
    graph = inferred.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    tensors = {value.name: value.type.tensor_type for value in values}
    kinds = {name: tensor.elem_type for name, tensor in tensors.items()}
    kinds |= {one.name: one.data_type for one in graph.initializer}
    known = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
    ranks = {name: len(t.shape.dim) for name, t in tensors.items() if t.HasField("shape")}
    return {name: known.get(kind, "") for name, kind in kinds.items()}, ranks


def is_onnx(source: Any) -> bool:
    """Whether this is an ONNX model, or the path of one."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source).suffix == ".onnx"
    return hasattr(source, "graph") and hasattr(source, "opset_import")
