"""Who is called on a GPU: our kernels or torch's operators.  The GPU is one of fake tensors.

There is no autograd on it: torch for CPUs alone cannot make its graph for a GPU's tensors.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

import anynorm
from anynorm import kernels
from anynorm.ops import PLAIN, Epilogue, dispatch_thresholds
from anynorm.ops.backends import fused
from anynorm.ops.dispatch_thresholds import Crossover

OPERATORS = torch.ops.anynorm
LAYERS = {
    "batch": lambda **options: anynorm.BatchNorm2d(64, device="cuda", **options),
    "instance": lambda **options: anynorm.InstanceNorm2d(64, affine=True, device="cuda", **options),
    "group": lambda **options: anynorm.GroupNorm(4, 64, device="cuda", **options),
    "layer": lambda **options: anynorm.LayerNorm([64, 32, 32], device="cuda", **options),
    "rms": lambda **options: anynorm.RMSNorm([64, 32, 32], device="cuda", **options),
}
VALUES = 64 * 32 * 32  # of a sample
THEIRS = ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Fake tensors in the place of a GPU's; in its table, kernels pay from four samples on."""
    monkeypatch.setattr(kernels.cuda, "_enabled", True)
    monkeypatch.setattr(fused, "_PLAIN_TENSORS", (*fused._PLAIN_TENSORS, FakeTensor))
    monkeypatch.setattr("anynorm.ops.backends.torch_operators._OWN", True)
    for table in (dispatch_thresholds.GPU_TABLE, dispatch_thresholds.GPU_SMALLEST):
        for key in table:
            monkeypatch.setitem(table, key, Crossover(4 * VALUES, 2 * VALUES))
    for table in ("TABLE", "SMALLEST"):  # at which nobody may look
        monkeypatch.setattr(dispatch_thresholds, table, {})
    with FakeTensorMode(), torch.no_grad():
        yield


class Noting(TorchFunctionMode):
    """Notes the operators that normalize; torch's own need a real GPU and are left out."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in THEIRS:
            self.names.append(name)
            return torch.empty_like(args[0])
        if str(function).startswith("anynorm."):
            self.names.append(str(function).split(".")[1])
        return function(*args, **(kwargs or {}))


def drawn(samples, dtype=torch.float32, memory=torch.contiguous_format):
    return torch.empty(samples, 64, 32, 32, dtype=dtype, device="cuda", memory_format=memory)


def called(layer, *inputs):
    with Noting() as noting:
        y = layer(*inputs)
    assert (y.shape, y.device, y.dtype) == (inputs[0].shape, inputs[0].device, inputs[0].dtype)
    return noting.names


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_our_kernels_from_the_crossover_on_and_torchs_below(name, memory):
    layer = LAYERS[name]()
    tracked = ["track_"] if name == "batch" else []
    assert called(layer, drawn(4, memory=memory)) == ["standardize", *tracked]
    assert called(layer, drawn(3, memory=memory)) == [f"{name}_norm", *tracked]


@pytest.mark.parametrize("name", LAYERS)
def test_a_fused_step_pays_earlier(name):
    layer = LAYERS[name](activation="relu")
    x = drawn(2)
    assert called(layer, x, x)[0] == "standardize"
    assert called(layer, drawn(1), drawn(1))[0] == f"{name}_norm"


def test_evaluation_is_ours_where_a_step_is_fused():
    assert called(LAYERS["batch"](activation="relu").eval(), drawn(4)) == ["normalize"]
    assert called(LAYERS["batch"]().eval(), drawn(4)) == ["batch_norm"]


@pytest.mark.parametrize("name", ["batch", "layer", "rms", "group"])
def test_a_compiled_graph_has_one_node(name):
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    layer = LAYERS[name]()
    torch.compile(layer, backend=keep, fullgraph=True)(drawn(4))
    names = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    tracked = ["anynorm.track_.default"] if name == "batch" else []
    assert [n for n in names if n.startswith("anynorm.")] == [
        "anynorm.standardize.default",
        *tracked,
    ]
    assert not any(theirs in n for n in names for theirs in THEIRS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_operators_say_what_they_return(dtype):
    x, dy, gain = drawn(4, dtype), drawn(4, dtype), torch.empty(1, 64, 1, 1, device="cuda")
    statistic = ([0, 2, 3], True, True, 2.0, 1.0, 1e-5)
    y, mean, square, sign_mask = OPERATORS.standardize(x, dy, gain, gain, *statistic, "relu")
    saved = (x, None, sign_mask, mean, square, gain, gain)
    gradients = OPERATORS.standardize_backward(dy, *saved, *statistic, "relu")
    again = OPERATORS.normalize_backward(dy, *saved, 1e-5, "relu")
    for found in (gradients, again):
        assert [each.shape for each in found] == [x.shape, x.shape, gain.shape, gain.shape]
        assert [each.dtype for each in found] == [dtype, dtype, torch.float32, torch.float32]
        assert all(each.is_cuda for each in found)
    assert (sign_mask.numel(), mean.dtype, y.dtype) == (x.numel() // 8 + 8, torch.float64, dtype)


def test_types_that_are_served():
    kinds = (torch.float32, torch.bfloat16, torch.float16)
    assert all(kernels.served(drawn(1, dtype)) for dtype in kinds)
    assert not kernels.served(drawn(1, torch.float64))  # which the CPU has kernels for


def test_nothing_is_served_without_kernels(monkeypatch):
    monkeypatch.setattr(kernels.cuda, "_enabled", False)
    assert not kernels.served(drawn(1))
    assert called(LAYERS["layer"](), drawn(4)) == ["layer_norm"]


def test_what_fits_is_taken():
    x, per_channel = drawn(4), torch.empty(64, device="cuda")
    assert fused.takes("batch", x, None, per_channel, per_channel, PLAIN)
    assert fused.takes("batch", drawn(4, torch.bfloat16), None, per_channel, None, PLAIN)
    assert not fused.takes("batch", drawn(3), None, per_channel, per_channel, PLAIN)
    assert fused.takes("batch", drawn(3), None, per_channel, per_channel, Epilogue(None, "relu"))
    assert not fused.takes("batch", x, None, torch.empty(63, device="cuda"), None, PLAIN)
    half = torch.empty(64, dtype=torch.float16, device="cuda")
    assert not fused.takes("batch", x, None, half, None, PLAIN)
    assert not fused.takes("layer", x, [32, 64], None, None, PLAIN)
    assert not fused.takes("layer", drawn(4, torch.float64), [32, 32], None, None, PLAIN)


def test_the_table_of_gpus_is_asked(monkeypatch):
    x = drawn(4)
    assert dispatch_thresholds.GPU_SMALLEST["batch"].plain == 4 * VALUES
    assert dispatch_thresholds.GPU_SMALLEST["batch"].fused == 2 * VALUES
    assert dispatch_thresholds.pays("batch", x, None, fused=False)
    assert not dispatch_thresholds.pays("batch", drawn(3), None, fused=False)
    monkeypatch.setitem(dispatch_thresholds.GPU_TABLE, ("layer", "rows"), Crossover(1, 1, 128))
    assert dispatch_thresholds.pays("layer", x, 128, fused=False)
    assert not dispatch_thresholds.pays("layer", x, 127, fused=False)
