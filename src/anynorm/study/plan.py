"""Which cells a study runs: a star of comparisons around a base cell, or the whole product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell, parse_norm
from anynorm.study.experiments import Experiments, resized

__all__ = ["StudyPlan", "unique"]


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The values to compare, and the base values that hold where nothing else is said.

    `norms` are names with options, such as ``"group:groups=4"``; `batch_norms` are those of them
    that are compared over batch sizes, and `variants` those that are compared at the base and the
    learning rates near it alone. `experiments` says what is run beside the comparisons, and
    `noise` whether the noisy control is among it.
    """

    subject: str
    data: str
    norms: tuple[str, ...]
    lr: float
    steps: int
    batch: int
    lrs: tuple[float, ...] = ()
    inits: tuple[float, ...] = ()
    batches: tuple[int, ...] = ()
    batch_norms: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    placements: tuple[str, ...] = ("before",)
    seeds: int = 3
    first_seed: int = 0
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    warmup: int = 0
    noise: bool = True
    probes: bool = True
    experiments: Experiments = field(default_factory=Experiments)
    source: str = ""

    def __post_init__(self) -> None:
        if self.first_seed < 0:
            raise AnynormError(f"first_seed is {self.first_seed}; it must be 0 or more.")
        if self.seeds < 1:
            raise AnynormError(f"seeds is {self.seeds}; it counts the runs of a cell, 1 or more.")

    def star(self) -> list[Cell]:
        """The base comparison, then one factor at a time; cells that coincide appear once.

        The base cells carry the probes. Batch sizes are compared with the learning rate in
        proportion to the batch, down from the base cell's, at equal epochs and at equal steps; at
        equal epochs a warm-up lasts for as many samples. The experiments come last.
        """
        others = [norm for norm in self.norms if norm not in self.variants]
        # Without a normalizer there is nothing whose place could change.
        placed = [norm for norm in others if norm != "none"]
        return unique(
            [
                *self._base(),
                *self._vary("lr", self.lrs, others),
                *self._vary("lr", self._near_rates(), self.variants),
                *self._vary("init", self.inits, others),
                *self._vary("placement", self.placements, placed),
                *self._batch_sizes(),
                *self._experiments(),
            ]
        )

    def product(self) -> list[Cell]:
        """The base comparison, every combination of all the values, and the experiments."""
        grid = product(
            self.lrs or (self.lr,),
            self.inits or (1.0,),
            self.placements,
            self.batches or (self.batch,),
        )
        varied = [
            resized(replace(cell, lr=lr, init=init, placement=placement), batch, "epochs")
            for lr, init, placement, batch in grid
            for cell in self._cells(self.norms)
        ]
        return unique([*self._base(), *varied, *self._batch_sizes(), *self._experiments()])

    def _base(self) -> Iterator[Cell]:
        for cell in self._cells(self.norms):
            yield replace(cell, probes=self.probes)

    def _experiments(self) -> Iterator[Cell]:
        cells = self._cells(self.norms)
        return self.experiments.cells(cells, noise=self.noise, probes=self.probes)

    def _vary(
        self, name: str, values: Iterable[float | str], norms: Sequence[str]
    ) -> Iterator[Cell]:
        for value in values:
            for cell in self._cells(norms):
                yield Cell(**{**vars(cell), name: value})

    def _near_rates(self) -> list[float]:
        """The learning rate of the sweep below the base value, and the two above it.

        Two, since variants of batch norm train well at higher rates than a net without one.
        """
        lower = [lr for lr in self.lrs if lr < self.lr]
        higher = [lr for lr in self.lrs if lr > self.lr]
        return sorted(lower)[-1:] + sorted(higher)[:2]

    def _batch_sizes(self) -> Iterator[Cell]:
        for batch, budget in product(self.batches, self.experiments.budgets):
            for cell in self._cells(self.batch_norms):
                yield resized(cell, batch, budget)

    def _cells(self, norms: Iterable[str]) -> list[Cell]:
        return [self._cell(norm, seed) for norm in norms for seed in self._seeds()]

    def _seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    def _cell(self, norm: str, seed: int) -> Cell:
        name, options = parse_norm(norm)
        return Cell(
            subject=self.subject,
            data=self.data,
            norm=name,
            norm_options=options,
            lr=self.lr,
            batch=self.batch,
            placement=self.placements[0],
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            steps=self.steps,
            seed=seed,
            source=self.source,
        )


def unique(cells: Iterable[Cell]) -> list[Cell]:
    """Each run once, in the order of first appearance; of two that coincide, the probed one.

    >>> cell = Cell(subject="cnn", data="digits", norm="batch", lr=0.1, steps=10, seed=0)
    >>> [kept.probes for kept in unique([cell, replace(cell, probes=True)])]
    [True]
    """
    kept: dict[Cell, Cell] = {}
    for cell in cells:
        plain = replace(cell, probes=False)
        if plain not in kept or cell.probes:
            kept[plain] = cell
    return list(kept.values())
