"""Read an exported program (``.pt2``) without unpickling: its graph is JSON, its weights are bytes.

`torch.export.load` reads pickled weights and sample inputs of such an archive with code that they
may bring.  Here those entries are left alone.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anynorm.audit.program import Op, Program, Ref, in_order
from anynorm.errors import AnynormError, listed

__all__ = ["read_pt2"]

# The common names of arguments: of all operators, and of single ones.
_ARGUMENTS = {"input": "x", "self": "x", "exponent": "other", "dim": "axes", "epsilon": "eps"}
_OF_NORMS = {"group": "num_groups", "use_input_stats": "training"}
_OF: Mapping[str, Mapping[str, str]] = {
    "addmm": {"self": "bias", "mat1": "x", "mat2": "weight"},
    "mm": {"mat2": "weight"},
    "matmul": {"other": "weight"},
    "native_group_norm": _OF_NORMS,
    "instance_norm": _OF_NORMS,
}
# What the name of an operator says.
_IMPLIED: Mapping[str, Mapping[str, Any]] = {
    "_native_batch_norm_legit_no_training": {"training": False},
    "_batch_norm_no_update": {"training": False},
    "_batch_norm_with_update": {"training": True},
}
# The common name of an operator of ATen.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), "conv"),
    **{f"conv_transpose{rank}d": "conv_transpose" for rank in (1, 2, 3)},
    **dict.fromkeys(("batch_norm", "native_batch_norm", "cudnn_batch_norm"), "batch"),
    **dict.fromkeys(("_native_batch_norm_legit", "_batch_norm_with_update"), "batch"),
    **dict.fromkeys(("_native_batch_norm_legit_functional", "_batch_norm_no_update"), "batch"),
    "_native_batch_norm_legit_no_training": "batch",
    **dict.fromkeys(("layer_norm", "native_layer_norm"), "layer"),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), "rms"),
    **dict.fromkeys(("group_norm", "native_group_norm"), "group"),
    "instance_norm": "instance",
    **dict.fromkeys(("addmm", "mm", "matmul"), "linear"),
    **dict.fromkeys(("to", "_to_copy", "_assert_tensor_metadata"), "cast"),
    **dict.fromkeys(("alias", "detach", "clone", "contiguous", "lift_fresh_copy"), "identity"),
    **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel"), "quantize"),
    **dict.fromkeys(
        ("fused_moving_avg_obs_fake_quant", "_fused_moving_avg_obs_fq_helper"), "quantize"
    ),
    **{
        f"fake_quantize_per_{what}_affine{ending}": "quantize"
        for what in ("tensor", "channel")
        for ending in ("", "_cachemask", "_cachemask_tensor_qparams")
    },
    **dict.fromkeys(("dequantize_per_tensor", "dequantize_per_channel"), "dequantize"),
}
_TRANSPOSES = ("t", "permute", "transpose", "numpy_T")
# The numbers of types in the archive, in their order; those that statistics do not have are None.
_DTYPES = (
    *(None, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.float32, torch.float64, None, None, None),
    *(torch.bool, torch.bfloat16),
)
_NARROW = {6: "float16", 13: "bfloat16"}
# What values of another form raise.
_UNREADABLE = (KeyError, TypeError, AttributeError, ValueError, RecursionError, RuntimeError)
_ADVICE = "Write it with torch.export.save of torch 2.9 or later."


def read_pt2(source: Any) -> Program:
    """Read an archive of `torch.export.save`, or a `torch.export.ExportedProgram`.

    Raises `AnynormError` for another archive, and for weights that only unpickling could read.
    """
    if isinstance(source, torch.export.ExportedProgram):
        told, buffer = "the program", BytesIO()
        torch.export.save(source, buffer)
        opened: Any = buffer
    else:
        told, opened = f"the program {str(source)!r}", Path(source)
    try:
        archive = zipfile.ZipFile(opened)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise AnynormError(f"{told} is no archive that can be read: {error}. {_ADVICE}") from error
    return _Archive(archive, told).program()


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, told: str) -> None:
        self.archive, self.told = archive, told
        self.names = {name.partition("/")[2]: name for name in archive.namelist()}

    def program(self) -> Program:
        models = [n for n in self.names if n.startswith("models/") and n.endswith(".json")]
        if len(models) != 1:
            raise AnynormError(f"{self.told} {self._other(models)}")
        model = models[0].removeprefix("models/").removesuffix(".json")
        if self._bytes("byteorder", b"little") != b"little":
            raise AnynormError(f"{self.told} has bytes in another order than this machine.")
        try:
            held = self._json(models[0])["graph_module"]
            graph, signature = held["graph"], held["signature"]
            names = dict(_parameters(signature["input_specs"]))
            stored = self._stored(model)
            tensors = {arg: stored[name] for arg, name in names.items() if name in stored}
            values = [value for one in _graphs(graph) for value in one["tensor_values"].items()]
            ops = [_op(node) for one in _graphs(graph) for node in one["nodes"]]
            outputs = frozenset(_names(graph["outputs"]))
        except _UNREADABLE as error:
            if isinstance(error, AnynormError):
                raise
            raise AnynormError(
                f"{self.told} cannot be read: {type(error).__name__}: {error}. It is broken, or "
                f"of another version of torch. {_ADVICE}"
            ) from error
        types = {name: _NARROW.get(meta["dtype"], "") for name, meta in values}
        ranks = {name: len(meta["sizes"]) for name, meta in values}
        return Program(
            "pt2", in_order(_with_transposes(ops)), tensors, outputs, names, types, ranks
        )

    def _other(self, models: list[str]) -> str:
        if models:
            return f"has several programs: {listed(models)}. Audit each in a file of its own."
        if any(name.startswith("code/") or name == "data.pkl" for name in self.names):
            return (
                "is a checkpoint or a TorchScript program, no exported program; weights are read "
                "with checkpoint=, and torch.export.save writes programs."
            )
        if any(name.endswith((".so", ".cpp")) for name in self.names):
            return "is compiled, and has no graph to read. Audit the program that it was made from."
        return f"has no program that can be read without unpickling. {_ADVICE}"

    def _bytes(self, name: str, default: bytes | None = None) -> bytes:
        if name not in self.names and default is not None:
            return default
        if name not in self.names:
            raise AnynormError(f"{self.told} is broken: it has no entry {name!r}.")
        entry = self.archive.getinfo(self.names[name])
        # torch does not compress, so the size of a file bounds what it unpacks to.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise AnynormError(
                f"{self.told} is compressed, which torch.export.save does not do. {_ADVICE}"
            )
        try:
            return self.archive.read(entry)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            raise AnynormError(f"{self.told} is broken at {name!r}: {error}.") from error

    def _json(self, name: str) -> Any:
        return json.loads(self._bytes(name))

    def _stored(self, model: str) -> dict[str, Callable[[], Tensor]]:
        found: dict[str, Callable[[], Tensor]] = {}
        for folder in ("weights", "constants"):
            table = f"data/{folder}/{model}_{folder}_config.json"
            config = self._json(table)["config"] if table in self.names else {}
            for name, entry in config.items():
                found[name] = partial(self._tensor, f"data/{folder}/{entry['path_name']}", entry)
        return found

    def _tensor(self, name: str, entry: Mapping[str, Any]) -> Tensor:
        if entry["use_pickle"]:
            raise AnynormError(
                f"{self.told} has pickled weights ({name!r}), which are not read, because that "
                "would run code from the file. Export the model with plain tensors."
            )
        meta = entry["tensor_meta"]
        number = meta["dtype"]
        dtype = _DTYPES[number] if 0 <= number < len(_DTYPES) else None
        if dtype is None:
            return torch.zeros(0, dtype=torch.int8)  # a type that statistics do not have
        content = self._bytes(name)
        flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0)
        sizes, strides = ([one["as_int"] for one in meta[key]] for key in ("sizes", "strides"))
        try:
            return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
        except RuntimeError as error:
            raise AnynormError(f"{self.told} is broken at {name!r}: {error}.") from error


def _graphs(graph: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A graph, and those of its branches."""
    yield graph
    for node in graph["nodes"]:
        for given in node["inputs"]:
            if "as_graph" in given["arg"]:
                yield from _graphs(given["arg"]["as_graph"]["graph"])


def _parameters(specs: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The name of a value in the graph, and that of its parameter, buffer or constant."""
    for spec in specs:
        for kind in ("parameter", "buffer", "tensor_constant"):
            if kind in spec:
                yield spec[kind]["arg"]["name"], str(spec[kind][f"{kind}_name"])


def _names(values: Any) -> Iterator[str]:
    """The names of tensors in arguments or outputs, which may be lists."""
    for value in values:
        if "as_tensor" in value:
            yield value["as_tensor"]["name"]
        for name in ("as_tensors", "as_optional_tensors"):
            yield from (one["name"] for one in value.get(name, []) if "name" in one)


def _op(node: Mapping[str, Any]) -> Op:
    # A target is "torch.ops.<namespace>.<name>.<overload>", or the name of a Python function.
    parts = str(node["target"]).partition("ops.")[2].split(".")
    name = parts[1] if len(parts) > 1 else str(node["target"])
    common = {**_ARGUMENTS, **_OF.get(name, {})}
    args: dict[str, Any] = {
        common.get(given["name"], given["name"]): _value(given["arg"]) for given in node["inputs"]
    } | dict(_IMPLIED.get(name, {}))
    kind = _KINDS.get(name, name.rstrip("_"))
    if kind == "conv" and args.get("transposed"):
        kind = "conv_transpose"
    outputs = tuple(_names(node["outputs"]))
    return Op(kind, node.get("name") or "".join(outputs[:1]), _layer(node), args, outputs)


def _value(arg: Mapping[str, Any]) -> Any:
    kind, value = next(iter(arg.items()))
    if kind == "as_tensor":
        return Ref(value["name"])
    if kind == "as_optional_tensor":
        return _value(value)
    if kind in ("as_tensors", "as_graph"):
        return None
    return None if kind == "as_none" else value


def _layer(node: Mapping[str, Any]) -> str:
    """The innermost module that ran the operator."""
    stack = (node.get("metadata") or {}).get("nn_module_stack", "")
    return stack.rpartition(";")[2].split(",")[1] if stack.count(",") >= 2 else ""


def _with_transposes(ops: list[Op]) -> list[Op]:
    """Read a linear layer's weight through its transpose, which `addmm` takes."""
    turned = {op.output: op.args.get("x") for op in ops if op.kind in _TRANSPOSES}

    def fitted(op: Op) -> Op:
        weight = op.args.get("weight")
        if op.kind != "linear" or weight not in turned:
            return op
        return replace(op, args={**op.args, "weight": turned[weight]})

    read = [fitted(op) for op in ops]
    used = {value for op in read for value in op.inputs}
    return [op for op in read if op.kind not in _TRANSPOSES or op.output in used]
