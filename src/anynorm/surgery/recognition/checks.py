"""What a module must be and do so that it can be one of the specifications."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm.surgery.recognition.copies import UnusableError, called, gradients

__all__ = [
    "OTHER_PARAMETERS",
    "has_vectors",
    "is_vector",
    "need_all_parameters",
    "need_possible",
    "need_repeatable",
]

OTHER_PARAMETERS = "it has other parameters than one vector γ and one vector β"
_MOST_PARAMETERS = 2


def need_possible(module: nn.Module, x: Tensor) -> None:
    """Raise `UnusableError` for what cannot be one of the specifications, without calling it."""
    parameters = list(module.parameters())
    if any(map(is_lazy, [*parameters, *module.buffers()])):
        raise UnusableError("it has no shape before the model is called once")
    if 0 in x.shape:
        raise UnusableError(f"an input of shape {tuple(x.shape)} has no values")
    if not has_vectors(module) and not all(_multiplies(one, x) for one in parameters):
        raise UnusableError(OTHER_PARAMETERS)
    stored = module.state_dict().keys()
    if any(name in stored and one.numel() > 1 for name, one in module.named_buffers()):
        raise UnusableError("it keeps state in buffers")
    if x.dim() < 2:
        raise UnusableError(f"an input of {x.dim()} axes has no axis beside that of the channels")


def need_repeatable(wide: nn.Module, probe: Tensor) -> None:
    """Raise `UnusableError` for a module that computes something else from call to call."""
    before = [buffer.clone() for buffer in wide.buffers()]
    first, *others = (called(wide.train(mode), probe) for mode in (True, True, False))
    if not all(torch.equal(first, other) for other in others):
        raise UnusableError("two calls on one input differ, or train mode differs from eval mode")
    if not all(map(torch.equal, before, wide.buffers())):
        raise UnusableError("a call changes its buffers")


def need_all_parameters(wide: nn.Module, probe: Tensor) -> None:
    """Raise `UnusableError` for a parameter that is neither γ nor β, since nothing uses it."""
    parameters = dict(wide.named_parameters())
    found = gradients(called(wide, probe), list(parameters.values()))
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is None:
            raise UnusableError(f"its parameter '{name}' plays no part", normalizes=True)


def has_vectors(module: nn.Module) -> bool:
    """Whether the parameters may be a vector γ and a vector β."""
    parameters = list(module.parameters())
    return len(parameters) <= _MOST_PARAMETERS and all(map(is_vector, parameters))


def _multiplies(parameter: Tensor, x: Tensor) -> bool:
    """Whether a parameter may be γ over several axes: times `x` it has the shape of `x`."""
    sizes = zip(reversed(parameter.shape), reversed(x.shape), strict=False)
    return parameter.dim() <= x.dim() and all(own in (1, size) for own, size in sizes)


def is_vector(parameter: Tensor) -> bool:
    """Whether at most one axis has a size above 1, as in γ and β of one value for each channel.

    >>> is_vector(torch.ones(1, 8, 1, 1)), is_vector(torch.ones(2, 8))
    (True, False)
    """
    return sum(size > 1 for size in parameter.shape) <= 1
