"""Bracket patterns: the axes of an input by name, in brackets those that share one μ and σ.

``[n] c [...]`` reads: samples, channels, any further axes; one μ and σ for each channel, taken over
samples and positions.  Parentheses split an axis, as in einops: ``n (g [c]) [...]`` takes the
channels in g groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from anynorm.errors import PatternError, ShapeError, nearest

__all__ = ["AXES", "Part", "Pattern", "Plan"]

AXES: dict[str, str] = {
    "n": "samples",
    "c": "channels",
    "g": "groups of channels",
    "k": "parts of the batch",
    "l": "positions",
    "t": "time",
    "d": "depth",
    "h": "height",
    "w": "width",
    "o": "output units of a weight",
    "i": "inputs of a weight",
}
ELLIPSIS = "..."
_CHANNELS = ("c", "o")  # where γ lives
_TOKEN = re.compile(r"\.\.\.|[A-Za-z_]\w*|[\[\]()]|\S")


@dataclass(frozen=True)
class Part:
    """A named axis, or a part of one that parentheses split; `shared` if it is in brackets."""

    name: str
    shared: bool


@dataclass(frozen=True)
class Pattern:
    """A parsed bracket pattern; get one from :meth:`parse`, which caches.

    >>> pattern = Pattern.parse("n (g [c]) [...]")
    >>> sorted(pattern.shared)
    ['...', 'c']
    >>> pattern.plan(4).dims
    (2, 3, 4)
    """

    text: str
    axes: tuple[tuple[Part, ...], ...]

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read a pattern; raises `PatternError` with a caret under the fault."""
        return _parse(text)

    def __str__(self) -> str:
        return self.text

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts from left to right."""
        return tuple(part for axis in self.axes for part in axis)

    @property
    def shared(self) -> frozenset[str]:
        """The names in brackets: the axes over which μ and σ are taken."""
        return frozenset(part.name for part in self.parts if part.shared)

    @property
    def names_channels(self) -> bool:
        """Whether one axis is the channels; else γ lives on every axis without brackets."""
        return any(part.name in _CHANNELS for part in self.parts)

    def plan(self, rank: int) -> Plan:
        """Resolve the pattern for inputs of `rank` axes; raises `ShapeError` if it cannot fit."""
        key = (self.text, rank)
        if key not in _PLANS:
            _PLANS[key] = _plan(self, rank)
        return _PLANS[key]


@dataclass(frozen=True)
class Plan:
    """A pattern resolved for one rank.

    The *split view* of an input has one axis for each part: ``n (g [c]) [...]`` views (N, C, H, W)
    as (N, G, C/G, H, W).  `dims` are the axes of that view which share statistics; `splits`
    tells whether it differs from the input, `takes_batch` whether samples share statistics.  γ and
    β (and running statistics) start at the input's axis `first`.
    """

    pattern: Pattern
    axes: tuple[tuple[Part, ...], ...]
    dims: tuple[int, ...]
    first: int
    splits: bool
    takes_batch: bool

    @property
    def width(self) -> int:
        """The rank of the split view."""
        return sum(map(len, self.axes))

    @property
    def matrix_order(self) -> tuple[list[int], int]:
        """The order of the split view's axes as matrices (groups, c, values), and where c is then.

        For whitening: the axes left outside the brackets come first, g the last of them.
        """
        names = [part.name for axis in self.axes for part in axis]
        kept = [axis for axis in range(self.width) if axis not in self.dims and names[axis] != "c"]
        kept.sort(key=lambda axis: names[axis] == "g")
        return [*kept, names.index("c"), *self.dims], len(kept)

    def view(self, shape: tuple[int, ...], sizes: Mapping[str, int]) -> list[int]:
        """Return the shape of the split view of an input of `shape`.

        `sizes` gives the parts of split axes, all but one of each, e.g. ``{"g": 8}``.  Raises
        `ShapeError` if a size does not divide its axis.
        """
        split: list[int] = []
        for axis, (size, parts) in enumerate(zip(shape, self.axes, strict=True)):
            if len(parts) == 1:
                split.append(size)
            else:
                split += self._split(shape, axis, size, sizes)
        return split

    def affine_view(self, channels: tuple[int, ...], sizes: Mapping[str, int]) -> list[int]:
        """Return the shape in which γ of shape `channels` broadcasts against the split view."""
        shape = [1] * len(self.axes)
        shape[self.first : self.first + len(channels)] = channels
        split: list[int] = []
        for axis, parts in enumerate(self.axes):
            placed = self.first <= axis < self.first + len(channels)
            if len(parts) == 1 or not placed:
                split += [shape[axis]] + [1] * (len(parts) - 1)
            else:
                split += self._split(tuple(shape), axis, shape[axis], sizes)
        return split

    def _split(
        self, shape: tuple[int, ...], axis: int, size: int, sizes: Mapping[str, int]
    ) -> list[int]:
        known, free = 1, None
        parts = self.axes[axis]
        for part in parts:
            if part.name in sizes:
                known *= sizes[part.name]
            elif free is None:
                free = part.name
            else:
                raise ShapeError(
                    f"pattern '{self.pattern}' splits axis {axis} into "
                    f"'{_join(parts)}' and needs the size of all its parts but one: "
                    f"give {free}= or {part.name}=."
                )
        if known < 1 or size % known or (free is None and size != known):
            raise ShapeError(self._indivisible(shape, axis, size, sizes))
        return [sizes.get(part.name, size // known) for part in parts]

    def _indivisible(
        self, shape: tuple[int, ...], axis: int, size: int, sizes: Mapping[str, int]
    ) -> str:
        parts = self.axes[axis]
        given = ", ".join(f"{p.name}={sizes[p.name]}" for p in parts if p.name in sizes)
        possible = ", ".join(str(k) for k in range(1, min(size, 4096) + 1) if size % k == 0)
        return (
            f"{given} does not divide axis {axis} of size {size} in shape {tuple(shape)}: pattern "
            f"'{self.pattern}' splits that axis into '{_join(parts)}'. Possible sizes: {possible}."
        )


def _join(parts: tuple[Part, ...]) -> str:
    return " ".join(f"[{part.name}]" if part.shared else part.name for part in parts)


# A plain dictionary: torch.compile traces through it, and warns about functools.cache.
_PLANS: dict[tuple[str, int], Plan] = {}


def _plan(pattern: Pattern, rank: int) -> Plan:
    axes = _expand(pattern, rank)
    flat = [part for axis in axes for part in axis]
    dims = tuple(index for index, part in enumerate(flat) if part.shared)
    splits = len(flat) > len(axes)
    return Plan(pattern, axes, dims, _first(axes), splits, "n" in pattern.shared)


def _expand(pattern: Pattern, rank: int) -> tuple[tuple[Part, ...], ...]:
    """Replace the ellipsis by as many axes as an input of `rank` leaves for it."""
    named = [axis for axis in pattern.axes if axis[0].name != ELLIPSIS]
    free = rank - len(named)
    if free < 0 or (free and len(named) == len(pattern.axes)):
        bound = "exactly" if len(named) == len(pattern.axes) else "at least"
        raise ShapeError(
            f"an input of {rank} axes does not fit pattern '{pattern}', which names {bound} "
            f"{len(named)}. Reshape the input or change the pattern."
        )
    expanded: list[tuple[Part, ...]] = []
    for axis in pattern.axes:
        expanded += [axis] * (free if axis[0].name == ELLIPSIS else 1)
    return tuple(expanded)


def _first(axes: tuple[tuple[Part, ...], ...]) -> int:
    """The axis where γ starts: channels, output units, or the first without brackets but samples.

    Behind the last axis, where γ is a scalar, if there is none.
    """
    for name in _CHANNELS:
        for index, parts in enumerate(axes):
            if any(part.name == name for part in parts):
                return index
    taken = ("n", "k", "i")
    kept = (
        index
        for index, parts in enumerate(axes)
        if not any(part.shared or part.name in taken for part in parts)
    )
    return next(kept, len(axes))


@lru_cache(maxsize=1024)
def _parse(text: str) -> Pattern:
    return Pattern(" ".join(text.split()), _Reader(text).axes())


class _Reader:
    """Reads one pattern from left to right, remembering which bracket and parenthesis are open."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.bracket: int | None = None
        self.paren: int | None = None
        self.filled = False  # whether the open bracket or parenthesis holds an axis yet
        self.done: list[tuple[Part, ...]] = []
        self.split: list[Part] = []
        self.seen: set[str] = set()

    def axes(self) -> tuple[tuple[Part, ...], ...]:
        for token, at in _tokens(self.text):
            self._read(token, at)
        for opened, name in ((self.bracket, "bracket"), (self.paren, "parenthesis")):
            if opened is not None:
                self._fail(opened, f"this {name} is never closed", "close it")
        if not self.done:
            self._fail(0, "the pattern names no axis", "try '[n] c [...]'")
        return tuple(self.done)

    def _read(self, token: str, at: int) -> None:
        if token == "[":
            self._open(at)
        elif token == "]":
            self._close(at)
        elif token == "(":
            self._enter(at)
        elif token == ")":
            self._leave(at)
        else:
            self._axis(token, at)

    def _open(self, at: int) -> None:
        if self.bracket is not None:
            self._fail(at, "a bracket inside a bracket", "close the first one before it")
        self.bracket, self.filled = at, False

    def _close(self, at: int) -> None:
        if self.bracket is None:
            self._fail(at, "this bracket was never opened", "remove it or open it")
        if not self.filled:
            self._fail(at, "nothing in these brackets", "name the axes that share μ and σ")
        if self.paren is not None and self.bracket is not None and self.bracket < self.paren:
            self._fail(at, "the bracket closes inside a parenthesis", "close the parenthesis first")
        self.bracket = None

    def _enter(self, at: int) -> None:
        if self.paren is not None:
            self._fail(at, "a parenthesis inside a parenthesis", "split the axis in one go")
        self.paren, self.split = at, []

    def _leave(self, at: int) -> None:
        if self.paren is None:
            self._fail(at, "this parenthesis was never opened", "remove it or open it")
        if self.bracket is not None and self.paren is not None and self.bracket > self.paren:
            self._fail(at, "a bracket is still open here", "close it before the parenthesis")
        if len(self.split) < 2:
            self._fail(at, "parentheses split an axis in two or more", "as in '(g [c])'")
        self.done.append(tuple(self.split))
        self.paren = None

    def _axis(self, name: str, at: int) -> None:
        self._check_name(name, at)
        self.seen.add(name)
        self.filled = True
        part = Part(name, shared=self.bracket is not None)
        if self.paren is None:
            self.done.append((part,))
        else:
            self.split.append(part)

    def _check_name(self, name: str, at: int) -> None:
        if name in self.seen:
            self._fail(at, f"axis '{name}' stands here a second time", "name each axis once")
        if name == ELLIPSIS and self.paren is not None:
            self._fail(at, "'...' cannot be part of a split axis", "take it out of the parentheses")
        if name != ELLIPSIS and name not in AXES:
            known = ", ".join(f"{axis} ({what})" for axis, what in AXES.items())
            self._fail(at, f"unknown axis '{name}'", f"known: {known}, ...{nearest(name, AXES)}")
        if name in ("g", "k") and self.paren is None:
            self._fail(at, f"'{name}' is a part of an axis", f"split it: '({name} [c])'")

    def _fail(self, at: int, fault: str, fix: str) -> None:
        raise PatternError(f"{fault}:\n    {self.text}\n    {' ' * at}^\n{fix}")


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    for match in _TOKEN.finditer(text):
        yield match.group(), match.start()
