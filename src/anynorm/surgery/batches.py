"""The items of a loader, and how a model is called on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from anynorm.errors import AnynormError, type_of

__all__ = [
    "Batch",
    "Forward",
    "call",
    "described",
    "device_of",
    "each",
    "length_of",
    "moved",
    "need_some",
    "once",
    "part_of",
    "plain",
    "samples_of",
    "tensors_of",
]

Batch = Any
Forward = Callable[[nn.Module, Batch], Any]

_RULE = (
    "A batch is the model's input (a tensor), a tuple or list that starts with it, or a dict of "
    "keyword arguments; for anything else give forward=lambda model, batch: ..."
)


def call(model: nn.Module, batch: Batch, forward: Forward | None = None) -> Any:
    """Run `model` on one item of a loader, moved to the model's device.

    A tensor is the input; of a tuple or list the first item is, and the rest are targets; a mapping
    holds keyword arguments.  `forward` replaces this rule.  Raises `AnynormError` with the shapes
    if the model cannot be called so.

    >>> call(nn.Linear(3, 2), (torch.zeros(4, 3), torch.zeros(4))).shape
    torch.Size([4, 2])
    """
    batch = moved(batch, device_of(model))
    try:
        return applied(model, batch, forward)
    except Exception as error:
        raise AnynormError(
            f"calling {type(model).__name__} on a batch, {described(batch)}, raised "
            f"{type(error).__name__}: {error}. {_RULE}"
        ) from error


def applied(model: nn.Module, batch: Batch, forward: Forward | None = None) -> Any:
    """Run `model` on a batch as :func:`call` does, without converting errors."""
    if forward is not None:
        return forward(model, batch)
    arguments, keywords = _arguments(batch)
    return model(*arguments, **keywords)


def _arguments(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)) and batch:
        return (batch[0],), {}
    if isinstance(batch, Tensor):
        return (batch,), {}
    raise TypeError(f"{type_of(batch)} is no batch")


def moved(batch: Batch, device: torch.device | None) -> Batch:
    """Return `batch` with its tensors on `device`, where one is given; mappings become dicts."""
    if device is None:
        return batch
    return tree_map_only(Tensor, lambda t: t.to(device), plain(batch))


def device_of(model: nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer; None if it has neither."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def tensors_of(output: Any) -> list[Tensor]:
    """The floating tensors of what a model returned: of a tensor, nested containers, an object.

    Raises `AnynormError` if there is none.

    >>> [tuple(t.shape) for t in tensors_of({"logits": torch.zeros(2, 3), "loss": None})]
    [(2, 3)]
    """
    found = [t for t in leaves_of(output) if isinstance(t, Tensor) and t.is_floating_point()]
    if not found:
        raise AnynormError(
            f"the model returned {described(output)}, which has no floating-point tensor. Give "
            "forward=lambda model, batch: ... that returns the output to compare."
        )
    return found


def leaves_of(output: Any) -> list[Any]:
    """What nested containers hold, and the attributes of other objects in them.

    >>> leaves_of([1, {"a": 2}])
    [1, 2]
    """
    found: list[Any] = []
    for leaf in tree_leaves(output):
        attributes = None if isinstance(leaf, Tensor) else getattr(leaf, "__dict__", None)
        found += [leaf] if attributes is None else tree_leaves(attributes)
    return found


def described(value: Any) -> str:
    """Name a value and the shapes in it.

    >>> described((torch.zeros(2, 3), [1]))
    'tuple(Tensor(2, 3), list(int))'
    """
    if isinstance(value, Tensor):
        return f"Tensor({', '.join(map(str, value.shape))})"
    if isinstance(value, Mapping):
        return f"dict({', '.join(f'{key}={described(item)}' for key, item in value.items())})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(described, value))})"
    return type(value).__name__


def each(batches: Iterable[Batch], *, some: bool = True) -> Iterator[Batch]:
    """Iterate over `batches`; raises `AnynormError` if they are not iterable, or there are none.

    With `some=False` there may be none.

    >>> list(each([1, 2]))
    [1, 2]
    """
    try:
        found = iter(batches)
    except TypeError:
        raise AnynormError(
            f"batches is {type_of(batches)}; give a loader or another iterable of batches. "
            "A single batch goes into a list: [batch]."
        ) from None
    empty = True
    for batch in found:
        empty = False
        yield batch
    need_some(not (empty and some))


def need_some(found: bool) -> None:
    """Raise `AnynormError` if no batch was found.

    >>> need_some(True)
    """
    if not found:
        raise AnynormError(
            "there are no batches to measure on; give at least one. A generator that was already "
            "used is empty: give a list, a DataLoader, or a new generator."
        )


def samples_of(batch: Batch, axis: int = 0) -> int:
    """The number of samples in a batch: the size of its first tensor along `axis`.

    >>> samples_of({"x": torch.zeros(8, 3)}), samples_of({})
    (8, 0)
    """
    found = (t for t in tree_leaves(batch) if isinstance(t, Tensor) and t.dim() > axis)
    first = next(found, None)
    return 0 if first is None else first.shape[axis]


def part_of(batch: Batch, start: int, stop: int, axis: int = 0) -> Batch:
    """Some samples of a batch, from every tensor that has all of them.

    Args:
        batch: tensors in tuples, lists and dicts.
        start: the first sample.
        stop: the one behind the last.
        axis: that of samples; a tensor that has them on axis 0 alone, as labels do, is cut there.

    Returns:
        The same, with fewer samples.

    Example:
        >>> part_of((torch.zeros(8, 3), torch.zeros(5)), 0, 2)[0].shape
        torch.Size([2, 3])
        >>> [x.shape for x in part_of((torch.zeros(5, 8, 3), torch.zeros(8)), 0, 2, axis=1)]
        [torch.Size([5, 2, 3]), torch.Size([2])]
    """
    samples = samples_of(batch, axis)

    def cut(x: Tensor) -> Tensor:
        for along in dict.fromkeys((axis, 0)):
            if x.dim() > along and x.shape[along] == samples:
                return x.narrow(along, start, min(stop, samples) - start)
        return x

    return tree_map_only(Tensor, cut, plain(batch))


def plain(batch: Batch) -> Batch:
    """The batch itself, but a dict in place of other mappings.

    >>> plain(torch.zeros(1))
    tensor([0.])
    """
    return dict(batch) if isinstance(batch, Mapping) else batch


def length_of(batches: Any) -> int | None:
    """The number of batches; None for a generator, or the loader of a stream.

    >>> length_of([1, 2]), length_of(iter([1, 2]))
    (2, None)
    """
    try:
        return len(batches)
    except TypeError:
        return None


def once(batches: Iterable[Batch]) -> bool:
    """Whether `batches` is an iterator, which is empty after one pass.

    >>> once([1, 2]), once(iter([1, 2]))
    (False, True)
    """
    return isinstance(batches, Iterator)
