"""Train the model of one cell, and make its record."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.study import evaluate
from anynorm.study.build import build
from anynorm.study.cell import SCHEMA, Cell
from anynorm.study.data import Data, load, seeded
from anynorm.study.optimizers import make_optimizer, make_warmup
from anynorm.study.probes import Recorder
from anynorm.study.probes.cost import bytes_for_backward
from anynorm.study.store import Record
from anynorm.study.subjects import SUBJECTS

__all__ = ["batches", "run"]

# A mini-batch loss above this counts as diverged (Bjorck et al. 2018, arXiv:1806.02375).
_DIVERGED = 1e3
_CURVE_POINTS = 200
_EVALUATIONS = 6
# The approximate number of held-out samples in the fixed batch on which units are measured.
_PROBED = 200
# The most training samples on which channels are measured after training.
_MEASURED = 256


def run(cell: Cell) -> Record:
    """Train the model of `cell` and return its record (see the store).

    Equal cells give equal records, except for ``cost``. A run diverges if a mini-batch loss is not
    finite or above 1e3; it then stops and keeps its measurements. The caller's random state and
    number of threads do not change.
    """
    data = load(cell.data)
    with _one_thread(), seeded(cell.seed):
        training = _Run(cell, data, build(cell, data))
        training.train()
        return training.record()


def batches(data: Data, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mini-batches forever: each epoch in a new seeded order, without its incomplete rest."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, len(data.train_x))
    while True:
        order = torch.randperm(len(data.train_x), generator=generator)
        for rows in torch.split(order, size):
            if len(rows) == size:
                yield data.train_x[rows], data.train_y[rows]


@dataclass
class _Run:
    """A training run in progress, and its measurements so far."""

    cell: Cell
    data: Data
    model: nn.Module
    diverged_at: int | None = None
    curve: dict[str, list[Any]] = field(default_factory=lambda: {"step": [], "train_loss": []})
    evaluations: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in ("step", *evaluate.IN_EVAL_MODE)}
    )
    seconds: list[float] = field(default_factory=list)
    items: evaluate.Items = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.cell, self.model)
        self.warmup = make_warmup(self.cell, self.optimizer)
        first, _ = next(batches(self.data, self.cell.batch, self.cell.seed))
        self.bytes = bytes_for_backward(self.model, first)
        self.recorder = self._recorder() if self.cell.probes else None

    def train(self) -> None:
        """Take all steps, or stop when the run diverges."""
        self.model.train()
        stream = batches(self.data, self.cell.batch, self.cell.seed)
        stride = -(-self.cell.steps // _CURVE_POINTS)
        for step, (x, y) in zip(range(self.cell.steps), stream, strict=False):
            if self.recorder:
                self.recorder.before_step(step, x, y)
            loss = self._step(x, y)
            if not abs(loss) <= _DIVERGED:
                self.diverged_at = step
                break
            if step % stride == 0:
                self._log(step, loss)
            if self._due(step + 1):
                self._evaluate(step + 1)
        measured = not self.cell.noise and not self._is_variant
        if self.recorder and self.diverged_at is None and measured:
            rows = evaluate.spread(len(self.data.train_x), _MEASURED)
            self.recorder.after_training(self.data.train_x[rows], self.data.train_y[rows])

    def record(self) -> Record:
        """Return the record with all measurements."""
        final = self._final()
        return {
            "schema": SCHEMA,
            "key": self.cell.key,
            "cell": self.cell.to_dict(),
            "task": self.data.task,
            "chance": evaluate.chance(self.data),
            "status": "ok" if self.diverged_at is None else "diverged",
            "diverged_at": self.diverged_at,
            "curve": self.curve,
            "evaluations": self.evaluations,
            "final": final,
            "items": self.items,
            "probes": self.recorder.result() if self.recorder else None,
            "cost": self._cost(),
            "environment": _environment(),
        }

    def _recorder(self) -> Recorder:
        # Use full mini-batches, since a normalizer may split a batch into parts of a fixed size.
        most, batch = min(_PROBED, len(self.data.test_x)), self.cell.batch
        x = self.data.test_x[: most // batch * batch or batch]
        return Recorder(
            *(self.model, self.data.loss, self.optimizer, x, self.cell.steps),
            dense=False if self._is_variant else None,
        )

    @property
    def _is_variant(self) -> bool:
        """Whether the built-in study lists the normalizer as a variant, with fewer probes."""
        subject = SUBJECTS.get(self.cell.subject)
        return subject is not None and self.cell.norm in subject.settings.variants

    def _step(self, x: Tensor, y: Tensor) -> float:
        start = time.process_time()
        self.optimizer.zero_grad()
        loss = self.data.loss(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.cell.warmup:
            self.warmup.step()
        self.seconds.append(time.process_time() - start)
        return loss.item()

    def _log(self, step: int, loss: float) -> None:
        self.curve["step"].append(step)
        self.curve["train_loss"].append(loss)

    def _due(self, step: int) -> bool:
        """Whether an evaluation is due; they are evenly spaced, and include the last step."""
        return (step * _EVALUATIONS) // self.cell.steps > (
            (step - 1) * _EVALUATIONS
        ) // self.cell.steps

    def _evaluate(self, step: int) -> None:
        for name, value in {"step": step, **evaluate.scores(self.model, self.data)}.items():
            self.evaluations[name].append(value)

    def _final(self) -> evaluate.Scores:
        if self.diverged_at is not None:
            return evaluate.NOTHING
        last = {name: self.evaluations[name][-1] for name in evaluate.IN_EVAL_MODE}
        if not math.isfinite(last["train_loss"]):
            self.diverged_at = self.cell.steps
            return evaluate.NOTHING
        others, self.items = evaluate.in_other_modes(self.model, self.data, self.cell.batch)
        return last | others

    def _cost(self) -> dict[str, float]:
        return {
            "seconds_per_step": median(self.seconds),
            "bytes_for_backward": self.bytes,
            "train_seconds": sum(self.seconds),
            "probe_seconds": self.recorder.seconds if self.recorder else 0.0,
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: more threads would add in another order and change the record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _environment() -> dict[str, Any]:
    try:
        own = version("anynorm")
    except PackageNotFoundError:
        own = "source"
    return {
        "anynorm": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
