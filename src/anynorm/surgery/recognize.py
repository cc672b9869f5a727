"""`recognize`: which normalizer a module is, by what it computes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm.errors import AnynormError
from anynorm.ops.formula import SIXTEEN_BITS
from anynorm.spec import Dialect, Spec
from anynorm.surgery.recognition.axes import find_patterns
from anynorm.surgery.recognition.checks import (
    OTHER_PARAMETERS,
    has_vectors,
    is_vector,
    need_all_parameters,
    need_possible,
    need_repeatable,
)
from anynorm.surgery.recognition.copies import (
    UnusableError,
    called,
    copied,
    gradients,
    in_float64,
)
from anynorm.surgery.recognition.epsilon import with_eps
from anynorm.surgery.recognition.hypotheses import Match, difference, fitting
from anynorm.surgery.recognition.probes import battery, drawn, longer_shape, probe_shape, seen_shape
from anynorm.surgery.transfer_hooks import hooked

__all__ = ["Recognition", "is_vector", "recognize"]

_EQUAL = 1e-9  # relative, in float64
# Around these are the parameters of a copy.  γ of both signs tells γ from |γ|, and large outputs
# tell activations apart that are alike for small ones.
_QUIET, _LOUD = 1.0, -4.0
# The inputs in the module's own type: few values could be rounded alike by chance.
_ROWS, _VALUES = 64, 2**16
_DIALECTS = (
    Dialect(),
    Dialect(statistics="float32"),
    Dialect(statistics="float32", cast="before"),
)


@dataclass(frozen=True)
class Recognition:
    """What :func:`recognize` found.

    Args:
        spec: the specification that the module computes; None if none was found.
        eps: its ε.
        sizes: the sizes of the parts of split axes.
        weight: the name of the parameter that stores γ; None if there is none.
        bias: the name of the parameter that is β; None if there is none.
        activation: the name of φ, which the module applies after γ and β; None if there is none.
        exact: whether the outputs in the module's own type had the same bits on all inputs tried.
        normalizes: whether the output does not depend on the scale of the input.
        evidence: what was measured, in sentences.

    Example:
        >>> found = recognize(nn.LayerNorm(8), torch.randn(2, 8))
        >>> found.spec.pattern.text, found.eps, found.weight
        ('... [c]', 1e-05, 'weight')
    """

    spec: Spec | None
    eps: float = 0.0
    sizes: dict[str, int] | None = None
    weight: str | None = None
    bias: str | None = None
    activation: str | None = None
    exact: bool = False
    normalizes: bool = False
    evidence: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.spec is not None


def recognize(module: nn.Module, x: Tensor, *, activation: bool = False) -> Recognition:
    """Find the specification that a module computes, from its outputs and gradients.

    Nothing is taken from names.  A copy of the module, without hooks and with random parameters,
    gets inputs that tell normalizers apart: large and tiny values, a large mean, one dominant
    channel, zeros.  A specification is accepted only if outputs and gradients agree to 1e-9 in
    float64 on all of them.  Then the copy in its own type decides how 16-bit results are rounded.

    Args:
        module: a module that maps a tensor to a tensor of the same shape.  It is left as it is.
        x: an input that it has in its model; only its shape and its type are used.
        activation: whether the module may apply an activation after normalizing.  If not, such a
            module has no specification, because its specification alone is not what it computes.

    Shape:
        - x: any that the module takes

    Returns:
        The specification with its ε and its parameters, or why there is none.

    Raises:
        AnynormError: `module` is no module, or `x` no floating-point tensor.

    Example:
        >>> class Norm(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(torch.zeros(8))
        ...
        ...     def forward(self, x):
        ...         return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * (1 + self.scale)
        >>> found = recognize(Norm(), torch.randn(2, 8))
        >>> found.spec.learned.offset, found.eps, found.weight
        (1.0, 1e-06, 'scale')
    """
    if not isinstance(module, nn.Module):
        raise AnynormError(f"recognize() takes a module, got {type(module).__name__}.")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise AnynormError("recognize() needs a floating-point tensor that the module takes as x.")
    found = _found(module, x)
    if found.spec is None or found.activation is None or activation:
        return found
    reason = f"it applies {found.activation} after normalizing by '{found.spec.pattern}'"
    return Recognition(None, normalizes=True, evidence=(reason,))


def _found(module: nn.Module, x: Tensor) -> Recognition:
    key = _key(module, x)
    if key is None:
        return _told(module, x)
    if key not in _KNOWN:
        _KNOWN[key] = _told(module, x)
    return _KNOWN[key]


# What was found, by class and configuration.
_KNOWN: dict[Hashable, Recognition] = {}
_OF_EVERY_MODULE = set(vars(nn.Module()))
_PLAIN = (bool, int, float, str, NoneType, torch.Size, torch.dtype)


def _key(module: nn.Module, x: Tensor) -> Hashable | None:
    """What decides the result: classes, settings and shapes; None if there may be more."""
    parts: list[Hashable] = [x.shape, x.dtype]
    for name, part in module.named_modules():
        settings = {k: v for k, v in vars(part).items() if k not in _OF_EVERY_MODULE}
        plain = all(isinstance(value, _PLAIN) or _is_shape(value) for value in settings.values())
        if not plain or part._buffers or hooked(part):
            return None
        named = [(k, p) for k, p in part._parameters.items() if p is not None]
        if any(is_lazy(parameter) for _, parameter in named):
            return None
        shapes = [(name, parameter.shape, parameter.dtype) for name, parameter in named]
        kind = (type(part), type(part).forward, part.training)
        parts += [name, kind, tuple(sorted(settings.items())), tuple(shapes)]
    return tuple(parts)


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int) for size in value)


def _told(module: nn.Module, x: Tensor) -> Recognition:
    try:
        # Gradients are compared, also where the caller has turned them off.
        with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
            warnings.simplefilter("ignore")  # torch's, on types of a candidate that is not chosen
            return _recognized(module, x)
    except UnusableError as error:
        return Recognition(None, normalizes=error.normalizes, evidence=(str(error),))


def _recognized(module: nn.Module, x: Tensor) -> Recognition:
    need_possible(module, x)
    twin = copied(module, _QUIET)
    wide = in_float64(twin)
    probe = drawn(probe_shape(x.shape, [p.numel() for p in module.parameters()]))
    need_repeatable(wide, probe)
    if not _ignores_scale(wide, probe):
        return Recognition(None, evidence=("it depends on the scale of its input",))
    if not has_vectors(module):
        return _unmatched(OTHER_PARAMETERS)
    need_all_parameters(wide, probe)
    loud = in_float64(copied(module, _LOUD)).eval()
    match = fitting(loud, probe, find_patterns(wide, probe))
    match = None if match is None else with_eps(wide, match, probe)
    if match is None:
        return _unmatched("it matches no specification")
    tests = [(what, wide, values) for what, values in battery(probe).items()]
    tests.append((f"parameters around {_LOUD:g}", loud, probe))
    tests.append(
        ("an input of the shape that it has in its model", wide, drawn(seen_shape(x.shape)))
    )
    longer = drawn(longer_shape(probe.shape, match.spec.pattern.plan(x.dim()).first))
    if _takes(wide, longer):
        tests.append(("an input with more positions", wide, longer))
    if evidence := _disagreement(match, tests):
        return _unmatched(evidence)
    return _in_own_type(twin, match, probe, x.dtype)


def _takes(module: nn.Module, x: Tensor) -> bool:
    try:
        called(module, x)
    except UnusableError:
        return False
    return True


def _unmatched(reason: str) -> Recognition:
    return Recognition(None, normalizes=True, evidence=(reason,))


def _ignores_scale(module: nn.Module, x: Tensor) -> bool:
    """Whether ordinary values give nearly what large ones do; ε makes a small difference."""
    with torch.no_grad():
        return difference(called(module, x * 3), called(module, x * 1e6)) < 0.01


def _disagreement(match: Match, tests: Sequence[tuple[str, nn.Module, Tensor]]) -> str:
    """Say where outputs or gradients differ by more than 1e-9; nothing if they agree."""
    for what, module, values in tests:
        cotangent = drawn(values.shape, seed=2)
        found = _with_gradient(partial(match.output, module), values, cotangent)
        right = _with_gradient(partial(called, module), values, cotangent)
        for kind, one, other in zip(("outputs", "gradients"), found, right, strict=True):
            away = difference(one, other)
            if other.isfinite().all() and not away <= _EQUAL:
                return f"{kind} differ by {away:.2g} of the largest on {what}"
    return ""


def _away(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The largest difference; below 0 if all bits are the same, those of infinities too."""
    pairs = list(zip(found, right, strict=True))
    if all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs):
        return -1.0
    finite = ((one, other) for one, other in pairs if other.isfinite().all())
    return max((difference(one, other) for one, other in finite), default=math.inf)


def _with_gradient(function: Any, x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    own_x = x.clone().requires_grad_()
    y = function(own_x)
    [gradient] = gradients(y, [own_x], cotangent)
    return y.detach(), torch.zeros_like(x) if gradient is None else gradient


@torch.no_grad()
def _in_own_type(twin: nn.Module, match: Match, probe: Tensor, dtype: torch.dtype) -> Recognition:
    """Choose the dialect whose outputs are nearest in the module's own type."""
    rows = max(2, min(_ROWS, _VALUES // probe[0].numel()))
    x = drawn([rows, *probe.shape[1:]]).to(dtype)
    inputs = list(battery(x).values())
    right = [called(twin, values) for values in inputs]
    rounds = dtype in SIXTEEN_BITS and not match.spec.uses_batch
    best: tuple[float, Match] | None = None
    for rounding in _DIALECTS if rounds else _DIALECTS[:1]:
        dialect = replace(rounding, eps=match.spec.dialect.eps)
        tried = replace(match, spec=replace(match.spec, dialect=dialect))
        try:
            outputs = [tried.output(twin, values) for values in inputs]
        except AnynormError as error:  # of the types of x and γ
            return _unmatched(str(error))
        away = _away(outputs, right)
        if best is None or away < best[0]:
            best = (away, tried)
        if away < 0:
            break
    assert best is not None
    away, chosen = best
    differs = away >= 0
    kind = str(x.dtype).removeprefix("torch.")
    found = f"differences up to {away:.2g} of the largest value" if differs else "the same bits"
    if right[0].dtype != x.dtype:
        found += f", and an output of type {str(right[0].dtype).removeprefix('torch.')}"
    return Recognition(
        chosen.spec,
        chosen.eps,
        chosen.sizes,
        chosen.weight,
        chosen.bias,
        chosen.activation,
        exact=not differs,
        normalizes=True,
        evidence=(
            f"outputs and gradients agree to {_EQUAL:g} in float64 on {len(inputs)} inputs",
            f"in {kind}: {found}",
        ),
    )
