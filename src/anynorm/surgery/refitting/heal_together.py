"""Fit the layers of a changed model in one pass: all batches wait in front of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from anynorm.surgery.batches import Batch, Forward, call
from anynorm.surgery.call_args import input_of
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.recalibrating.lockstep import outside, wait
from anynorm.surgery.refitting.dense import DenseCall, DenseCalls
from anynorm.surgery.refitting.layer_fits import DenseFit, LayerFit, NormFit
from anynorm.surgery.refitting.pairs import Job, Reached, all_through, may_wait
from anynorm.surgery.streaming_stats import in_group

__all__ = ["heal_together", "heals_together", "inputs_seen", "products_seen"]

See = Callable[[LayerFit, Any], None]
_job: ContextVar[tuple[int, bool]] = ContextVar("_job")  # the batch that runs, in which model


def heals_together(
    model: nn.Module,
    fits: Sequence[LayerFit],
    batches: Iterable[Batch],
    forward: Forward | None,
) -> bool:
    """Whether all batches may wait in front of each layer.

    Not where a layer is called several times or needs statistics first; nor with several processes,
    since each may heal a model of its own.
    """
    if in_group() or any(fit.calls > 1 or fit.starts_anew for fit in fits):
        return False
    return may_wait(model, {fit.owner for fit in fits}, batches, forward, None)


def heal_together(
    model: nn.Module,
    before: nn.Module,
    fits: Sequence[LayerFit],
    batches: Iterable[Batch],
    forward: Forward | None,
) -> None:
    """Fit layers, each of which is called once, in order of execution."""
    fits = [fit for fit in fits if fit.possible]
    places = {fit: place for place, fit in enumerate(fits)}
    met = set[tuple[int, tuple[int, bool]]]()
    waiting: list[dict[tuple[int, bool], Any]] = [{} for _ in fits]

    def see(fit: LayerFit, seen: Any) -> None:
        place, job = places[fit], _job.get()
        if (place, job) in met:
            return  # called more often than on the example
        met.add((place, job))
        waiting[place][job] = seen
        with outside():
            wait(place)
        if place == len(fits) - 1:
            raise Reached

    def run(job: Job) -> None:
        number, changed, batch = job
        _job.set((number, changed))
        one = model if changed else before
        with products_seen(one, fits, see), suppress(Reached):
            call(one, batch, forward)

    def release(place: int) -> None:
        fit, here = fits[place], waiting[place]
        if not fit.done:  # or a batch comes late, as it meets the layers in another order
            both = {number for number, changed in here if changed and (number, False) in here}
            for number in sorted(both):
                fit.add(here[number, True], here[number, False])
            fit.solve()
        here.clear()

    watched = inputs_seen(model, fits, see), inputs_seen(before, fits, see)
    with evaluating(model), evaluating(before), without_fast_path(), watched[0], watched[1]:
        all_through(run, release, batches, None)


@contextmanager
def inputs_seen(model: nn.Module, fits: Sequence[LayerFit], see: See) -> Iterator[None]:
    """Let `see` have the inputs of the normalizers among `fits`."""

    def hook(fit: NormFit) -> Callable[..., None]:
        return lambda _, args, kwargs: see(fit, input_of(args, kwargs))

    handles = [
        model.get_submodule(fit.name).register_forward_pre_hook(hook(fit), with_kwargs=True)
        for fit in fits
        if isinstance(fit, NormFit)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def products_seen(model: nn.Module, fits: Sequence[LayerFit], see: See) -> DenseCalls:
    """Let `see` have the calls of the linear layers and convolutions among `fits`."""
    dense = {fit.name: fit for fit in fits if isinstance(fit, DenseFit)}

    def handle(name: str, product: DenseCall) -> Tensor:
        see(dense[name], product)
        return product.run(*product.layer)

    return DenseCalls({name: model.get_parameter(name) for name in dense}, handle)
