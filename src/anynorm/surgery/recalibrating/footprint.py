"""What a forward pass keeps while it waits in front of a layer, measured with one sample."""

from __future__ import annotations

import itertools
import operator
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anynorm.surgery.batches import Batch, Forward, call, part_of
from anynorm.surgery.modes import evaluating, uncompiled
from anynorm.surgery.recalibrating.room import Room, bytes_of, shapes_of
from anynorm.surgery.snapshot import state_preserved

__all__ = ["Footprint", "footprint"]

_ABSENT = object()
_PLAIN = (int, float, bool, str)
_HOOKS = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}


@dataclass
class Footprint:
    """The bytes that a part of a batch keeps alive in front of each layer, by the layer's index.

    `why` says why batches cannot wait for each other; it is empty if they can.  `cached` says what
    the first forward pass left in the model, but not the second one: perhaps for inputs of the same
    shape only.
    """

    size: int  # bytes of that part itself, which its forward pass keeps too
    shapes: list[torch.Size]
    kept: dict[int, int] = field(default_factory=dict)
    why: str = ""
    cached: str = ""
    measured: bool = True

    def room(self, bound: float, settled: Collection[int]) -> Room:
        """The room for batches that wait in front of the layers that are not `settled`."""
        if self.why:
            return Room(0.0)
        most = max((kept for place, kept in self.kept.items() if place not in settled), default=0)
        return Room(bound, most + self.size, self.size, self.shapes if self.cached else None)

    def stops(self, settled: Collection[int]) -> int:
        """The number of layers at which the batch waits."""
        return len(self.kept.keys() - set(settled))


def footprint(
    model: nn.Module, batch: Batch, forward: Forward | None, layers: Sequence[nn.Module]
) -> Footprint:
    """Run `model` on the first sample of a batch, measure, and restore its state.

    More samples need more in proportion.  If the model does not take one, it gets the whole batch.

    >>> model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    >>> footprint(model, torch.zeros(8, 4), None, list(model)).kept
    {0: 0, 1: 16}
    """
    for part, other in ((part_of(batch, 0, 1), part_of(batch, 0, 2)), (batch, batch)):
        with state_preserved(model), evaluating(model), uncompiled():
            found = _measured(model, part, forward, layers)
            if found.why:
                again = _measured(model, other, forward, layers)
                found.cached, found.why = found.why, again.why
        if found.measured:
            break
    return found


def _measured(
    model: nn.Module, batch: Batch, forward: Forward | None, layers: Sequence[nn.Module]
) -> Footprint:
    found = Footprint(bytes_of(batch), shapes_of(batch))
    alive = _Alive([*model.parameters(), *model.buffers()])

    def hook(place: int) -> Callable[..., None]:
        def see(*_: Any) -> None:
            found.kept[place] = max(found.kept.get(place, 0), alive.bytes)
            # To look takes long.  What a forward pass puts down stays there for some layers.
            if next(stops).bit_count() == 1:
                found.why = found.why or state.changed()

        return see

    stops = itertools.count(1)
    hooks = [layer.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        state = _State(model)
        with alive:
            alive.known(tree_leaves(batch))
            call(model, batch, forward)
        found.why = found.why or state.changed()
    except Exception as error:  # if it is not the watching, the pass itself raises it
        found.measured = False
        found.why = f"what they keep cannot be measured ({type(error).__name__})"
    finally:
        for one in hooks:
            one.remove()
    return found


class _Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that operators return, as long as they live."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.bytes = 0
        self._sizes: dict[int, int] = {}
        self.known(known)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing is compiled here: otherwise torch imports its compiler first."""
        return False

    def known(self, values: Sequence[Any]) -> None:
        """Tensors that do not count."""
        self._note(values, counts=False)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._note(tree_leaves(result), counts=True)
        return result

    def _note(self, values: Sequence[Any], *, counts: bool) -> None:
        for value in values:
            if isinstance(value, Tensor):
                with suppress(NotImplementedError):  # a tensor without a storage of its own
                    self._add(value.untyped_storage(), counts=counts)

    def _add(self, storage: torch.UntypedStorage, *, counts: bool) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if counts else 0
            self.bytes += self._sizes[key]
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)


class _State:
    """What the modules of a model hold, to see whether a forward pass changes it.

    Forward passes that take turns would see each other's changes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._held = [
            (place, name, container, container.copy())
            for place, module in model.named_modules()
            for name, container in (("", vars(module)), *vars(module).items())
            if type(container) in (dict, OrderedDict, list) and name not in _HOOKS
        ]
        written = [(name, b) for name, b in model.named_buffers() if not b.is_inference()]
        self._versions = [(name, tensor, tensor._version) for name, tensor in written]

    def changed(self) -> str:
        """Which attribute or buffer changed, in words; "" for none."""
        written = (name for name, tensor, version in self._versions if tensor._version != version)
        found = next(written, "") or next(filter(None, map(_changed, self._held)), "")
        return f"the forward pass of the model changes {found!r}" if found else ""


def _changed(held: tuple[str, str, Any, Any]) -> str:
    """The name of the attribute whose value is another one, or has other entries; "" for none."""
    place, name, now, before = held
    # The order of entries changes only with the entries.
    if len(now) == len(before) and all(map(operator.is_, _values(now), _values(before))):
        return ""
    was, is_now = (
        dict(one) if hasattr(one, "keys") else dict(enumerate(one)) for one in (before, now)
    )
    for key in {**was, **is_now}:
        if not _equal(was.get(key, _ABSENT), is_now.get(key, _ABSENT)):
            return f"{place}.{name or key}".strip(".")
    return ""


def _values(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container if isinstance(container, list) else container.values()


def _equal(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)
