"""The processes that share statistics, and the two collectives between them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch import distributed as dist

from anynorm.errors import AnynormError, CollectiveError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Ranks", "Sync", "check_sync", "gather", "ranks_of", "reduce"]

# None and False: nobody; True: the default group; a number: groups of that many consecutive ranks.
Sync: TypeAlias = "bool | int | dist.ProcessGroup | DeviceMesh | None"


class Ranks(NamedTuple):
    """A group of processes by its name, their number, and the layer that they share."""

    group: str
    size: int
    layer: str


def gather(own: Tensor, ranks: Ranks) -> Tensor:
    """Return the vectors `own` of all ranks as rows, in the order of ranks."""
    ops = torch.ops._c10d_functional
    rows = _collective("all_gather", ops.all_gather_into_tensor, own, ranks, ranks.size)
    return rows.view(ranks.size, -1)


def reduce(own: Tensor, ranks: Ranks) -> Tensor:
    """Return the sum of `own` over all ranks."""
    return _collective("all_reduce", torch.ops._c10d_functional.all_reduce, own, ranks, "sum")


def _collective(
    name: str, call: Callable[..., Tensor], own: Tensor, ranks: Ranks, argument: Any
) -> Tensor:
    """A functional collective, which a compiled graph shows as two nodes."""
    wait: Callable[[Tensor], Tensor] = torch.ops._c10d_functional.wait_tensor
    if torch.compiler.is_compiling():
        return wait(call(own, argument, ranks.group))
    try:
        return wait(call(own, argument, ranks.group))
    except RuntimeError as error:
        what = f"{name} of {own.numel()} values"
        raise _failed(what, ranks.layer, ranks.size, ranks.group, error) from error


def _failed(what: str, layer: str, size: int, group: str, error: Exception) -> CollectiveError:
    return CollectiveError(
        f"the {what} for {layer} failed between the {size} ranks of group {group!r}: {error}. A "
        "rank ended, or took another way through the model: see what it said itself. All ranks "
        "must call the same synchronised layers in the same order; one without data calls them on "
        "an empty batch."
    )


def check_sync(sync: Any) -> Any:
    """Return which processes share statistics, in the one form that layers keep.

    Args:
        sync: True for all processes, a process group, one dimension of a device mesh, or a number
            of consecutive ranks; None or False for none.

    Returns:
        `sync`, and None for False.

    Raises:
        AnynormError: `sync` names no group of processes, or one that this process is not in.

    Example:
        >>> check_sync(8), check_sync(False)
        (8, None)
    """
    if sync is None or sync is True or sync is False:
        return sync or None
    if dist.is_available() and sync is dist.GroupMember.NON_GROUP_MEMBER:
        raise AnynormError(
            f"sync= names a group that rank {dist.get_rank()} is not in. Give each rank the group "
            "that it belongs to."
        )
    if isinstance(sync, int):
        if sync < 1:
            raise AnynormError(f"sync={sync}: the ranks of a group are at least 1.")
        return sync
    if dist.is_available() and isinstance(sync, dist.ProcessGroup):
        return sync
    if hasattr(sync, "get_group") and getattr(sync, "ndim", 1) == 1:
        return sync
    raise AnynormError(
        f"sync={sync!r} names no group of processes. Give True for all, a process group, one "
        "dimension of a device mesh (mesh['dp']), or a number of consecutive ranks."
    )


def ranks_of(sync: Any, layer: str, device: str) -> Ranks | None:
    """Return the processes that `sync` names for `layer`, None where this one is alone.

    Raises `AnynormError` if the ranks' inputs lie on different kinds of `device`, or within DDP's
    join, where ranks that ran out of data would be waited for.
    """
    if not torch.compiler.is_compiling():
        return _found(sync, layer, device)
    found: Ranks | str | None = _asked(sync, layer, device)
    if isinstance(found, str):
        raise AnynormError(found)
    return found


def _asked(sync: Any, layer: str, device: str) -> Ranks | str | None:
    """The answer, or an error's text: what is raised in here, a tracer takes for its own fault."""
    try:
        return _found(sync, layer, device)
    except AnynormError as error:
        return str(error)


# As `torch.compiler.assume_constant_result` does, which imports the compiler: two seconds.
_asked._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _found(sync: Any, layer: str, device: str) -> Ranks | None:
    if not dist.is_available() or not dist.is_initialized():
        _warn_once(layer)
        return None
    group = _group(sync)
    size = dist.get_world_size(group)
    if size == 1:
        return None
    _refuse_join(layer)
    _agree(group, device, layer)
    return Ranks(group.group_name, size, layer)


_told: set[str] = set()


def _warn_once(layer: str) -> None:
    if _told:
        return
    _told.add(layer)
    warnings.warn(
        f"{layer} is synchronised, but torch.distributed has no process group: this process "
        "normalizes by itself. Call torch.distributed.init_process_group first, or start the "
        "script with torchrun. (Said once.)",
        stacklevel=2,
    )


def _group(sync: Any) -> Any:
    if sync is True:
        return dist.group.WORLD
    if isinstance(sync, int):
        return _consecutive(sync)
    return sync.get_group() if hasattr(sync, "get_group") else sync


_parts: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()


def _consecutive(size: int) -> Any:
    """This process's group among those of `size` consecutive ranks, which all layers share."""
    world, total = dist.group.WORLD, dist.get_world_size()
    if total % size:
        possible = ", ".join(str(k) for k in range(1, total + 1) if total % k == 0)
        raise AnynormError(
            f"sync={size} does not divide the {total} ranks. Possible sizes: {possible}."
        )
    if size == total:
        return world
    parts = _parts.setdefault(world, {})
    if size not in parts:
        parts[size] = dist.new_subgroups(size)[0]
    return parts[size]


def _refuse_join(layer: str) -> None:
    """Ranks that ran out of data answer DDP's collectives in join, but not those of layers."""
    from torch.nn.parallel import DistributedDataParallel

    active: Any = DistributedDataParallel._get_active_ddp_module()
    config = getattr(active, "_join_config", None)
    if config is not None and config.enable and not config.throw_on_early_termination:
        raise AnynormError(
            f"{layer} is synchronised, and DDP's join() lets ranks run out of data: the others "
            "would wait for their statistics. Use join(throw_on_early_termination=True), the same "
            "number of batches on all ranks (drop_last=True), or go on with empty batches."
        )


_agreed: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()


def _agree(group: Any, device: str, layer: str) -> None:
    """Compare the kinds of device, once for each group: a collective between two would hang."""
    agreed = _agreed.setdefault(group, [])
    if device in agreed:
        return
    store = dist.distributed_c10d.PrefixStore(
        f"anynorm/{group.group_name}/{len(agreed)}",
        dist.distributed_c10d._get_default_store(),
    )
    others = dist.get_process_group_ranks(group)
    try:
        store.set(str(dist.get_rank()), device)
        store.wait([str(rank) for rank in others], _timeout(group))
        found = {rank: store.get(str(rank)).decode() for rank in others}
    except RuntimeError as error:
        what = "comparison of devices"
        raise _failed(what, layer, len(others), group.group_name, error) from error
    if len(set(found.values())) > 1:
        raise AnynormError(
            f"{layer} is synchronised over ranks whose inputs lie on different devices: {found}. "
            "Move the model and the data of all ranks of a group to one kind of device."
        )
    agreed.append(device)


def _timeout(group: Any) -> timedelta:
    """The group's own, for the store has another."""
    backend = group._get_backend(group._device_types[-1])
    found: timedelta = backend.options._timeout
    return found
