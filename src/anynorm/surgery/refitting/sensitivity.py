"""How much the outputs of a model change with those of its layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist

from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, call, each, tensors_of
from anynorm.surgery.modes import evaluating, without_fast_path
from anynorm.surgery.refitting.dense import DenseCall, DenseCalls, Layer
from anynorm.surgery.streaming_stats import double, summed

__all__ = ["sensitivities"]


def sensitivities(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Forward | None,
    layers: Collection[str],
    substitutes: Mapping[str, Layer],
    group: dist.ProcessGroup | None,
) -> dict[str, Tensor]:
    """The square by which the outputs change with each output of the layers, (groups, outputs).

    It is summed over samples, to first order, for a change of a layer's output at one position.
    The gradient of the outputs' product with random numbers of mean 0 and variance 1 has as its
    square, on average, the sum over all outputs.  Each output tensor counts by its own size.

    Raises `AnynormError` if the outputs have no gradients.
    """
    found: dict[str, Tensor] = {}
    seen: list[tuple[str, DenseCall, Tensor]] = []

    def handle(name: str, dense: DenseCall) -> Tensor:
        y = dense.run(*substitutes.get(name, dense.layer))
        y = y if y.requires_grad else y.detach().requires_grad_()
        seen.append((name, dense, y))
        return y.clone()  # what follows may write to it

    weights = {name: model.get_parameter(name) for name in layers}
    generator = torch.Generator().manual_seed(0)
    with evaluating(model), without_fast_path(), DenseCalls(weights, handle):
        for batch in each(batches):
            seen.clear()
            with torch.enable_grad():
                outputs = tensors_of(call(model, batch, forward))
                product = _product(outputs, generator)
            for name, value in _squares(product, seen):
                found[name] = found[name] + value if name in found else value
    return {name: summed(value, group) for name, value in found.items()}


def _product(outputs: list[Tensor], generator: torch.Generator) -> Tensor:
    """The sum of the outputs with random factors, each output tensor over its root mean square."""
    product = outputs[0].new_zeros(())
    for y in outputs:
        if y.requires_grad:
            factors = torch.randn(y.shape, generator=generator).to(y)
            size = y.detach().square().mean().sqrt().clamp_min(torch.finfo(y.dtype).tiny)
            product = product + (y * factors / size).sum()
    return product


def _squares(
    product: Tensor, seen: list[tuple[str, DenseCall, Tensor]]
) -> Iterable[tuple[str, Tensor]]:
    """The square of the gradient for each output of each layer."""
    if not product.requires_grad:
        raise AnynormError(
            "the outputs of the model have no gradients, from which refit tells which channels "
            "matter. Give a model, or forward=, that does not detach them or run without gradients."
        )
    gradients = torch.autograd.grad(product, [y for *_, y in seen], allow_unused=True)
    for (name, dense, _), gradient in zip(seen, gradients, strict=True):
        if gradient is not None:
            yield name, _by_output(dense, double(gradient))


def _by_output(dense: DenseCall, gradient: Tensor) -> Tensor:
    """The square of the gradient for each output, per position and summed over samples.

    With n positions, an error that is the same at all of them counts n times as much as one that is
    independent at each.  Real ones lie between: √n kept more accuracy than either (1 or n) when it
    chose the channels of small convolutional networks.
    """
    rows = gradient.movedim(dense.channel_axis, -1)
    samples = rows.reshape(len(rows), -1, rows.shape[-1]) if rows.dim() > 1 else rows[None, None]
    squares = samples.mean(1).square().sum(0) * math.sqrt(samples.shape[1])
    return squares.reshape(dense.groups, -1)
