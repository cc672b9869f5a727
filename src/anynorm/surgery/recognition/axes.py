"""Over which axes a module takes statistics, found from its gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anynorm.pattern import Pattern
from anynorm.surgery.recognition.copies import UnusableError, called

__all__ = ["Found", "find_patterns"]

Found = tuple[Pattern, dict[str, int]]


def find_patterns(module: nn.Module, x: Tensor) -> list[Found]:
    """Return the patterns of the axes that share statistics, with the sizes of split axes.

    An output depends on the inputs that share its statistics, and on no others.  Several patterns
    may fit; they differ in the axis of γ and β.

    Raises:
        UnusableError: The inputs on which an output depends are no set of a known pattern.
    """
    own = x.detach().requires_grad_()
    y = called(module, own)
    if not y.requires_grad:
        raise UnusableError("its output has no gradient")
    # Neither among the least nor the greatest, whose gradient may be 0 behind an activation.
    typical = y.detach().reshape(-1).argsort()[3 * y.numel() // 4]
    [gradient] = torch.autograd.grad(y.reshape(-1)[typical], own)
    reached = gradient != 0
    extents = [_extent(reached, axis) for axis in range(x.dim())]
    size = math.prod(extents)
    if size <= 1:
        raise UnusableError("each output depends on its own input at most")
    if int(reached.sum()) != size:
        raise UnusableError(
            "an output depends on inputs that form no block of axes", normalizes=True
        )
    return _named(extents, list(x.shape))


def _extent(reached: Tensor, axis: int) -> int:
    """How many places along an axis are reached."""
    return int(reached.movedim(axis, 0).flatten(1).any(1).sum())


def _named(extents: list[int], shape: list[int]) -> list[Found]:
    """The patterns with these axes in brackets; an axis that is reached in part is split."""
    last = len(shape) - 1
    whole = {axis for axis, size in enumerate(shape) if extents[axis] == size > 1}
    part = {axis for axis, size in enumerate(shape) if 1 < extents[axis] < size}
    positions = {axis for axis in range(2, len(shape)) if shape[axis] > 1}
    divides = all(shape[axis] % extents[axis] == 0 for axis in part)
    if part == {last} and not whole and divides:
        return [(Pattern.parse("... (g [c])"), {"c": extents[last]})]
    if part == {1} and whole == positions and divides:
        return [(Pattern.parse("n (g [c]) [...]"), {"g": shape[1] // extents[1]})]
    texts = (
        ("... [c]", {last}),
        ("n [c] ...", {1}),
        ("n [c ...]", {1, *positions}),
        ("n c [...]", positions),
        ("[n] c [...]", {0, *positions}),
    )
    found = [text for text, axes in texts if axes == whole and not part]
    if not found:
        raise UnusableError(
            f"an output depends on {extents} inputs along the axes of {shape}", normalizes=True
        )
    return [(Pattern.parse(text), {}) for text in found]
