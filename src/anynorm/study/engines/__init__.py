"""The engines that run the cells of a study: local processes, a Ray cluster, or Slurm jobs."""

from __future__ import annotations

import os

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.study.engines.base import Engine, Failure, Outcome, run_cells
from anynorm.study.engines.limits import Limits

__all__ = ["Engine", "Failure", "Limits", "Outcome", "engine", "run_cells"]

_NAMES = ("local", "ray", "slurm")


def engine(on: str, workers: int | None, limits: Limits | None = None) -> Engine:
    """The engine that `on` names, with at most `workers` processes, tasks or jobs at a time.

    `limits` has the time limit of a run.

    `on` is ``local``, ``ray``, ``ray://host:port``, ``ray:ADDRESS``, ``slurm`` or
    ``slurm:option=value,...``. Raises `AnynormError` for another name or a missing package. The
    connection to a cluster is opened only when there is a cell to run.

    >>> type(engine("local", workers=2)).__name__
    'ProcessPool'
    """
    if not isinstance(on, str):
        raise AnynormError(f"on is {on!r}; it must be a text, such as 'local' or 'ray'.")
    if workers is not None and workers < 1:
        raise AnynormError(f"workers is {workers}; it must be 1 or more.")
    name, colon, rest = on.partition(":")
    if name not in _NAMES or (name == "local" and colon):
        raise UnknownNameError("engine", on, _NAMES)
    if colon and not rest:
        raise AnynormError(f"on is {on!r}; add what follows the colon, or leave the colon out.")
    limits = limits or Limits()
    return _MAKE[name](on if rest.startswith("//") else rest, workers, limits)


def _local(_: str, workers: int | None, limits: Limits) -> Engine:
    from anynorm.study.engines.pool import ProcessPool

    return ProcessPool(workers or cpus(), limits)


def _ray(address: str, workers: int | None, limits: Limits) -> Engine:
    from anynorm.study.engines.ray import Ray

    return Ray(address or None, workers, limits)


def _slurm(options: str, workers: int | None, limits: Limits) -> Engine:
    from anynorm.study.engines.slurm import Slurm

    return Slurm(options, workers, limits)


_MAKE = {"local": _local, "ray": _ray, "slurm": _slurm}


def cpus() -> int:
    """The CPUs that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
