"""The common options of commands on a model, and the objects that they name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from anynorm.surgery import Manifest
    from anynorm.surgery.batches import Batch, Forward

__all__ = ["NAMES", "Subject", "add_options", "opened"]

NAMES = (
    "model",
    "weights",
    "weights_key",
    "unpacked",
    "pruned_by",
    "allow_non_finite",
    "ignore_manifest",
    "data",
    "forward",
)


@dataclass(frozen=True)
class Subject:
    """A model, its batches, how it is called on them; its shapes and normalizers as it was made."""

    model: nn.Module
    batches: Any  # an iterable of batches; None without data
    forward: Forward | None
    shapes: Mapping[str, tuple[int, ...]]
    manifest: Manifest

    @cached_property
    def example(self) -> Batch:
        """The first batch; None without data."""
        from anynorm.surgery.batches import each

        return None if self.batches is None else next(iter(each(self.batches)))


def add_options(parser: argparse.ArgumentParser, *, data: bool) -> None:
    """Add the options for a model and its batches; `data` says whether batches are required."""
    add = parser.add_argument
    weights = "its weights: safetensors, or a state dict of torch.save (as the factory makes it)"
    batches = "digits, gaussian, torchvision:NAME, or package.module:function, which returns "
    batches += f"batches, or a training and a held-out set {'' if data else '(none)'}"
    finite = "load weights with NaN or infinite values (no; the doctor does)"
    settings = "load weights whose normalizers computed something else when they were written (no)"
    forward = "calls the model on a batch: (model, batch) (on the batch, or its first item)"
    add("--model", required=True, metavar="package.module:factory", help="makes the model")
    add("--weights", metavar="FILE", help=weights)
    key = "which state dict of a checkpoint to load, such as state_dict_ema (the usual one)"
    add("--weights-key", metavar="NAME", help=key)
    most = "the most that a compressed checkpoint may unpack to (10 times its size, or 256 KiB)"
    add("--unpacked", type=int, metavar="BYTES", help=most)
    add("--pruned-by", metavar="PLAN", help="the plan by which the weights were pruned (none)")
    add("--allow-non-finite", action="store_true", help=finite)
    add("--ignore-manifest", action="store_true", help=settings)
    add("--data", required=data, help=batches.strip())
    add("--forward", metavar="package.module:function", help=forward)


@contextmanager
def opened(
    *,
    model: str,
    weights: str | None,
    weights_key: str | None,
    unpacked: int | None,
    pruned_by: str | None,
    allow_non_finite: bool,
    ignore_manifest: bool,
    data: str | None,
    forward: str | None,
) -> Iterator[Subject]:
    """Load the objects that the options name; random numbers are seeded in the block."""
    from anynorm.cli.sources import batches_from, function_from, model_from
    from anynorm.study.data import seeded
    from anynorm.surgery.weights import manifest, shapes

    with seeded(0):
        made = model_from(
            model,
            weights,
            key=weights_key,
            unpacked=unpacked,
            plan=pruned_by,
            finite=not allow_non_finite,
            manifest=not ignore_manifest,
        )
        batches = None if data is None else batches_from(data)
        call = function_from(forward, "forward")
        yield Subject(made, batches, call, shapes(made), manifest(made))
