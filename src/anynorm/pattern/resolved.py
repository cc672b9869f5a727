"""A pattern resolved for one rank: the split view, the shared axes, and where γ lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anynorm.errors import ShapeError
from anynorm.pattern.axes import CHANNELS, ELLIPSIS, Axes, Part

__all__ = ["ResolvedPattern", "resolve"]


@dataclass(frozen=True)
class ResolvedPattern:
    """A pattern resolved for one rank.

    The *split view* of an input has one axis for each part: ``n (g [c]) [...]`` views (N, C, H, W)
    as (N, G, C/G, H, W).

    Args:
        pattern: the pattern's text.
        axes: the parts of each axis of an input of this rank.
        dims: the axes of the split view which share statistics.
        first: the axis of the input where γ and β (and running statistics) start.
        splits: whether the split view differs from the input.
        takes_batch: whether samples share statistics.
        names_channels: whether the pattern names the channels; if so, γ starts there, otherwise γ
            covers every axis without brackets.

    Example:
        >>> from anynorm.pattern import Pattern
        >>> Pattern.parse("n (g [c]) [...]").plan(3).view((2, 6, 5), {"g": 3})
        [2, 3, 2, 5]
    """

    pattern: str
    axes: Axes
    dims: tuple[int, ...]
    first: int
    splits: bool
    takes_batch: bool
    names_channels: bool

    @property
    def width(self) -> int:
        """The rank of the split view."""
        return sum(map(len, self.axes))

    @property
    def matrix_order(self) -> tuple[list[int], int]:
        """The order of the split view's axes as matrices (groups, c, values), and c's position.

        It is for whitening.  The axes outside the brackets come first; g is the last of them.
        """
        names = [part.name for axis in self.axes for part in axis]
        kept = [axis for axis in range(self.width) if axis not in self.dims and names[axis] != "c"]
        kept.sort(key=lambda axis: names[axis] == "g")
        return [*kept, names.index("c"), *self.dims], len(kept)

    def view(self, shape: tuple[int, ...], sizes: Mapping[str, int]) -> list[int]:
        """Return the shape of the split view of an input.

        Args:
            shape: the shape of the input.
            sizes: the sizes of the parts of split axes, such as ``{"g": 8}``; one part of each axis
                can be left out.

        Returns:
            One size for each part.

        Raises:
            ShapeError: A size does not divide its axis.
        """
        split: list[int] = []
        for axis, (size, parts) in enumerate(zip(shape, self.axes, strict=True)):
            if len(parts) == 1:
                split.append(size)
            else:
                split += self._split(shape, axis, size, sizes)
        return split

    def part_view(
        self, shape: Sequence[int], part: Sequence[int], sizes: Mapping[str, int]
    ) -> list[int]:
        """Return the shape in the split view of a `part`, which may have 1 for axes of `shape`.

        >>> from anynorm.pattern import Pattern
        >>> Pattern.parse("n (g [c]) [...]").plan(3).part_view((2, 6, 5), (2, 1, 5), {"g": 2})
        [2, 1, 1, 5]
        """
        split = iter(self.view(tuple(shape), sizes))
        found: list[int] = []
        for size, parts in zip(part, self.axes, strict=True):
            whole = [next(split) for _ in parts]
            found += [1] * len(parts) if size == 1 else whole
        return found

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


def resolve(text: str, named: Axes, rank: int) -> ResolvedPattern:
    """Resolve a pattern, by its text and its axes, for inputs of `rank` axes.

    Raises `ShapeError` if no input of this rank fits.
    """
    axes = _expand(text, named, rank)
    flat = [part for axis in axes for part in axis]
    return ResolvedPattern(
        text,
        axes,
        dims=tuple(index for index, part in enumerate(flat) if part.shared),
        first=_first(axes),
        splits=len(flat) > len(axes),
        takes_batch=any(part.shared and part.name == "n" for part in flat),
        names_channels=any(part.name in CHANNELS for part in flat),
    )


def _expand(text: str, axes: Axes, rank: int) -> Axes:
    """Replace the ellipsis by the axes that remain in an input of `rank` axes."""
    named = sum(axis[0].name != ELLIPSIS for axis in axes)
    free = rank - named
    if free < 0 or (free and named == len(axes)):
        bound = "exactly" if named == len(axes) else "at least"
        raise ShapeError(
            f"an input of {rank} axes does not fit pattern '{text}', which names {bound} "
            f"{named}. Reshape the input or change the pattern."
        )
    expanded: list[tuple[Part, ...]] = []
    for axis in axes:
        expanded += [axis] * (free if axis[0].name == ELLIPSIS else 1)
    return tuple(expanded)


def _first(axes: Axes) -> int:
    """The axis where γ starts: channels, output units, or the first other axis without brackets.

    The samples do not count. Without such an axis γ is a scalar, and the result is the rank.
    """
    for name in CHANNELS:
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
