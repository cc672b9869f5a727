"""The runs beside the star of comparisons that answer one question each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell

__all__ = ["BUDGETS", "PAIR", "Experiments", "resized"]

BUDGETS = ("epochs", "steps")
# The two normalizers that an experiment compares.
PAIR = ("none", "batch")


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """Which experiments a study makes, around the base cells of no and of batch normalization.

    Args:
        control: how many times the base learning rate the noisy control trains with. At the base
            rate both models often train well, and then noise has no benefit to take away.
        budgets: what is held when the batch size changes, one or both of `BUDGETS`.
        probed_inits: factors of the initial weights at which both models are probed too.
        fixed_affine: whether batch norm is also trained with γ = 1 and β = 0 fixed.
    """

    control: float = 10.0
    budgets: tuple[str, ...] = BUDGETS
    probed_inits: tuple[float, ...] = ()
    fixed_affine: bool = False

    def __post_init__(self) -> None:
        for budget in self.budgets:
            if budget not in BUDGETS:
                raise AnynormError(f"budget {budget!r} is unknown; choose from {BUDGETS}.")

    def without_runs(self) -> Experiments:
        """The same without the runs beside the comparisons."""
        return replace(self, probed_inits=(), fixed_affine=False)

    def cells(self, base: Iterable[Cell], *, noise: bool, probes: bool) -> Iterator[Cell]:
        """The cells of all experiments but the batch sizes, given the `base` cells."""
        pair = [cell for cell in base if cell.norm in PAIR]
        both = {cell.norm for cell in pair} == set(PAIR)
        if noise and both:
            yield from _control_arms(pair, self.control, probes)
        if both:
            for init, cell in product(self.probed_inits, pair):
                yield replace(cell, init=init, probes=probes)
        if self.fixed_affine:
            yield from (replace(cell, affine=False) for cell in pair if cell.norm == "batch")


def _control_arms(pair: Iterable[Cell], times: float, probes: bool) -> Iterator[Cell]:
    """With and without normalization, each with and without noise, at a large learning rate."""
    for cell, noise in product(pair, (False, True)):
        yield replace(cell, lr=cell.lr * times, noise=noise, probes=probes)


def resized(cell: Cell, batch: int, budget: str) -> Cell:
    """`cell` with another batch size, a learning rate in proportion, and an equal budget.

    At equal epochs the warm-up takes as many samples, at equal steps as many steps.

    >>> cell = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, batch=60, steps=10, seed=0)
    >>> [(one.lr, one.steps) for one in (resized(cell, 30, budget) for budget in BUDGETS)]
    [(0.05, 20), (0.05, 10)]
    """
    ratio = batch / cell.batch
    resized = replace(cell, batch=batch, lr=cell.lr * ratio)
    if budget == "steps":
        return resized
    steps, warmup = max(1, round(cell.steps / ratio)), round(cell.warmup / ratio)
    return replace(resized, steps=steps, warmup=warmup)
