"""Digits for the classifiers of the zoo: batches that they can be called with, and training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.study.data import load, seeded
from benchmarks.zoo_parts import logits

__all__ = ["digits_batches", "digits_labels", "train"]

SIZE = 32
BATCH = 64
RATE = 6e-3
WARM_UP = 0.15  # of the training; transformers need it


def digits_batches(size: int = 64) -> list[dict[str, Tensor]]:
    """The 1,297 training images (N, 3, 32, 32) in order; the last batch is what remains."""
    return [{"pixel_values": part} for part in torch.split(_images()[0], size)]


def digits_labels(size: int = 64) -> list[Tensor]:
    """The labels of `digits_batches`, of shape (N,) each."""
    return list(torch.split(load("digits").train_y, size))


@lru_cache(maxsize=1)
def _images() -> tuple[Tensor, Tensor]:
    """Training and held-out images, enlarged from (N, 1, 8, 8) and grey in three channels."""
    data = load("digits")
    train, test = (
        F.interpolate(x, size=(SIZE, SIZE), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
        for x in (data.train_x, data.test_x)
    )
    return train, test


def train(model: nn.Module, *, epochs: int, seed: int = 0) -> float:
    """Train a classifier on digits with AdamW; returns its accuracy on the 500 held-out images.

    The learning rate rises and falls along a cosine; each epoch leaves out the 17 images that do
    not fill a batch.  The model is left in eval mode.
    """
    images, labels = _images()[0], load("digits").train_y
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )
    with one_thread(), seeded(seed):
        model.train()
        for chosen in _orders(len(images), epochs):
            optimizer.zero_grad()
            scores = logits(model(pixel_values=images[chosen]))
            F.cross_entropy(scores, labels[chosen]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return accuracy(model)


def _orders(count: int, epochs: int) -> Iterator[Tensor]:
    """The indices of each full batch, shuffled anew in each epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH)


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """The share of the held-out images that the model, put in eval mode, classifies rightly."""
    model.eval()
    parts = [logits(model(pixel_values=x)).argmax(1) for x in torch.split(_images()[1], BATCH)]
    return float((torch.cat(parts) == load("digits").test_y).float().mean())


@contextmanager
def one_thread() -> Iterator[None]:
    """The same sums in the same order on every machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
