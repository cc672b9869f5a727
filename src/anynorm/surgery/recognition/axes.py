"""Over which axes a module takes statistics, found from its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from anynorm.pattern import Pattern
from anynorm.surgery.recognition.copies import UnusableError, called, gradients

__all__ = ["Found", "find_patterns"]

Found = tuple[Pattern, dict[str, int]]
_NAMES = {2: ("nc",), 3: ("ncl", "nlc"), 4: ("nchw", "nhwc"), 5: ("ncthw", "nthwc")}


def find_patterns(module: nn.Module, x: Tensor) -> list[Found]:
    """Return the patterns of the axes that share statistics, with the sizes of split axes.

    An output depends on the inputs that share its statistics, and on no others.  Several patterns
    may fit; they differ in the axis of γ and β.

    Raises:
        UnusableError: The inputs on which an output depends are no set of a known pattern.
    """
    own = x.detach().requires_grad_()
    y = called(module, own)
    # Neither among the least nor the greatest, whose gradient may be 0 behind an activation.
    typical = y.detach().reshape(-1).argsort()[3 * y.numel() // 4]
    [gradient] = gradients(y.reshape(-1)[typical], [own])
    if gradient is None:
        raise UnusableError("its output has no gradient")
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
    whole = {axis for axis, size in enumerate(shape) if extents[axis] == size > 1}
    part = {axis for axis, size in enumerate(shape) if 1 < extents[axis] < size}
    if any(shape[axis] % extents[axis] for axis in part):
        part = set(range(len(shape)))  # as no pattern has them
    found: dict[tuple[tuple[int, ...], int], Found] = {}
    for text, sizes in (*_usual(extents, shape, whole, part), *_full(extents, shape, whole, part)):
        pattern = Pattern.parse(text)
        plan = pattern.plan(len(shape))
        found.setdefault((plan.dims, plan.first), (pattern, sizes))
    if not found:
        raise UnusableError(
            f"an output depends on {extents} inputs along the axes of {shape}", normalizes=True
        )
    return list(found.values())


def _usual(
    extents: list[int], shape: list[int], whole: set[int], part: set[int]
) -> Iterator[tuple[str, dict[str, int]]]:
    """Patterns for inputs of any rank."""
    last = len(shape) - 1
    positions = {axis for axis in range(2, len(shape)) if shape[axis] > 1}
    if part == {last} and not whole:
        yield "... (g [c])", {"c": extents[last]}
    if part == {1} and whole == positions:
        yield "n (g [c]) [...]", {"g": shape[1] // extents[1]}
    texts = (
        ("... [c]", {last}),
        ("n [c] ...", {1}),
        ("n [c ...]", {1, *positions}),
        ("n c [...]", positions),
        ("[n] c [...]", {0, *positions}),
    )
    yield from ((text, {}) for text, axes in texts if axes == whole and not part)


def _full(
    extents: list[int], shape: list[int], whole: set[int], part: set[int]
) -> Iterator[tuple[str, dict[str, int]]]:
    """Patterns that name each axis, with the channels in axis 1 or last."""
    for names in _NAMES.get(len(shape), ()):
        channels = names.index("c")
        if part <= {channels}:
            axes = [f"[{name}]" if axis in whole else name for axis, name in enumerate(names)]
            if part:
                axes[channels] = "(g [c])"
            sizes = {"g": shape[channels] // extents[channels]} if part else {}
            yield " ".join(axes).replace("] [", " "), sizes
