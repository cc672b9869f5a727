"""Check which normalizers can share statistics between processes, and find the processes."""

from __future__ import annotations

from torch import Tensor

from anynorm.errors import AnynormError
from anynorm.ops.process_groups import Ranks, Sync, ranks_of
from anynorm.pattern import ResolvedPattern
from anynorm.spec import Spec

__all__ = ["check_synced", "together"]


def check_synced(spec: Spec) -> None:
    """Raise an error if a specification has no statistics of the whole batch.

    Only statistics of the whole batch can be shared between processes.

    Args:
        spec: the specification.

    Raises:
        AnynormError: No statistics are taken over samples, or the batch is split into parts on
            purpose.

    Example:
        >>> check_synced(Spec.of("[n] c [...]"))
    """
    if not spec.uses_batch:
        raise AnynormError(
            f"sync= shares the statistics of a batch, but pattern '{spec.pattern}' has no "
            "statistics over samples, so there is nothing to share. Leave sync= out."
        )
    if any("n" in [part.name for part in axis] and len(axis) > 1 for axis in spec.pattern.axes):
        raise AnynormError(
            f"sync= joins the batches of all processes, but pattern '{spec.pattern}' splits the "
            "batch into parts on purpose. Use '[n] c [...]' with sync=, a smaller group of ranks "
            "for smaller batches, or leave sync= out."
        )


def together(spec: Spec, plan: ResolvedPattern, sync: Sync, layer: str, x: Tensor) -> Ranks | None:
    """Return the processes that share statistics; None if this process is alone."""
    check_synced(spec)
    name = layer or f"normalize('{plan.pattern}')"
    ranks: Ranks | None = ranks_of(sync, name, x.device.type)
    return ranks
