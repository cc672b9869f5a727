"""Layers on the GPU kernels, by torch's dispatcher: beside torch.nn, compiled and in a step."""

from __future__ import annotations

import copy

import pytest
import torch
from on_device import DEVICE, dispatched, needs_triton
from torch import nn

import anynorm
from anynorm import kernels

pytestmark = [
    needs_triton,
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore:Warning only once for all operators"),  # of the override
]

LAYERS = {
    "batch": (lambda: anynorm.BatchNorm2d(6), lambda: nn.BatchNorm2d(6)),
    "instance": (
        lambda: anynorm.InstanceNorm2d(6, affine=True),
        lambda: nn.InstanceNorm2d(6, affine=True),
    ),
    "group": (lambda: anynorm.GroupNorm(2, 6), lambda: nn.GroupNorm(2, 6)),
    "layer": (lambda: anynorm.LayerNorm(5), lambda: nn.LayerNorm(5)),
    "rms": (lambda: anynorm.RMSNorm(5), lambda: nn.RMSNorm(5)),
}


@pytest.fixture(autouse=True)
def calls(monkeypatch, pays_from):
    """Send every size to the kernels, and without a GPU the CPU's calls; count them."""
    from anynorm.ops import running

    pays_from(1)
    if DEVICE == "cpu":
        monkeypatch.setattr(kernels, "_ON_CPU", True)
        monkeypatch.setattr("anynorm.ops.backends.torch_operators._OWN", True)
        monkeypatch.setattr(running, "_OWN", True)
    with dispatched() as seen:
        yield seen


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE)


def gradients(layer, x, dy):
    x = x.detach().requires_grad_()
    y = layer(x)
    return y, *torch.autograd.grad(y, (x, *layer.parameters()), dy)


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    ours, theirs = (build().to(DEVICE) for build in LAYERS[name])
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(one)
        other.data.copy_(one)
    return ours, theirs


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_torch(name, memory, calls):
    ours, theirs = pair(name)
    x, dy = (drawn(3, 6, 4, 5).contiguous(memory_format=memory) for _ in range(2))
    for found, wanted in zip(gradients(ours, x, dy), gradients(theirs, x, dy), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)
    assert calls is None or {"standardize", "standardize_backward"} <= set(calls)


def test_running_statistics_and_evaluation(calls):
    layer = anynorm.BatchNorm2d(6, activation="relu").to(DEVICE)
    plain = nn.BatchNorm2d(6).to(DEVICE)
    for batch in (drawn(4, 6, 3, 3), 5 + drawn(4, 6, 3, 3)):
        layer(batch), plain(batch)
    layer(torch.full((4, 6, 3, 3), torch.nan, device=DEVICE))  # leaves no trace
    torch.testing.assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)
    x = drawn(2, 6, 3, 3)
    torch.testing.assert_close(layer.eval()(x), plain.eval()(x).relu(), rtol=1e-5, atol=1e-5)
    assert calls is None or {"track_", "normalize"} <= set(calls)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_channel_that_is_not_finite_stays_as_it_was(momentum):
    layer = anynorm.BatchNorm1d(3, momentum=momentum).to(DEVICE)
    x = drawn(8, 3)
    x[2, 1] = torch.inf
    layer(x)
    kept = [layer.running_mean[1].item(), layer.running_var[1].item()]
    assert kept == [0.0, 1.0]
    assert layer.num_batches_tracked.item() == 1
    weight = 0.1 if momentum else 1.0
    moved = weight * x[:, [0, 2]].mean(0)
    torch.testing.assert_close(layer.running_mean[[0, 2]], moved, rtol=1e-5, atol=1e-6)


def test_one_graph():
    layer = anynorm.BatchNorm2d(6, activation="relu").to(DEVICE)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    x, dy, residual = drawn(3, 6, 4, 8), drawn(3, 6, 4, 8), drawn(3, 6, 4, 8)

    def step(module):
        entry = x.detach().requires_grad_()
        y = module(entry, residual)
        return y, *torch.autograd.grad(y, entry, dy)

    torch.testing.assert_close(step(compiled), step(layer), rtol=0, atol=0)
    torch.testing.assert_close(compiled._orig_mod.state_dict(), layer.state_dict(), rtol=0, atol=0)


def test_second_derivatives():
    layer = anynorm.create("l1-batch", 3).double().to(DEVICE).float()
    x, dy, v = (drawn(7, 3).requires_grad_() for _ in range(3))
    [dx] = torch.autograd.grad(layer(x), x, dy, create_graph=True)
    [found] = torch.autograd.grad(dx, dy, v)
    # dx is linear in dy, so that its derivative by dy is the layer's own, by x along v.
    step = 1e-2
    with torch.no_grad():
        wanted = (layer(x + step * v) - layer(x - step * v)) / (2 * step)
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("name", ["l1-batch", "linf-batch", "filter-response", "ghost"])
def test_entries_of_the_catalogue_are_fused(name, calls):
    options = {"size": 2} if name == "ghost" else {}
    layer = anynorm.create(name, 4, activation="silu", **options).to(DEVICE)
    x = drawn(4, 4, 3, 3).requires_grad_()
    layer(x).backward(drawn(4, 4, 3, 3))
    assert calls is None or calls.count("standardize") == calls.count("standardize_backward") == 1
