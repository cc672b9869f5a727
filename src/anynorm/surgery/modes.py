"""Context managers: eval mode, no gradients, no synchronisation, and no compiled graphs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import nn

from anynorm.nn.sync_module import Sharing

__all__ = ["alone", "evaluating", "uncompiled", "without_gradients"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into eval mode without gradients; restore each mode at the end.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(model):
    ...     [module.training for module in model]
    [False, False]
    >>> [module.training for module in model]
    [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Let torch's attention and transformer layers run one operator after the other, also in eval.

    Their fast path is one operator, in which the layers inside are not seen.

    >>> with without_fast_path():
    ...     torch.backends.mha.get_fastpath_enabled()
    False
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def without_gradients(*models: nn.Module | None) -> AbstractContextManager[object]:
    """No gradients in the block; inference mode if the models have tensors that need it.

    >>> with without_gradients(nn.Linear(2, 2)):
    ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    (False, False)
    """
    tensors = (
        tensor
        for model in models
        if model is not None
        for tensor in chain(model.parameters(), model.buffers())
    )
    inferred = any(tensor.is_inference() for tensor in tensors)
    return torch.inference_mode() if inferred else torch.no_grad()


def uncompiled() -> AbstractContextManager[object]:
    """Run what `torch.compile` made as the Python code that it was, in which hooks are called.

    >>> with uncompiled():
    ...     nn.ReLU()(torch.tensor([-1.0]))
    tensor([0.])
    """
    # Without the compiler nothing was compiled; importing it takes seconds.
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


@contextmanager
def alone(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let synchronised layers use only the statistics of this process.

    >>> from anynorm import SyncBatchNorm
    >>> norm = SyncBatchNorm(3)
    >>> with alone([norm]):
    ...     norm.sync
    >>> norm.sync
    True
    """
    given = [
        (module, module.sync)
        for module in modules
        if isinstance(module, Sharing) and module.sync is not None
    ]
    try:
        for module, _ in given:
            module.sync = None
        yield
    finally:
        for module, sync in given:
            module.sync = sync
