"""Where the cells of a study run: processes on this machine, a Ray cluster, or Slurm jobs."""

from __future__ import annotations

import os

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.study.engines.base import Engine, Failure, Outcome, run_cells

__all__ = ["Engine", "Failure", "Outcome", "engine", "run_cells"]

_NAMES = ("local", "ray", "slurm")


def engine(on: str, workers: int | None) -> Engine:
    """The engine that `on` names, with at most `workers` processes, tasks or jobs at a time.

    `on` is ``local``, ``ray``, ``ray://host:port``, ``ray:ADDRESS``, ``slurm`` or
    ``slurm:option=value,...``. Raises `AnynormError` for another name or a missing package; a
    cluster is not looked for before there is a cell to run.

    >>> type(engine("local", workers=2)).__name__
    'Pool'
    """
    if not isinstance(on, str):
        raise AnynormError(f"on is {on!r}; it must be a text, such as 'local' or 'ray'.")
    if workers is not None and workers < 1:
        raise AnynormError(f"workers is {workers}; it must be 1 or more.")
    name, colon, rest = on.partition(":")
    if name not in _NAMES or (name == "local" and colon):
        raise UnknownNameError("engine", on, _NAMES)
    if colon and not rest:
        raise AnynormError(f"on is {on!r}; say what follows the colon, or leave the colon out.")
    return _MAKE[name](on if rest.startswith("//") else rest, workers)


def _local(_: str, workers: int | None) -> Engine:
    from anynorm.study.engines.pool import Pool

    return Pool(workers or cpus())


def _ray(address: str, workers: int | None) -> Engine:
    from anynorm.study.engines.ray import Ray

    return Ray(address or None, workers)


def _slurm(options: str, workers: int | None) -> Engine:
    from anynorm.study.engines.slurm import Slurm

    return Slurm(options, workers)


_MAKE = {"local": _local, "ray": _ray, "slurm": _slurm}


def cpus() -> int:
    """The CPUs that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
