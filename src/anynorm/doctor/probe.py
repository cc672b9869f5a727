"""Hooks that watch a model's normalization layers while it runs."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from anynorm.doctor.record import Record
from anynorm.surgery.batches import Batch, Forward, call, samples_of
from anynorm.surgery.call_args import input_of, mask_of
from anynorm.surgery.functional_calls import FunctionalCall
from anynorm.surgery.modes import evaluating
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.recognized import watching

__all__ = ["Probe"]


class Probe:
    """Watches the normalization layers of one model in a block; the records stay.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    >>> with Probe(model) as probe:
    ...     _ = probe.run(torch.zeros(8, 3))
    >>> [record.shape for record in probe.records]
    [(8, 2)]

    `brief` leaves the records without what a trial has no use for: units of samples and outputs.
    `norms` are the layers to watch; by default those whose class is known.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward | None = None,
        axis: int = 0,
        *,
        brief: bool = False,
        norms: list[Normalizer] | None = None,
    ) -> None:
        self.model, self.forward, self.axis, self.brief = model, forward, axis, brief
        self.norms = normalizers(model) if norms is None else norms
        self.records = [Record(norm, brief=brief) for norm in self.norms]
        self._order = itertools.count()
        self._calls = [0] * len(self.norms)
        self._hooks: list[Any] = []
        self._samples, self._again = 0, False
        self._functions = self._watcher()

    def __enter__(self) -> Probe:
        for index, norm in enumerate(self.norms):
            if norm.line:
                continue
            before, module = self._before(index), norm.module
            self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            if not self.brief:
                after = self._after(index)
                self._hooks.append(module.register_forward_hook(after, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def run(self, batch: Batch) -> Any:
        """Call the model in eval mode, and return what it returns."""
        with evaluating(self.model):
            return self.run_as_it_is(batch)

    def run_as_it_is(self, batch: Batch, *, again: bool = False) -> Any:
        """Call the model in the modes that its modules are in; `again` on the batch before."""
        self._calls = [0] * len(self.norms)
        self._samples, self._again = samples_of(batch, self.axis), again
        with self._functions:
            return call(self.model, batch, self.forward)

    def _watcher(self) -> AbstractContextManager[object]:
        """Takes the inputs of functions that normalize, if there are any among the `norms`."""
        places = {norm.name: index for index, norm in enumerate(self.norms) if norm.line}
        if not places:
            return nullcontext()

        def see(call: FunctionalCall) -> None:
            if call.name in places and _measurable(call.x):
                self._see(places[call.name], call.x, None)

        return watching(self.model, see) or nullcontext()

    def run_to(self, batch: Batch, layer: str) -> None:
        """Call the model in eval mode until that layer was called once, and no further."""

        def stop(*_: Any) -> None:
            raise _ReachedError

        with evaluating(self.model), suppress(_ReachedError):
            hook = self.model.get_submodule(layer).register_forward_pre_hook(stop)
            try:
                self.run_as_it_is(batch)
            finally:
                hook.remove()

    def in_order(self) -> list[Record]:
        """The records of the layers that were reached, in the order of the forward pass."""
        return sorted((r for r in self.records if r.forwards), key=lambda record: record.order)

    def _before(self, index: int) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = input_of(args, kwargs)
            if _measurable(x):
                self._see(index, x, mask_of(layer, args, kwargs))

        return hook

    def _see(self, index: int, x: Tensor, mask: Tensor | None) -> None:
        self.records[index].see(
            x,
            self._calls[index],
            next(self._order),
            mask,
            samples=self._samples,
            axis=self.axis,
            again=self._again,
        )
        self._calls[index] += 1

    def _after(self, index: int) -> Any:
        def hook(layer: nn.Module, args: Any, kwargs: dict[str, Any], y: Any) -> None:
            if _measurable(y):
                self.records[index].see_output(y, mask_of(layer, args, kwargs))

        return hook


class _ReachedError(BaseException):
    """Ends a forward pass; no error, so that nothing on its way takes it for one."""


def _measurable(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 0
