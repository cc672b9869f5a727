"""The channels of a group against everything else: an input as matrices, for whitening."""

from __future__ import annotations

import math

from anynorm.errors import AnynormError
from anynorm.pattern import ResolvedPattern
from anynorm.reference.arrays import Array, namespace

__all__ = ["Fold"]


class Fold:
    """An input's split view as matrices (groups, c, m), and back.

    m runs over the bracketed axes of the pattern; groups are the parts that are left, g fastest.
    Raises `AnynormError` if the pattern has no unbracketed channels to mix.
    """

    def __init__(self, plan: ResolvedPattern) -> None:
        names = [part.name for axis in plan.axes for part in axis]
        kept = [i for i in range(plan.width) if i not in plan.dims]
        channel = [i for i in kept if names[i] == "c"]
        if not channel:
            raise AnynormError(
                f"pattern '{plan.pattern}' has no unbracketed axis 'c': whitening mixes the "
                "channels of a group. Try '[n] (g c) [...]'."
            )
        groups = sorted(set(kept) - set(channel), key=lambda i: (names[i] == "g", i))
        self._order = (*groups, *channel, *plan.dims)
        self._groups = len(groups)

    def matrices(self, view: Array) -> Array:
        """Return the split view as (groups, c, m)."""
        moved = namespace(view).moveaxis(view, self._order, tuple(range(view.ndim)))
        return namespace(view).reshape(moved, self.shape(view.shape))

    def shape(self, view: tuple[int, ...]) -> tuple[int, int, int]:
        """Return the sizes (groups, c, m) of a split view."""
        sizes = [view[i] for i in self._order]
        g = self._groups
        return math.prod(sizes[:g]), sizes[g], math.prod(sizes[g + 1 :])

    def view(self, matrices: Array, view: tuple[int, ...]) -> Array:
        """Return (groups, c, m) as the split view of shape `view`."""
        xp = namespace(matrices)
        moved = xp.reshape(matrices, tuple(view[i] for i in self._order))
        return xp.moveaxis(moved, tuple(range(moved.ndim)), self._order)
