"""The same in JAX, where it is installed: functions compiled by jax.jit, gradients by jax.vjp.

Means and variances are computed as flax does by default: the variance as the mean of squares less
the square of the mean, both in float32.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from anynorm.bench.cases import Case
from anynorm.bench.layers import Inputs, groups
from anynorm.bench.timing import Call
from benchmarks.speed.grids import compiles
from benchmarks.speed.normalizers import theirs

__all__ = ["serves", "step", "value_and_gradients"]

EPS = 1e-5
SERVED = ("batch", "batch1d", "instance", "group", "layer", "rms")
Function = Callable[..., Any]


def serves(case: Case) -> bool:
    """Whether the case is one of those written here, and large enough for a compiler."""
    return compiles(case) and case.normalizer in SERVED


def step(case: Case, given: Inputs) -> Call:
    """What is timed: one compiled function, on arrays that lie ready."""
    import jax

    function, arguments, dy = _prepared(case, given)
    forward = jax.jit(function)
    both = jax.jit(lambda dy, *arguments: _pull_back(function, dy, *arguments))
    if case.phase == "forward":
        return lambda: jax.block_until_ready(forward(*arguments))
    return lambda: jax.block_until_ready(both(dy, *arguments))


def value_and_gradients(case: Case, given: Inputs) -> list[Any]:
    """NumPy arrays in torch's axes: the output and the gradients of x, γ, β and the residual."""
    import numpy

    function, arguments, dy = _prepared(case, given)
    y, gradients = _pull_back(function, dy, *arguments)
    last = case.layout == "channels_last"
    arrays = [numpy.asarray(array, dtype="float32") for array in (y, *gradients)]
    return [a.transpose(0, 3, 1, 2) if last and a.ndim == 4 else a for a in arrays]


def _pull_back(function: Function, dy: Any, *arguments: Any) -> Any:
    import jax

    y, pull = jax.vjp(function, *arguments)
    return y, pull(dy)


def _prepared(case: Case, given: Inputs) -> tuple[Function, list[Any], Any]:
    """The function of x, γ, β (and the residual), these as JAX's arrays, and the cotangent."""
    import jax.numpy as jnp

    dtype = {"fp32": jnp.float32, "bf16": jnp.bfloat16}[case.dtype]

    def array(tensor: Any) -> Any:
        tensor = tensor.detach().float()
        if case.layout == "channels_last":  # JAX's own order of axes is that of memory
            tensor = tensor.permute(0, 2, 3, 1)
        return jnp.asarray(tensor.contiguous().numpy(), dtype)

    width, count = case.shape[1], len(list(theirs(case).parameters()))
    parameters = [jnp.ones(width, dtype), jnp.zeros(width, dtype)][:count]
    arguments = [array(given.x), *parameters]
    arguments += [] if given.residual is None else [array(given.residual)]
    return _function(case, count), arguments, array(given.dy)


def _function(case: Case, parameters: int) -> Function:
    import jax

    shape, axes, channel = _view(case)
    phi = getattr(jax.nn, case.phi) if case.phi else lambda z: z
    if case.phi == "gelu":  # JAX's own default is an approximation
        phi = lambda z: jax.nn.gelu(z, approximate=False)  # noqa: E731

    def function(x: Any, *rest: Any) -> Any:
        unit = _unit(x.reshape(shape), axes, case.normalizer != "rms").reshape(x.shape)
        for parameter, combine in zip(
            rest[:parameters], (operator.mul, operator.add), strict=False
        ):
            unit = combine(unit, parameter.reshape(channel))
        z = unit + rest[parameters] if case.adds else unit
        return phi(z).astype(x.dtype)

    return function


def _unit(x: Any, axes: tuple[int, ...], center: bool) -> Any:
    import jax
    import jax.numpy as jnp

    wide = x.astype(jnp.float32)
    square = jnp.mean(wide * wide, axes, keepdims=True)
    if not center:
        return wide * jax.lax.rsqrt(square + jnp.finfo(jnp.float32).eps)
    mean = jnp.mean(wide, axes, keepdims=True)
    return (wide - mean) * jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + EPS)


def _view(case: Case) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The shape in which axes can be averaged over, these axes, and γ's shape against x."""
    n, c, *positions = case.shape
    size = math.prod(positions)
    if not positions:
        return (n, c), (0,) if case.normalizer == "batch1d" else (1,), (c,)
    parts = groups(c)
    if case.layout == "channels_last":
        shape = (n, size, parts, c // parts) if case.normalizer == "group" else (n, size, c)
        return shape, {"batch": (0, 1), "instance": (1,), "group": (1, 3)}[case.normalizer], (c,)
    shape = (n, parts, c // parts, size) if case.normalizer == "group" else (n, c, size)
    axes = {"batch": (0, 2), "instance": (2,), "group": (2, 3)}[case.normalizer]
    return shape, axes, (c, *[1] * len(positions))
