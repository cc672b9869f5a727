"""Load what a command line names: a model and its weights, batches, functions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anynorm import lookup
from anynorm.errors import AnynormError, type_of
from anynorm.report.text import visible
from anynorm.surgery.batches import Batch

__all__ = ["batches_from", "function_from", "model_from"]

_BATCH = 64


def model_from(
    name: str,
    weights: str | None = None,
    *,
    key: str | None = None,
    unpacked: int | None = None,
    plan: str | None = None,
    finite: bool = True,
    manifest: bool = True,
) -> nn.Module:
    """Return the model of ``package.module:factory``, with the weights from a file.

    `key` names the entry of the weights in a checkpoint; `unpacked` is the most bytes to which a
    compressed one may unpack.  If the weights were pruned by a `plan`, the model is cut by it
    first. Raises `AnynormError` for a factory that needs arguments, raises an error or returns
    something else, and for weights that cannot be read, do not fit, are not `finite`, or belong to
    normalizers that compute something else by the file's `manifest`.

    >>> model_from("torch.nn:Identity")
    Identity()
    """
    _check_path(name, "model", "factory")
    model = lookup.called(name, "model")
    if not isinstance(model, nn.Module):
        raise AnynormError(
            f"model {name!r} returned {type_of(model)}; the factory must return a torch.nn.Module."
        )
    if plan is not None:
        from anynorm.surgery.prune import Plan

        model = Plan.read(plan).apply(model, inplace=True)
    if weights is not None:
        from anynorm.surgery.weights import load_into

        # Always print warnings, such as those about other entries, whatever Python's filters are.
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load_into(model, weights, finite=finite, key=key, unpacked=unpacked, manifest=manifest)
        for one in said:
            print(f"anynorm: {visible(str(one.message))}", file=sys.stderr)
    return model


def batches_from(name: str) -> Iterable[Batch]:
    """Return an iterable of batches that can be used several times.

    The data of a study give the batches of their training set.  If a function returns two data
    loaders, the first is used.  If it returns an iterator, as a generator function does, it is
    called again for each pass.

    >>> len(batches_from("digits")), batches_from("digits")[0][0].shape
    (21, torch.Size([64, 1, 8, 8]))
    """
    if not lookup.is_path(name):
        return _training_batches(name)
    found = lookup.called(name, "data")
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], DataLoader):
        found = found[0]
    if _is_two_sets(found):
        return _training_batches(name)
    return _Anew(name, found) if isinstance(found, Iterator) else _iterable(found, name)


def _is_two_sets(found: Any) -> bool:
    """Whether these are a training and a held-out set; a list of two pairs is two batches."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        return False
    batches = isinstance(found, list) and isinstance(found[0], (tuple, list))
    return not batches and all(map(_is_set, found))


def _is_set(part: Any) -> bool:
    """Whether this is a set for a study: a dataset, or a pair of arrays."""
    if isinstance(part, (tuple, list)):
        return len(part) == 2 and all(hasattr(item, "shape") for item in part)
    has_samples = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    return has_samples and not isinstance(part, (Tensor, Mapping, str))


def _training_batches(name: str) -> list[Batch]:
    """Pairs (inputs, targets), without a last batch of one sample, which has no variance."""
    from anynorm.study.data import load

    data = load(name)
    both = (torch.split(part, _BATCH) for part in (data.train_x, data.train_y))
    batches = list(zip(*both, strict=True))
    return batches[:-1] if len(batches) > 1 and len(batches[-1][0]) == 1 else batches


def _iterable(found: Any, name: str) -> Iterable[Batch]:
    # These are iterable, but not batch by batch.
    if isinstance(found, (Tensor, Mapping, str)) or not isinstance(found, Iterable):
        raise AnynormError(
            f"data {name!r} returned {type_of(found)}; return an iterable of batches, such "
            "as a DataLoader. Put a single batch into a list: [batch]."
        )
    return found


class _Anew:
    """Calls a function for each pass."""

    def __init__(self, name: str, first: Iterator[Batch]) -> None:
        self._name, self._unused, self._last = name, [first], first

    def __iter__(self) -> Iterator[Batch]:
        if self._unused:
            return self._unused.pop()
        found: Iterator[Batch] = lookup.called(self._name, "data")
        if found is self._last:
            raise AnynormError(
                f"data {self._name!r} returns the same iterator each time, which is now empty; "
                "return a list or a DataLoader, or make a new iterator inside the function."
            )
        self._last = found
        return found


def function_from(name: str | None, kind: str) -> Callable[..., Any] | None:
    """Return the function ``package.module:function``; None for None."""
    if name is not None:
        _check_path(name, kind, "function")
    return None if name is None else lookup.resolve(name, kind)


def _check_path(name: str, kind: str, noun: str) -> None:
    if not lookup.is_path(name):
        raise AnynormError(f"{kind} {name!r}: write package.module:{noun}.")
