"""Models that leave torch: torch.export, ONNX, TorchScript."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from entries import channels, options
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.ops.eigen import jacobi

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own

# What torch.export leaves besides core operators: its check of types, and its own loop.
BESIDE = ("aten::_assert_tensor_metadata", "while_loop")


def layer(name: str) -> nn.Module:
    """A layer with γ, β and statistics of its own, for inputs (N, 4, 6, 6)."""
    torch.manual_seed(3)
    if anynorm.catalogue[name].spec.on == "input":
        size, given = channels(name, (1, 4, 6, 6)), options(name)
        made = anynorm.create(name, size, channels_first=True, activation="silu", **given)
    else:
        made = anynorm.normalized(nn.Conv2d(4, 3, 3), name, activation="silu")
    for parameter in made.parameters():
        nn.init.normal_(parameter, mean=1.0, std=0.3)
    for _ in range(3):
        made(images() * 2 + 1)
    return made


def images(samples: int = 6) -> torch.Tensor:
    return torch.randn(samples, 4, 6, 6)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", anynorm.catalogue)
def test_exports_have_core_operators_alone(name: str, training: bool) -> None:
    made, x = layer(name).train(training), images()
    program = torch.export.export(made, (x,)).run_decompositions()
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    operators = [target for target in called if isinstance(target, torch._ops.OperatorBase)]
    names = {target.name() for target in operators if torch.Tag.core not in _tags(target)}
    beside = {one for one in names if not one.startswith(BESIDE)}
    if not training and name != "none":
        assert operators
    # Batch norm's own operators in evaluation and torch's layer norm are core.
    assert not beside, beside
    expected = made(x)
    torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=2e-5)


def _tags(target: Any) -> list[torch.Tag]:
    return getattr(target, "tags", [])


@pytest.mark.parametrize("name", ["batch", "l1-batch", "ghost"])
def test_an_exported_layer_trains_as_it_does_here(name: str) -> None:
    made, x = layer(name).train(), images()
    program = torch.export.export(made, (x,)).module()
    cotangent = torch.randn(6, 4, 6, 6)
    program(x).backward(cotangent)
    own = {key: p.grad.clone() for key, p in made.named_parameters() if p.grad is not None}
    exported = dict(program.named_parameters())
    for parameter in made.parameters():
        parameter.grad = None
    made(x).backward(cotangent)
    for key, parameter in made.named_parameters():
        found = exported[key].grad if exported[key].grad is not None else own[key]
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-5)
    state = program.state_dict()
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(state[key], made.state_dict()[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", anynorm.catalogue)
def test_onnx(name: str, training: bool, tmp_path: Path) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install anynorm[onnx]")
    runtime = importlib.import_module("onnxruntime")
    made, x = layer(name).train(training), images()
    expected = made(x).detach()
    file = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        torch.onnx.export(made, (x,), file, dynamo=True, verbose=False)
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: x.numpy()}
    found = torch.from_numpy(session.run(None, inputs)[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def _looped(condition: Any, body: Any, carried: Any) -> Any:
    while condition(*carried):
        carried = body(*carried)
    return carried


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("rank", ["full", "half", "spread"])
def test_eigenvalues_without_a_decomposition(
    size: int, rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "while_loop", _looped)  # which compiles what it loops over
    torch.manual_seed(size)
    columns = max(1, size // 2) if rank == "half" else 2 * size
    values = torch.randn(3, size, columns, dtype=torch.float64)
    if rank == "spread":
        values = values * torch.logspace(0, -4, size, dtype=torch.float64)[:, None]
    matrix = values @ values.mT
    found, axes = jacobi(matrix)
    largest = matrix.abs().max()
    torch.testing.assert_close(found, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-13 * largest)
    eye = torch.eye(size, dtype=torch.float64).expand(3, -1, -1)
    torch.testing.assert_close(axes.mT @ axes, eye, rtol=0, atol=1e-12)
    again = axes * found[:, None] @ axes.mT
    torch.testing.assert_close(again, matrix, rtol=0, atol=1e-12 * float(largest))


SCRIPTED: dict[str, nn.Module] = {
    "BatchNorm2d": anynorm.BatchNorm2d(4),
    "LayerNorm": anynorm.LayerNorm(6),
    "RMSNorm": anynorm.RMSNorm(6),
    "GroupNorm": anynorm.GroupNorm(2, 4),
    "InstanceNorm2d": anynorm.InstanceNorm2d(4),
    "FrozenBatchNorm": anynorm.FrozenBatchNorm(4),
    "DynamicTanh": anynorm.DynamicTanh(6),
    "SyncBatchNorm": anynorm.SyncBatchNorm(4),
    "ghost": anynorm.create("ghost", 4, size=2),
    "CosineConv2d": anynorm.CosineConv2d(4, 3, 3),
    "Activate": anynorm.Activate("relu"),
    "weight": anynorm.normalized(nn.Conv2d(4, 3, 3), "weight"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated")
@pytest.mark.parametrize("name", SCRIPTED)
def test_scripting_says_what_to_do_instead(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(SCRIPTED[name])).eval()
    with pytest.raises(AnynormError, match=r"torch\.export.*torch\.jit\.trace.*anynorm\.convert"):
        torch.jit.script(model)
    assert model[1][0] is SCRIPTED[name]


@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of sizes, which are checked
@pytest.mark.parametrize("name", SCRIPTED)
def test_tracing_in_evaluation(name: str) -> None:
    model, x = SCRIPTED[name].eval(), images()
    with torch.no_grad():  # as it is used, and as torch's check of the trace calls it again
        traced = torch.jit.trace(model, (x,))
    other = images()
    torch.testing.assert_close(traced(other), model(other))


@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated")
def test_converted_models_can_be_scripted() -> None:
    model = nn.Sequential(anynorm.BatchNorm2d(4), anynorm.GroupNorm(2, 4)).eval()
    scripted = torch.jit.script(anynorm.convert(model, "torch", images()).model)
    x = images()
    torch.testing.assert_close(scripted(x), model(x))
