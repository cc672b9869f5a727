"""`anynorm.study`: which normalizer suits a model and its data, and why."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from anynorm import lookup
from anynorm.errors import AnynormError
from anynorm.report.files import check_target
from anynorm.study.build import has_attention
from anynorm.study.cell import Cell
from anynorm.study.check import check
from anynorm.study.engines import Engine, Failure, Limits, Outcome, engine, run_cells
from anynorm.study.extras import require
from anynorm.study.frame import frame, write_parquet
from anynorm.study.plan import StudyPlan, unique
from anynorm.study.progress import show_progress
from anynorm.study.remote import open_store
from anynorm.study.store import Record, Records
from anynorm.study.subjects import SUBJECTS, USER, USER_ATTENTION, Settings
from anynorm.study.within import SECONDS, within

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["Study", "study"]

# Usable learning rates of the optimizers, next to plain SGD's.
_RATES = {"sgd": 1.0, "momentum": 0.1, "adam": 0.01, "adamw": 0.01}


@dataclass(frozen=True)
class Study:
    """The result of a study: its records, and the evidence and verdict from them.

    Args:
        records: the records of the runs.
        planned: the number of runs of the whole study.
        reused: the number of runs that were already in the store.
        failures: the runs without a record, with the reasons.
        interrupted: whether the study was interrupted.
        title: the title of reports.
        command: the command that runs it again, for reports.
        margin: the largest difference that does not matter; None for the default of the task.
        looks: how often the study may have been evaluated while it grew.
        stopped: why it stopped growing; "" if it did not grow.

    Example:
        >>> result = anynorm.study("mlp-relu", norms=["none", "batch"])  # doctest: +SKIP
        >>> result.table()  # doctest: +SKIP
    """

    records: list[Record]
    planned: int
    reused: int
    failures: list[Failure]
    interrupted: bool
    title: str
    command: str
    margin: float | None = None
    looks: int = 1
    stopped: str = ""

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """Every claim with the numbers behind it, as plain values."""
        from anynorm.study.evidence import build

        return build(
            self.records,
            title=self.title,
            command=self.command,
            planned=self.planned,
            failures=[(failure.run, failure.reason) for failure in self.failures],
            margin=self.margin,
            looks=self.looks,
            stopped=self.stopped,
        )

    @property
    def verdict(self) -> dict[str, Any]:
        """What to use and why, as plain values; see `anynorm.study.verdict.decide` for the keys."""
        found: dict[str, Any] = self.evidence["studies"][0]["verdict"]
        return found

    def frame(self) -> pd.DataFrame:
        """One row for each run; see `anynorm.study.frame`."""
        return frame(self.records)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write `frame()` as a Parquet file."""
        write_parquet(self.records, path)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the report, one HTML file that opens offline."""
        from anynorm.report import html

        html.write(self.evidence, path)

    def table(self, console: Console | None = None) -> None:
        """Print the verdict and its tables on a terminal."""
        from anynorm.report import terminal
        from anynorm.report.console import console as standard

        terminal.show(self.evidence, console or standard())


def study(
    model: str | Callable[..., Any] = "mlp-relu",
    data: str | Callable[..., Any] | None = None,
    *,
    norms: Sequence[str] | None = None,
    lr: float | None = None,
    lrs: Sequence[float] | None = None,
    inits: Sequence[float] | None = None,
    batch: int | None = None,
    batches: Sequence[int] | None = None,
    placements: Sequence[str] | None = None,
    seeds: int = 3,
    first_seed: int = 0,
    steps: int | None = None,
    optimizer: str | None = None,
    weight_decay: float | None = None,
    warmup: int | None = None,
    noise: bool | None = None,
    experiments: bool = True,
    full: bool = False,
    probes: bool = True,
    refine: int = 1,
    margin: float | None = None,
    until_decided: bool = False,
    minutes: float | None = None,
    run_minutes: float | None = None,
    store: str | os.PathLike[str] = "anynorm-study",
    report: str | os.PathLike[str] | None = None,
    on: str = "local",
    workers: int | None = None,
    progress: bool = False,
    command: str = "",
) -> Study:
    """Train a model with each normalizer, measure why they differ, and say which suits it.

    Each setting is run with the same seeds for every normalizer.  Other values are compared with
    the base values one at a time, or in all combinations.  By default the subject's own settings
    are used.

    Every run writes one record to the store; runs with a record there are not repeated. Ctrl-C
    returns the study of the finished runs.

    Your own model is trained with SGD, or with AdamW and warm-up if it contains attention. If you
    choose another optimizer than the subject's own, its learning rates and weight decay are scaled
    to match.

    Args:
        model: a built-in subject or ``package.module:factory``. A factory that takes ``norm=`` gets
            a function that makes a normalizer for a number of channels; otherwise the normalization
            layers of the model it returns are replaced.
        data: 'digits', 'varied-digits', 'gaussian', 'python-text', 'torchvision:NAME' or
            ``package.module:function`` returning a training and a held-out set.
        norms: names of the catalogue, with options as in ``"group:groups=8"``; ``"rms:qk=true"``
            also normalizes queries and keys.
        lr: the base learning rate.
        lrs: the learning rates to compare.
        inits: factors of the initial weights to compare.
        batch: the base batch size.
        batches: the batch sizes to compare.
        placements: the placements to compare: 'before' and 'after' the activation, or 'pre' and
            'post' in a residual network.
        seeds: the number of seeds of each setting.
        first_seed: the first seed.
        steps: the number of steps of each run.
        optimizer: 'sgd', 'momentum' (SGD with momentum 0.9), 'adam' or 'adamw'.
        weight_decay: the weight decay, which applies to weights only.
        warmup: the number of steps in which the learning rate rises from 0.
        noise: whether the experiments include the noisy control.
        experiments: whether to make additional runs, each of which answers one question, such as
            whether γ and β are needed.
        full: whether to run all combinations of values.
        probes: whether to probe the base runs.
        refine: the number of rounds that bisect the limits of the usable learning rates.
        margin: the largest difference that does not matter, in points of accuracy (0.5) or per cent
            of a loss (2). Normalizers that are shown to differ by less are called equivalent.
        until_decided: whether to add seeds after the planned runs, for normalizers whose
            comparisons cannot tell yet: until all are decided, more seeds would not decide, or 32
            seeds are reached. The error rate is divided among these interim looks.
        minutes: as `until_decided`, but for at most this many minutes, including planned runs.
        run_minutes: the time limit of a run in minutes; a run that exceeds it is stopped and counts
            as failed. With None the limit is 20 times what the longest finished run would have
            taken for the same number of steps, but at least one minute; as long as no run has
            finished, it is six hours. `math.inf` sets no limit.
        store: the folder of the records, or a URL that fsspec knows.
        report: the HTML file of the report.
        on: where runs are executed: 'local' (processes on this machine), 'ray' (a Ray cluster on
            this machine), 'ray://host:port' or 'ray:ADDRESS' (a running cluster), 'slurm' or
            'slurm:option=value' (jobs, through submitit).
        workers: the largest number of processes, tasks or jobs at a time.
        progress: whether to show the progress.
        command: the command that runs it again, for reports.

    Returns:
        The study: records, evidence and verdict.

    Raises:
        AnynormError: Bad input, before any run; or every run failed.
        KeyboardInterrupt: Ctrl-C, before the first run was finished.

    Example:
        >>> result = anynorm.study("mlp-relu", norms=["none", "batch"])  # doctest: +SKIP
        >>> result.report("report.html")  # doctest: +SKIP
    """
    if refine < 0:
        raise AnynormError(f"refine is {refine}; it counts rounds, 0 or more.")
    for name, value in (("margin", margin), ("minutes", minutes), ("run_minutes", run_minutes)):
        if value is not None and not value > 0:
            raise AnynormError(f"{name} is {value}; it must be positive.")
    if report is not None:
        require("plotly", "the report")
    limits = Limits(None if run_minutes is None else 60 * run_minutes)
    with within(limits.given or SECONDS, "importing and building the model"):
        plan = _plan(
            lookup.path_of(model, "model"),
            None if data is None else lookup.path_of(data, "data"),
            norms=norms,
            lr=lr,
            lrs=lrs,
            inits=inits,
            batch=batch,
            batches=batches,
            placements=placements,
            seeds=seeds,
            first_seed=first_seed,
            steps=steps,
            optimizer=optimizer,
            weight_decay=weight_decay,
            warmup=warmup,
            noise=noise,
            experiments=experiments,
            probes=probes,
        )
    with closing(engine(on, workers, limits)) as chosen:
        runner = _Runner(open_store(store), chosen, limits, progress, minutes)
        if report is not None:
            check_target(report, "report")
        runner.run(plan.product() if full else plan.star(), refine)
        if until_decided or minutes is not None:
            runner.grow(seeds, margin)
    result = runner.result(title=f"{plan.subject} on {plan.data}", command=command, margin=margin)
    if report is not None:
        result.report(report)
    return result


class _Runner:
    """Runs the cells that are not in the store, and the cells that refine their results."""

    def __init__(
        self,
        store: Records,
        engine: Engine,
        limits: Limits,
        progress: bool,
        minutes: float | None = None,
    ) -> None:
        self.store, self.engine, self.limits, self.progress = store, engine, limits, progress
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.looks, self.stopped = 1, ""
        self.cells: list[Cell] = []
        self.found: dict[Cell, Record] = {}
        self.outcome = Outcome()
        self.reused = 0

    def run(self, cells: list[Cell], refine: int) -> None:
        check(cells, self.limits.given or SECONDS)
        self._complete(cells)
        for _ in range(refine):
            if self._is_over() or not (added := self._refinements()):
                break
            self._complete(added)

    def grow(self, seeds: int, margin: float | None) -> None:
        """Add seeds to those comparisons that cannot tell yet."""
        from anynorm.study.sequential import could_tell, looks, open_comparisons, seeds_to_add

        counts = looks(seeds)
        self.looks = len(counts)
        for count in [*counts[1:], None]:
            if self._is_over() or not (records := self._records()):
                self.stopped = "interrupted" if self.outcome.interrupted else "out of time"
                return
            unsettled = open_comparisons(records, margin, self.looks)
            hopeful = [comparison for comparison in unsettled if could_tell(comparison)]
            if count is None or not hopeful:
                self.stopped = _why_stopped(unsettled, hopeful)
                return
            self._complete(seeds_to_add(records, hopeful, count))
            if self.outcome.late:  # cells for which there was no time do not count as planned
                self.cells = [cell for cell in self.cells if cell in self.found]

    def _is_over(self) -> bool:
        return self.outcome.interrupted or self.outcome.late

    def result(self, **names: Any) -> Study:
        records = self._records()
        if not records and self.outcome.failures:
            first = self.outcome.failures[0]
            raise AnynormError(f"every run failed; the first: {first}")
        if not records:
            raise KeyboardInterrupt
        return Study(
            records=records,
            planned=len(self.cells),
            reused=self.reused,
            failures=self.outcome.failures,
            interrupted=self.outcome.interrupted,
            looks=self.looks,
            stopped=self.stopped,
            **names,
        )

    def _complete(self, cells: list[Cell]) -> None:
        refining = bool(self.cells)
        self.cells += cells
        self._read(cells)
        for cell in cells:
            if cell in self.found:
                self.limits.learn_record(self.found[cell])
        missing = [cell for cell in cells if cell not in self.found]
        stored = len(cells) - len(missing)
        self.reused += stored
        with show_progress(missing, stored, shown=self.progress, refining=refining) as done:
            outcome = run_cells(self.engine, missing, self.store, done=done, deadline=self.deadline)
        self.outcome.failures += outcome.failures
        self.outcome.interrupted |= outcome.interrupted
        self.outcome.late |= outcome.late
        self._read(missing)

    def _read(self, cells: list[Cell]) -> None:
        """Read the records of the cells that have one."""
        present = self.store.present()
        for cell in cells:
            if (key := cell.key) in present and (record := self.store.read(key)) is not None:
                self.found[cell] = record

    def _records(self) -> list[Record]:
        return [self.found[cell] for cell in self.cells if cell in self.found]

    def _refinements(self) -> list[Cell]:
        from anynorm.study.tolerance import refinements

        asked = [Cell.from_dict(one.cell) for one in refinements(self._records())]
        known = {replace(cell, probes=False) for cell in self.cells}
        plain = unique(replace(cell, probes=False) for cell in asked)
        return [cell for cell in plain if cell not in known]


def _why_stopped(unsettled: Sequence[Any], hopeful: Sequence[Any]) -> str:
    if not unsettled:
        return "decided"
    return "most seeds" if hopeful else "more seeds would not decide"


def _plan(subject: str, data: str | None, **given: Any) -> StudyPlan:
    """The plan with the subject's own settings, replaced by the values that the user gave."""
    given = {name: _listed(name, value) for name, value in given.items() if value is not None}
    experiments = given.pop("experiments", True)
    settings = _settings(subject, given.get("placements", USER.placements)[0])
    chosen = {
        **{name: getattr(settings, name) for name in ("norms", "inits", "batch", "batches")},
        **{
            name: getattr(settings, name)
            for name in ("placements", "steps", "noise", "experiments")
        },
        **_training(settings, given),
        "data": data or settings.data,
        **given,
    }
    if not experiments:
        chosen |= {"noise": False, "experiments": chosen["experiments"].without_runs()}
    compared = chosen["norms"] if "batches" in given else settings.batch_norms
    asked = {"norms", "lrs", "inits", "placements"} & given.keys()
    return StudyPlan(
        subject=subject,
        batch_norms=tuple(name for name in compared if name in chosen["norms"]),
        variants=() if asked else settings.variants,
        source=lookup.digest(model=subject, data=chosen["data"]),
        **chosen,
    )


def _settings(subject: str, placement: str) -> Settings:
    if subject in SUBJECTS:
        return SUBJECTS[subject].settings
    return USER_ATTENTION if has_attention(subject, placement) else USER


def _training(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """The subject's own optimizer, or its settings translated to the one the user chose."""
    optimizer = given.get("optimizer", settings.optimizer)
    # The cell refuses a name that is not in the table.
    rate = _RATES.get(optimizer, 1.0) / _RATES[settings.optimizer]
    return {
        "optimizer": optimizer,
        # A step takes lr · weight_decay of a weight, with any learning rate.
        "weight_decay": settings.weight_decay / rate,
        "warmup": round(settings.warmup * given.get("steps", settings.steps) / settings.steps),
        "lrs": tuple(rate * lr for lr in settings.lrs),
        "lr": _nearest(rate * settings.lr, given.get("lrs", ())),
    }


def _listed(name: str, value: Any) -> Any:
    """Return sequences as tuples; a single name would be read letter by letter."""
    if name not in ("norms", "lrs", "inits", "batches", "placements"):
        return value
    if isinstance(value, (str, int, float)):
        raise AnynormError(f"{name}={value!r} is one value; give a list, {name}=[{value!r}].")
    values = tuple(value)
    if not values and name in ("norms", "placements"):
        raise AnynormError(f"{name} is empty; name at least one.")
    return values


def _nearest(lr: float, lrs: Sequence[float]) -> float:
    """The value of a grid that is nearest to the subject's own learning rate."""
    usable = [value for value in lrs if value > 0]
    return min(usable, key=lambda value: abs(math.log(value / lr)), default=lr)
