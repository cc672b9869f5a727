"""Runs cells as Slurm jobs, which submitit submits and watches."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell, parse_norm
from anynorm.study.engines.base import Results
from anynorm.study.engines.limits import Limits
from anynorm.study.engines.versions import Versions, differences, versions
from anynorm.study.engines.work import attempt_within, written
from anynorm.study.extras import require
from anynorm.study.store import Records, Store

__all__ = ["Slurm"]

# The cells of a lost job are retried one by one, so that a second loss identifies the bad cell.
_TRIES = 2
_DEFAULTS: dict[str, Any] = {"cells": 8, "cluster": "slurm", "time": 60}
_JOBS = {"slurm": 64, "local": 2}
_POLL_SECONDS = {"slurm": 5.0, "local": 0.1}

# For each cell of a job, in order: why it failed, or None.
Reasons = list[str | None]
# A cell, its time limit in seconds, and the reason to report if it exceeds the limit.
Described = tuple[dict[str, Any], float, str]


class Slurm:
    """The engine of a Slurm cluster; every job writes each record to the store at once.

    `options` are ``name=value`` pairs: the number of ``cells`` of a job (8), its ``time`` in
    minutes (60), and any other option that submitit takes for Slurm (``partition``, ``account``,
    ``qos``, ...); ``cluster=local`` runs the jobs as processes on this machine. The store must be a
    folder that all nodes share, or a URL. `workers` limits the jobs at a time (64).
    """

    def __init__(self, options: str, workers: int | None, limits: Limits | None = None) -> None:
        require("submitit", "on='slurm'")
        given = {**_DEFAULTS, **dict(parse_norm(f"slurm:{options}")[1])}
        self.cells, self.cluster, self.minutes = (given.pop(name) for name in _DEFAULTS)
        self.options = {f"slurm_{name}": value for name, value in given.items()}
        if not (isinstance(self.cells, int) and self.cells >= 1):
            raise AnynormError(f"cells is {self.cells!r}; a job runs 1 cell or more.")
        if self.cluster not in _JOBS:
            raise AnynormError(f"cluster is {self.cluster!r}; it must be slurm or local.")
        self.jobs = workers or _JOBS[self.cluster]
        self.limits = limits or Limits()

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell; raises `AnynormError` if no job can be submitted."""
        jobs = _Jobs(iter(cells), store, self)
        try:
            yield from jobs.run()
        finally:
            jobs.cancel()

    def close(self) -> None:
        """Do nothing: all jobs end with their run."""

    def executor(self, store: Records) -> Any:
        """Return submitit's executor; logs are in the store's folder, or in the current one."""
        import submitit

        logs = (store.folder if isinstance(store, Store) else Path()) / "slurm"
        try:
            executor = submitit.AutoExecutor(folder=logs.resolve(), cluster=self.cluster)
            executor.update_parameters(cpus_per_task=1, name="anynorm", timeout_min=self.minutes)
            executor.update_parameters(**self.options)
        except Exception as error:
            raise AnynormError(
                f"on='slurm' cannot be used here: {error}. Run the command where `sbatch` works; "
                "options are those of submitit for Slurm."
            ) from error
        return executor


class _Jobs:
    """The jobs that wait or run, and the cells without a job."""

    def __init__(self, pending: Iterable[Cell], store: Records, engine: Slurm) -> None:
        self.pending, self.store, self.engine = iter(pending), store, engine
        self.executor: Any = None
        self.again: deque[Cell] = deque()
        self.losses: Counter[Cell] = Counter()
        self.running: dict[Any, list[Cell]] = {}

    def run(self) -> Results:
        """Submit cells and process the results of jobs until no cell is left."""
        while self._submit():
            ended = [job for job in self.running if job.done()]
            for job in ended:
                yield from self._settle(job)
            if not ended:
                time.sleep(_POLL_SECONDS[self.engine.cluster])

    def cancel(self) -> None:
        """Stop every job."""
        for job in self.running:
            job.cancel()

    def _submit(self) -> bool:
        while len(self.running) < self.engine.jobs and (cells := self._next()):
            self.running[self._job_of(cells)] = cells
        return bool(self.running)

    def _job_of(self, cells: list[Cell]) -> Any:
        self.executor = self.executor or self.engine.executor(self.store)
        limits = self.engine.limits
        described = [
            (cell.to_dict(), seconds := limits.of(cell), limits.why(seconds)) for cell in cells
        ]
        try:
            return self.executor.submit(_job, described, self.store, versions())
        except Exception as error:
            raise AnynormError(f"Slurm did not accept a job: {error}") from error

    def _next(self) -> list[Cell]:
        if self.again:
            return [self.again.popleft()]
        return list(islice(self.pending, self.engine.cells))

    def _settle(self, job: Any) -> Results:
        cells = self.running.pop(job)
        error = job.exception()
        if error is None:
            yield from self._told(cells, job.result())
        else:
            yield from self._lose(cells, str(error))

    def _told(self, cells: list[Cell], reasons: Reasons | str) -> Results:
        if isinstance(reasons, str):
            raise AnynormError(reasons)
        for cell, reason in zip(cells, reasons, strict=True):
            if reason is None and (record := self.store.read(cell.key)) is not None:
                self.engine.limits.learn_record(record)
            yield cell, reason

    def _lose(self, cells: list[Cell], why: str) -> Results:
        """A job ended without a result: finished cells are in the store, others run alone."""
        present = self.store.present()
        for cell in cells:
            self.losses[cell] += 1
            if cell.key in present:
                yield cell, None
            elif len(cells) > 1 or self.losses[cell] < _TRIES:
                self.again.append(cell)
            else:
                yield cell, f"its job was lost {self.losses[cell]} times; the last time: {why}"


def _job(cells: list[Described], store: Records, driver: Versions) -> Reasons | str:
    """The function of a job: run the cells one by one, if versions are equal to the driver's."""
    if found := differences(driver):
        return found
    return [_reason(Cell.from_dict(cell), store, seconds, late) for cell, seconds, late in cells]


def _reason(cell: Cell, store: Records, seconds: float, late: str) -> str | None:
    """Run a cell, unless a job of an earlier driver has already written its record."""
    if cell.key in store.present():
        return None
    return written(attempt_within(cell, seconds, late), store)
