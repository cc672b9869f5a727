"""The kernels under what torch puts around operators, and under the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from samples import OPERATORS, WAYS, Case, Draw, Sample, forward, make, needs_kernels, run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import anynorm
from anynorm import functional as F
from anynorm.ops import Affine, Epilogue, formula, standardize

pytestmark = needs_kernels

PHIS = ["identity", "relu", "silu"]


def leaves(sample: Sample) -> list[Tensor]:
    """What there is a gradient of, from now on."""
    tensors = (sample.x, sample.residual, sample.weight, sample.bias)
    return [t.requires_grad_() for t in tensors if t is not None]


def by_function(sample: Sample) -> Callable[..., Tensor]:
    """The function of `leaves` that users' calls come to."""
    _, _, _, _, _, statistic, phi, _ = sample

    def function(x: Tensor, *others: Tensor) -> Tensor:
        *residual, weight, bias = others
        epilogue = Epilogue(residual[0] if residual else None, phi)
        return standardize(x, Affine(weight, bias), statistic, epilogue)[0]

    return function


@pytest.mark.parametrize(
    ("case", "dtype", "phi", "given"),
    [
        (WAYS[0], torch.float32, "relu", False),
        (WAYS[1], torch.bfloat16, "silu", False),
        (WAYS[3], torch.float16, "identity", False),
        (WAYS[1], torch.float32, "relu", True),
        (WAYS[0], torch.bfloat16, "silu", True),
    ],
    ids=str,
)
def test_opcheck(case: Case, dtype: torch.dtype, phi: str, given: bool) -> None:
    sample = make(case, Draw(dtype, phi, added=True), given)
    _, mean, square, sign_mask = forward(sample)
    leaves(sample)
    x, residual, weight, bias, dy, statistic, _, _ = sample
    before = (mean, square) if given else ()
    rest = (statistic.eps, phi) if given else (*statistic, phi)
    name = "normalize" if given else "standardize"
    arguments = (x, residual, *before, weight, bias, *rest)
    torch.library.opcheck(getattr(OPERATORS, name).default, arguments)
    saved = residual if formula.needs_residual(Epilogue(residual, phi)) else None
    arguments = (dy, x, saved, sign_mask, mean, square, weight, bias, *rest)
    torch.library.opcheck(getattr(OPERATORS, f"{name}_backward").default, arguments)


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("case", WAYS, ids=str)
def test_autograd_gives_the_operators_gradients(case: Case, phi: str, added: bool) -> None:
    sample = make(case, Draw(phi=phi, added=added))
    found = run(sample)
    names = ["dx", *(["dresidual"] if added else []), "dweight", "dbias"]
    if phi == "identity":
        found["dresidual"] = sample.dy
    inputs = leaves(sample)
    y = by_function(sample)(*inputs)
    gradients = torch.autograd.grad(y, inputs, sample.dy)
    assert torch.equal(y, found["y"])
    assert all(map(torch.equal, gradients, (found[name] for name in names)))


@pytest.mark.parametrize("scale", ["std", "rms", "l1", "linf"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize(
    "case",
    [
        Case("batch", (3, 2, 5)),
        Case("batch", (3, 2, 5), "channels last"),
        Case("group", (2, 2, 2, 3), "groups last"),
        Case("last", (3, 5)),
    ],
    ids=str,
)
def test_first_and_second_derivatives(case: Case, phi: str, scale: str) -> None:
    sample = make(case._replace(scale=scale), Draw(torch.float64, phi, added=True))
    assert torch.autograd.gradcheck(by_function(sample), leaves(sample))
    assert torch.autograd.gradgradcheck(by_function(sample), leaves(sample))


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("case", WAYS[:4], ids=str)
def test_vmap_of_the_gradient_is_a_loop(case: Case, phi: str, added: bool) -> None:
    samples = make(case, Draw(phi=phi, added=added))
    function = by_function(samples)
    x, *others = (t for t in samples[:4] if t is not None)
    many = torch.stack((x, x.flip(0), x + x.flip(-1)))

    def gradients(x: Tensor) -> tuple[Tensor, ...]:
        def loss(x: Tensor, weight: Tensor) -> Tensor:
            return (function(x, *others[:-2], weight, others[-1]) * samples.dy).sum()

        found: tuple[Tensor, ...] = torch.func.grad(loss, argnums=(0, 1))(x, others[-2])
        return found

    each = zip(*map(gradients, many), strict=True)
    # Sums in another order: a few roundings of float32.
    torch.testing.assert_close(
        torch.vmap(gradients)(many), tuple(map(torch.stack, each)), rtol=1e-4, atol=1e-5
    )


# ---- layers -----------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "batch": lambda x, added: F.batch_norm(
        x, None, None, training=True, activation="relu", residual=added
    ),
    "instance": lambda x, added: F.instance_norm(x, activation="relu", residual=added),
    "group": lambda x, added: F.group_norm(x, 2, activation="relu", residual=added),
    "layer": lambda x, added: F.layer_norm(x, x.shape[-2:], activation="relu", residual=added),
    "rms": lambda x, added: F.rms_norm(x, x.shape[-1:], activation="relu", residual=added),
}


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_of_a_normalizer_is_a_loop(name: str, added: bool) -> None:
    x, residual = torch.randn(2, 3, 6, 4, 5, 7, generator=torch.Generator().manual_seed(0))

    def function(x: Tensor, residual: Tensor) -> Tensor:
        return FUNCTIONS[name](x, residual if added else None)

    each = torch.stack([function(*pair) for pair in zip(x, residual, strict=True)])
    torch.testing.assert_close(torch.vmap(function)(x, residual), each)


# Above the crossover whatever follows: see `anynorm.ops.dispatch_thresholds.TABLE`.
SHAPE = (16, 16, 64, 65)
LAYERS: dict[str, Callable[..., torch.nn.Module]] = {
    "batch": lambda **kwargs: anynorm.BatchNorm2d(16, **kwargs),
    "instance": lambda **kwargs: anynorm.InstanceNorm2d(16, affine=True, **kwargs),
    "group": lambda **kwargs: anynorm.GroupNorm(4, 16, **kwargs),
    "layer": lambda **kwargs: anynorm.LayerNorm(SHAPE[1:], **kwargs),
    "rms": lambda **kwargs: anynorm.RMSNorm(65, **kwargs),
}
FORMATS = [torch.contiguous_format, torch.channels_last]


def every_layer(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test for all layers, in both memory formats, without and with a fused step."""
    for mark in (
        pytest.mark.parametrize("name", LAYERS),
        pytest.mark.parametrize("memory_format", FORMATS, ids=str),
        pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"]),
    ):
        test = mark(test)
    return test


class Called(TorchDispatchMode):
    """Notes the operators of ours that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        space, _, name = func.name().partition("::")
        self.names += [name] if space == "anynorm" else []
        return func(*args, **(kwargs or {}))


def layer(name: str, **kwargs: Any) -> torch.nn.Module:
    module = LAYERS[name](**kwargs)
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return module


def inputs(memory_format: torch.memory_format) -> list[Tensor]:
    """x and a residual."""
    pair = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    return [t.contiguous(memory_format=memory_format).requires_grad_() for t in pair]


def results(
    function: Callable[..., Tensor], module: torch.nn.Module, tensors: list[Tensor]
) -> list[Any]:
    """Output, gradients and running statistics."""
    y = function(*tensors)
    gradients = torch.autograd.grad(y, [*tensors, *module.parameters()], torch.cos(3 * y.detach()))
    return [y, gradients, {name: buffer.clone() for name, buffer in module.named_buffers()}]


@pytest.fixture
def always(pays_from: Callable[[int], None]) -> None:
    """The kernels take every size."""
    pays_from(1)


@pytest.mark.usefixtures("always")
@every_layer
def test_layers_take_the_kernels(
    name: str, memory_format: torch.memory_format, fused: bool
) -> None:
    module = layer(name, activation="relu" if fused else None)
    tensors = inputs(memory_format)[: 2 if fused else 1]
    with Called() as called:
        module(*tensors).sum().backward()
    assert called.names == ["standardize", "standardize_backward"]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["batch", "instance"])
def test_fused_evaluation_takes_the_kernels(name: str) -> None:
    settings = {} if name == "batch" else {"track_running_stats": True}
    module = layer(name, activation="relu", **settings).eval()
    with Called() as called:
        module(*inputs(torch.contiguous_format)).sum().backward()
    assert called.names == ["normalize", "normalize_backward"]


@every_layer
def test_a_compiled_layer_gives_what_the_layer_does(
    name: str, memory_format: torch.memory_format, fused: bool
) -> None:
    settings = {"activation": "relu"} if fused else {}
    eager, compiled = (layer(name, **settings) for _ in range(2))
    tensors = inputs(memory_format)[: 2 if fused else 1]
    graph = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    # The same kernels: only what torch itself does beside them may round otherwise.
    torch.testing.assert_close(results(graph, compiled, tensors), results(eager, eager, tensors))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # inside inductor
@pytest.mark.parametrize("name", ["batch", "layer"])
def test_inductor_calls_the_kernels(name: str) -> None:
    eager, compiled = (layer(name, activation="relu") for _ in range(2))
    tensors = inputs(torch.contiguous_format)
    graph = torch.compile(compiled, fullgraph=True)
    torch.testing.assert_close(results(graph, compiled, tensors), results(eager, eager, tensors))
