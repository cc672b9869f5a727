"""Layers drawn at random, each compared whole with the formula in float64.

A case is a layer of the catalogue, a twin of torch's or a random bracket pattern.  Its input has a
random type, shape and memory layout; it is in training or evaluation, with or without γ, β, mask,
residual and φ.  Compared are the output, the gradients for a random cotangent, and every buffer.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

import anynorm
from anynorm import catalogue
from anynorm.activations import ACTIVATIONS
from anynorm.errors import AnynormError
from anynorm.ops import View, formula
from anynorm.spec import SCALES, Spec
from benchmarks.fuzz_formula import (
    Allowed,
    Inputs,
    Layout,
    Statistics,
    allowed,
    finished,
    last_digit,
    layout,
    measured,
    moved,
    normalized,
)

LARGE = 1 << 16
TYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Rounding by a dialect and the correction of batch renorm are not in the formula here.
ENTRIES = [
    name
    for name, row in catalogue.items()
    if row.spec.on == "input" and not row.spec.whitens and row.spec.is_plain
]


class Outcome(NamedTuple):
    """What became of a case: "kernels", "formula", "torch" or "refused", and how large it was."""

    backend: str
    values: int = 0


class Case(NamedTuple):
    """A layer with all it is called with."""

    layer: nn.Module
    spec: Spec
    channels: tuple[int, ...]
    sizes: dict[str, int]
    x: Tensor
    residual: Tensor | None
    mask: Tensor | None
    told: str


class FoundError(AssertionError):
    """A result that is not the formula's."""


def run(seed: int) -> Outcome:
    """Draw the case of `seed` and compare it; raises `FoundError` with the case and how far off."""
    chance = random.Random(seed)
    torch.manual_seed(seed)
    told = "drawing"
    try:
        case = draw(chance)
        told = case.told
        return compare(case, chance)
    except AnynormError:
        return Outcome("refused")
    except FoundError as error:
        raise FoundError(f"{told}: {error}") from None
    except Exception as error:
        raise FoundError(f"{told}: {type(error).__name__}: {error}") from error


# ---- drawing --------------------------------------------------------------------------------


def draw(chance: random.Random) -> Case:
    dtype = chance.choice(TYPES)
    shape = _shape(chance)
    # For large inputs prefer patterns without an operator of torch: the kernels serve all of them.
    kinds = (_entry, _twin, _pattern, _pattern) if math.prod(shape) >= LARGE else (_entry, _twin)
    kind = chance.choice((*kinds, _pattern))
    options: dict[str, Any] = {
        "affine": chance.random() < 0.8,
        "activation": chance.choice([None, None, *ACTIVATIONS]),
    }
    layer, spec, channels, sizes = kind(chance, shape, options)
    layer = layer.to(
        dtype if dtype in (torch.float32, torch.float64) else _parameters(chance, dtype)
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, mean=0.5)
    if chance.random() < 0.4:
        layer.eval()
    for name, buffer in layer.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(
                torch.randn_like(buffer) if "mean" in name else torch.rand_like(buffer) + 0.3
            )
    x = _laid_out(chance, _values(shape, dtype, chance))
    residual = _laid_out(chance, torch.randn(shape).to(dtype)) if chance.random() < 0.3 else None
    mask = None
    if "mask" in layer.forward.__annotations__ and chance.random() < 0.3:
        mask = _mask(chance, spec, shape)
    told = (
        f"{layer} {'training' if layer.training else 'evaluation'} {str(dtype)[6:]} "
        f"{tuple(shape)} strides {x.stride()}"
        + ("" if residual is None else " residual")
        + ("" if mask is None else f" mask {tuple(mask.shape)}")
    )
    return Case(layer, spec, channels, sizes, x, residual, mask, told)


def _parameters(chance: random.Random, dtype: torch.dtype) -> torch.dtype:
    return chance.choice((torch.float32, dtype))


def _shape(chance: random.Random) -> list[int]:
    """(N, C) or (N, C, positions); a part of all are large, a few are empty."""
    rank = chance.choice((2, 3, 4, 4, 5))
    goal = chance.choice((8, 64, 1 << 9, 1 << 12, LARGE, LARGE, LARGE))
    shape = [chance.choice((1, 2, 3, 4, 6, 8, 16, 17)) for _ in range(rank)]
    shape[1] = chance.choice((1, 2, 4, 6, 8, 12, 16, 32, 33))
    grown = [axis for axis in range(rank) if axis != 1 or rank == 2]
    while math.prod(shape) < goal:
        axis = chance.choice(grown)
        shape[axis] = shape[axis] * 2 + chance.randint(0, 1)
    if chance.random() < 0.02:
        shape[chance.choice(grown)] = 0
    return shape


def _entry(chance: random.Random, shape: list[int], options: dict[str, Any]) -> Any:
    name = chance.choice(ENTRIES)
    row, own = catalogue[name], {}
    if "groups" in row.options:
        own["groups"] = chance.choice(
            [g for g in range(1, max(shape[1], 1) + 1) if shape[1] % g == 0]
        )
    if "size" in row.options:
        own["size"] = chance.choice([k for k in range(1, shape[0] + 1) if shape[0] % k == 0] or [1])
    if "p" in row.options and chance.random() < 0.5:
        own["p"] = chance.choice((1, 2, 3, 2.5))
    spec, sizes = row.tune(channels_first=True, **own)
    channels = tuple(shape[1:]) if name == "batch-per-activation" else (shape[1],)
    momentum = chance.choice((0.1, 0.1, 1.0, 0.0, None))
    layer = anynorm.create(name, channels, channels_first=True, momentum=momentum, **options, **own)
    return layer, spec, channels, sizes


def _twin(chance: random.Random, shape: list[int], options: dict[str, Any]) -> Any:
    size, positions = shape[1], len(shape) - 2
    momentum = chance.choice((0.1, 0.1, 1.0, 0.0, None))
    tracked = chance.random() < 0.8
    kind = chance.choice(("batch", "batch", "layer", "rms", "group", "instance"))
    if kind == "batch":
        cls = (anynorm.BatchNorm1d, anynorm.BatchNorm1d, anynorm.BatchNorm2d, anynorm.BatchNorm3d)
        layer: nn.Module = cls[positions](
            size, momentum=momentum, track_running_stats=tracked, **options
        )
        return layer, Spec.of("[n] c [...]"), (size,), {}
    if kind == "instance" and positions:
        plain = (anynorm.InstanceNorm1d, anynorm.InstanceNorm2d, anynorm.InstanceNorm3d)
        layer = plain[positions - 1](size, track_running_stats=False, **options)
        return layer, Spec.of("n c [...]"), (size,), {}
    if kind == "group":
        groups = chance.choice([g for g in range(1, size + 1) if size % g == 0] or [1])
        layer = anynorm.GroupNorm(groups, size, **options)
        return layer, Spec.of("n (g [c]) [...]"), (size,), {"g": groups}
    affine = options.pop("affine")
    last = chance.randint(1, min(2, len(shape) - 1))
    names = " ".join("cd"[:last])
    if kind == "rms":
        layer = anynorm.RMSNorm(shape[-last:], eps=1e-5, elementwise_affine=affine, **options)
        spec = Spec.of(f"... [{names}]", center=False, scale="rms")
    else:
        layer = anynorm.LayerNorm(shape[-last:], elementwise_affine=affine, **options)
        spec = Spec.of(f"... [{names}]")
    return layer, spec, tuple(shape[-last:]), {}


def _pattern(chance: random.Random, shape: list[int], options: dict[str, Any]) -> Any:
    """Any subset of the axes in brackets, with the channels or the batch perhaps split."""
    names, sizes = ["n", "c", *"dhw"[: len(shape) - 2]], {}
    shared = [name for name in names if chance.random() < 0.5] or [names[-1]]
    written = [f"[{name}]" if name in shared else name for name in names]
    split = chance.random()
    if split < 0.25:
        sizes["g"] = chance.choice([g for g in range(1, shape[1] + 1) if shape[1] % g == 0] or [1])
        written[1] = f"(g {written[1]})"
    elif split < 0.4 and shape[0]:
        sizes["n"] = chance.choice([k for k in range(1, shape[0] + 1) if shape[0] % k == 0] or [1])
        written[0] = f"(k {written[0]})"
    pattern = " ".join(written)
    center = chance.random() < 0.7
    scale = chance.choice([*(s for s in SCALES if not SCALES[s].root), None])
    spec = Spec.of(pattern, center=center, scale=scale)
    momentum = chance.choice((0.1, 0.1, 1.0, 0.0, None))
    bias = chance.choice((None, True, False))
    layer = anynorm.Norm.of(spec, shape[1], momentum=momentum, bias=bias, **options, **sizes)
    return layer, spec, (shape[1],), sizes


def _values(shape: list[int], dtype: torch.dtype, chance: random.Random) -> Tensor:
    """Values of some size about a mean of their own."""
    x = torch.randn(shape, dtype=torch.float64) * chance.choice((0.1, 1.0, 1.0, 5.0))
    return (x + chance.choice((0.0, 0.0, 0.5, 3.0))).to(dtype)


def _mask(chance: random.Random, spec: Spec, shape: list[int]) -> Tensor:
    form = chance.choice(("no channels", "whole", "some axes"))
    first = spec.pattern.plan(len(shape)).first
    if form == "no channels" and first < len(shape):
        sizes = [size for axis, size in enumerate(shape) if axis != first]
    elif form == "some axes":
        sizes = [size if chance.random() < 0.5 else 1 for size in shape]
    else:
        sizes = shape
    return torch.rand(sizes) < chance.choice((0.5, 0.9))


def _laid_out(chance: random.Random, x: Tensor) -> Tensor:
    """The same values in another order in memory, or with gaps, or a view of one sample."""
    form = chance.choice(("plain", "plain", "channels last", "reversed", "stepped", "expanded"))
    if form == "channels last":
        order = [0, *range(2, x.dim()), 1]
    elif form == "reversed":
        order = [*reversed(range(x.dim()))]
    elif form == "stepped":
        return torch.stack((x, torch.full_like(x, math.nan)), -1).flatten(-2)[..., ::2]
    elif form == "expanded" and x.shape[0] and chance.random() < 0.3:
        return x[:1].expand_as(x)
    else:
        return x
    back = sorted(range(x.dim()), key=order.__getitem__)
    return x.permute(order).contiguous().permute(back)


# ---- comparing ------------------------------------------------------------------------------


def compare(case: Case, chance: random.Random) -> Outcome:
    layer, x = case.layer, case.x
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    truth = _Truth(case, before)
    dy = truth.cotangent(
        torch.randn_like(x) if chance.random() < 0.8 else torch.randn(x.shape).to(x.dtype)
    )
    leaves = [t if t is None else t.detach().requires_grad_() for t in (x, case.residual)]
    arguments = {} if case.mask is None else {"mask": case.mask}
    with _watched() as called:
        y = layer(leaves[0], leaves[1], **arguments)
        y.backward(dy)
    backend = _backend(called)
    bounds = truth.allowed(
        dy, between=backend == "torch" or case.mask is not None, one_pass=backend == "torch"
    )
    truth.y.backward(dy.double())
    _near("output", y, truth.y, bounds.y)
    _near("gradient of x", leaves[0].grad, truth.given.x.grad, bounds.x)
    if leaves[1] is not None:
        _near(
            "gradient of the residual", leaves[1].grad, truth.given.residual.grad, bounds.residual
        )
    for name in ("weight", "bias"):
        own = getattr(layer, name, None)
        if own is not None:
            _near(
                f"gradient of {name}",
                own.grad,
                getattr(truth.given, name).grad,
                getattr(bounds, name),
            )
    for name, buffer in layer.named_buffers():
        _near_buffer(name, buffer, truth, bounds)
    return Outcome(backend, x.numel())


class _Truth:
    """A case by the formula in float64."""

    def __init__(self, case: Case, buffers: dict[str, Tensor]) -> None:
        layer, spec = case.layer, case.spec
        self.case, self.eps = case, _eps(layer)
        self.phi = ACTIVATIONS[layer.activation or "identity"]

        def wide(tensor: Tensor | None) -> Tensor | None:
            return (
                None if tensor is None else tensor.detach().double().contiguous().requires_grad_()
            )

        x = case.x
        mask = case.mask
        if mask is not None and mask.dim() < x.dim():
            mask = mask.unsqueeze(spec.pattern.plan(x.dim()).first)
        weight, bias = (wide(getattr(layer, name, None)) for name in ("weight", "bias"))
        self.given = Inputs(wide(x), wide(case.residual), mask, weight, bias)  # type: ignore[arg-type]
        self.at: Layout = layout(spec, x, case.channels, case.sizes)
        self.buffers, self.after = buffers, buffers
        tracked = "running_mean" in buffers
        self.training = layer.training or not tracked
        own = self.given.x if mask is None else torch.where(mask, self.given.x, 0)
        self.given_values = self.given._replace(x=own)
        if spec.is_identity:
            zero = torch.zeros((), dtype=torch.float64)
            self.found = Statistics(zero, zero + 1, zero + 1)
            self.eps = 0.0
        elif self.training:
            self.found = measured(spec, own, mask, self.at)
        else:
            shape = self.at.beside
            mean, var = (buffers[f"running_{s}"].double().reshape(shape) for s in ("mean", "var"))
            self.found = Statistics(mean, var, torch.ones_like(mean))
        if spec.scale is None:
            self.eps = 0.0
        self.z = normalized(
            self.given_values, self.at, self.found.mean, self.found.square, self.eps
        )
        self.y = finished(self.z, self.phi, mask)
        if tracked and layer.training and x.numel():
            wide_buffers = {name: buffer.double() for name, buffer in buffers.items()}
            still = Statistics(*(t.detach() for t in self.found))
            largest = torch.finfo(buffers["running_mean"].dtype).max
            self.after = moved(spec, self.at, still, wide_buffers, layer.momentum, largest)

    @property
    def work(self) -> float:
        eps = torch.finfo(torch.promote_types(self.case.x.dtype, torch.float32)).eps
        # Beside results in float64, what is called the truth has roundings of its own.
        return 4 * eps if self.case.x.dtype == torch.float64 else eps

    def allowed(self, dy: Tensor, *, between: bool, one_pass: bool = False) -> Allowed:
        """`between`: operators of torch round what lies between them to the input's type.

        `one_pass`: some take the variance from sums of squares, whose error goes by (μ/σ)².
        """
        own = torch.finfo(self.case.x.dtype).eps
        with torch.no_grad():
            found = Statistics(*(t.detach() for t in self.found))
            ratio = found.mean.square() / (found.square + self.eps)
            far = 1 + float(ratio.nan_to_num(0.0).max()) if one_pass and ratio.numel() else 1.0
            return allowed(
                self.case.spec,
                self.given_values,
                self.at,
                found,
                dy.double(),
                self.eps,
                self.phi.steepest,
                far * self.work,
                4 * own if between else 0.0,
            )

    def cotangent(self, dy: Tensor) -> Tensor:
        """0 where φ's derivative jumps within what z may be off."""
        off = 2 * self.allowed(dy, between=True).y
        for jump in self.phi.jumps:
            dy = dy.masked_fill((self.z.detach() - jump).abs() <= off, 0.0)
        return dy


def _eps(layer: nn.Module) -> float:
    return float(layer.eps)  # type: ignore[arg-type]


def _near(what: str, found: Tensor | None, truth: Tensor | None, bound: Tensor | None) -> None:
    if truth is None or found is None:
        if truth is not None and truth.numel() and bool(truth.any()):
            raise FoundError(f"{what} is missing")
        return
    if found.shape != truth.shape:
        raise FoundError(f"{what} has shape {tuple(found.shape)}, not {tuple(truth.shape)}")
    away = (found.double() - truth.detach()).abs()
    limit = bound + last_digit(truth.detach(), found.dtype)  # type: ignore[operator]
    too_large = truth.detach().abs() + limit >= torch.finfo(found.dtype).max  # for its type
    equal = (away == 0) | (too_large & found.isinf())
    worst = torch.where(equal, 0.0, away / limit).nan_to_num(math.inf)
    if worst.numel() and worst.max() > 1:
        raise FoundError(f"{what} is {float(worst.max()):.3g} times as far off as allowed")


def _near_buffer(name: str, buffer: Tensor, truth: _Truth, bounds: Allowed) -> None:
    if name == "num_batches_tracked":
        expected = truth.after[name]
        if int(buffer) != int(expected):
            raise FoundError(f"{name} is {int(buffer)}, not {int(expected)}")
        return
    if truth.after is truth.buffers:
        if not torch.equal(buffer, truth.buffers[name]):
            raise FoundError(f"{name} changed in evaluation")
        return
    widest = (bounds.mean if name == "running_mean" else bounds.square).max()
    _near(
        name,
        buffer,
        truth.after[name],
        widest + last_digit(truth.buffers[name].double(), buffer.dtype),
    )


@contextlib.contextmanager
def _watched() -> Iterator[set[str]]:
    """Which of our operators and of their formulas are called."""
    called: set[str] = set()

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.add(name)
            return function(*args, **kwargs)

        return call

    watched = [
        mock.patch.object(View, "of", told("operator", View.of)),
        mock.patch.object(formula, "forward", told("formula", formula.forward)),
        mock.patch.object(formula, "normalize", told("formula", formula.normalize)),
    ]
    with contextlib.ExitStack() as stack:
        for one in watched:
            stack.enter_context(one)
        yield called


def _backend(called: set[str]) -> str:
    if "formula" in called:
        return "formula"
    return "kernels" if called else "torch"
