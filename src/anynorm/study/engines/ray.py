"""Runs cells as tasks of a Ray cluster (Moritz et al. 2018, arXiv:1712.05889); Ray Core only."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.engines.base import Results
from anynorm.study.engines.limits import Limits
from anynorm.study.engines.reach import check_reachable
from anynorm.study.engines.versions import SWITCHES, Versions, versions
from anynorm.study.engines.work import Answer, write
from anynorm.study.extras import require
from anynorm.study.store import Records, Store

__all__ = ["Ray"]

# A task is lost with its process or its node. Ray's own retries are off: Ray would repeat a cell
# that runs out of memory forever, and its retries would multiply with these.
_TRIES = 4
# Tasks submitted at a time for each CPU of the cluster; all others wait here as plain cells.
_TASKS_PER_CPU = 4
_ASK_SECONDS = 5.0
_NO_CPU_SECONDS = 60.0
# Records are kilobytes, so Ray's default of a third of the machine's memory is not needed.
_OBJECT_STORE = 100_000_000


class Ray:
    """The engine of a Ray cluster: each task runs one cell on one CPU, and this process writes.

    `address` is None for this machine, or an address for ``ray.init``. `workers` limits the tasks
    at a time. A cell fails if its process or node is lost four times, or if it exceeds its time
    limit.
    """

    def __init__(
        self, address: str | None, workers: int | None, limits: Limits | None = None
    ) -> None:
        require("ray", "on='ray'")
        if (address or "").startswith("ray://"):
            require("grpc", "an address ray://")
        self.address, self.workers = address, workers
        self.limits = limits or Limits()
        self.opened = self.ready = False

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell; raises `AnynormError` for a cluster that cannot be used."""
        pending = iter(cells)
        if (first := next(pending, None)) is None:
            return
        self._connect(_runtime(first, store))
        tasks = _Tasks(chain([first], pending), store, self.workers, self.limits)
        try:
            yield from tasks.run()
        except ConnectionError as error:
            raise AnynormError(
                f"the connection to Ray was lost: {error}. Finished runs are in the store; run "
                "the same command again when there is a cluster."
            ) from error

    def close(self) -> None:
        """Disconnect, which stops running tasks and a cluster that was started here.

        Do not use ``ray.cancel``: if a task ends at that moment, it aborts this process (Ray 2.60).
        """
        if self.opened:
            import ray

            ray.shutdown()
        self.opened = self.ready = False

    def _connect(self, runtime: dict[str, Any]) -> None:
        if self.ready:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if ray.is_initialized():
            self._borrow()
        else:
            self._open(self.address or os.environ.get("RAY_ADDRESS") or "local", runtime)
        self.ready = True

    def _borrow(self) -> None:
        """Use the connection that the caller's program has opened."""
        if self.address is not None:
            raise AnynormError(
                f"this process is already connected to a Ray cluster, so {self.address!r} cannot "
                "be opened; give on='ray' to use the connection, or call ray.shutdown() first."
            )

    def _open(self, address: str, runtime: dict[str, Any]) -> None:
        import ray

        options: dict[str, Any] = {"runtime_env": runtime} if runtime else {}
        if address == "local":
            options = {"num_cpus": self.workers, "include_dashboard": False}
            options |= {"object_store_memory": _OBJECT_STORE}
        elif address != "auto":
            check_reachable(address)
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:
            raise AnynormError(
                f"Ray could not be used at {address!r}: {type(error).__name__}: {error}"
            ) from error
        self.opened = True


def _runtime(cell: Cell, store: Records) -> dict[str, Any]:
    """The runtime environment for workers on another machine: the switches and the user's code."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:  # inside a Ray job, which brings its own
        return {}
    switches = {name: os.environ[name] for name in SWITCHES if name in os.environ}
    runtime: dict[str, Any] = {"env_vars": switches} if switches else {}
    if cell.source:
        runtime |= {"working_dir": os.getcwd(), "excludes": _excluded(store)}
    return runtime


def _excluded(store: Records) -> list[str]:
    """The store and files that are not code, as lines of a .gitignore."""
    hidden = [".venv/", "venv/", "__pycache__/", ".mypy_cache/", ".pytest_cache/"]
    if isinstance(store, Store) and store.folder.resolve().is_relative_to(Path.cwd()):
        folder = store.folder.resolve().relative_to(Path.cwd()).as_posix()
        hidden.append("/*.json" if folder == "." else f"/{folder}/")
    return hidden


class _Tasks:
    """The running tasks, and the cells that wait."""

    def __init__(
        self, cells: Iterable[Cell], store: Records, most: int | None, limits: Limits
    ) -> None:
        import ray

        self.ray, self.store, self.most, self.limits = ray, store, most, limits
        self.again: deque[Cell] = deque()
        self.pending = iter(cells)
        self.losses: Counter[Cell] = Counter()
        self.at_work: dict[Any, Cell] = {}
        self.capacity = _Capacity(lambda: ray.cluster_resources().get("CPU", 0.0))
        self.task: Any = ray.remote(num_cpus=1, max_retries=0)(_task(versions()))

    def run(self) -> Results:
        """Submit cells and process answers until no cell is pending or running."""
        while self._hand_out():
            for task in self._answered():
                yield from self._settle(task)

    def _hand_out(self) -> bool:
        room = self.most or max(1, int(_TASKS_PER_CPU * self.capacity.cpus()))
        while len(self.at_work) < room and (cell := self._next()) is not None:
            seconds = self.limits.of(cell)
            task = self.task.remote(cell.to_dict(), seconds, self.limits.why(seconds))
            self.at_work[task] = cell
        return bool(self.at_work)

    def _next(self) -> Cell | None:
        return self.again.popleft() if self.again else next(self.pending, None)

    def _answered(self) -> list[Any]:
        tasks = list(self.at_work)
        ready, others = self.ray.wait(tasks, num_returns=1, timeout=_ASK_SECONDS)
        if not (ready and others):
            return list(ready)
        more, _ = self.ray.wait(others, num_returns=len(others), timeout=0)
        return [*ready, *more]

    def _settle(self, task: Any) -> Results:
        cell = self.at_work.pop(task)
        try:
            kind, value = self.ray.get(task)
        except self.ray.exceptions.RuntimeEnvSetupError as error:
            raise AnynormError(
                f"Ray could not bring this study's code to a worker: {error}"
            ) from error
        except self.ray.exceptions.RayTaskError as error:
            yield cell, str(error)
        except self.ray.exceptions.RayError as error:
            yield from self._lose(cell, error)
        else:
            if kind == "refused":
                raise AnynormError(value)
            if kind == "record":
                self.limits.learn_record(value)
            yield cell, write(value, self.store) if kind == "record" else value

    def _lose(self, cell: Cell, error: Exception) -> Results:
        self.losses[cell] += 1
        if self.losses[cell] < _TRIES:
            self.again.append(cell)
        else:
            what = f"{type(error).__name__}: {error}"
            yield cell, f"its process or node was lost {_TRIES} times; the last time {what}"


class _Capacity:
    """The number of CPUs of the cluster, updated every few seconds because nodes come and go."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self.ask, self.known = ask, 0.0
        self.asked, self.seen = -_ASK_SECONDS, time.monotonic()

    def cpus(self) -> float:
        """The CPUs of all living nodes; raises `AnynormError` after a minute without any."""
        now = time.monotonic()
        if now - self.asked >= _ASK_SECONDS:
            self.known, self.asked = self.ask(), now
        if self.known:
            self.seen = now
        elif now - self.seen > _NO_CPU_SECONDS:
            raise AnynormError(
                f"the Ray cluster has had no CPU for {_NO_CPU_SECONDS:g} seconds. Add a node, and "
                "run the same command again: finished runs are in the store."
            )
        return self.known


def _task(driver: Versions) -> Callable[[dict[str, Any], float, str], Answer]:
    """The function of a task. A closure is sent by value, so a worker without anynorm, or with a
    version that lacks this module, can still report it.
    """

    def task(cell: dict[str, Any], seconds: float, late: str) -> Answer:
        try:
            from anynorm.study.engines.work import answer
        except ImportError as error:
            import socket
            from importlib.metadata import distributions

            names = ("anynorm", "torch")
            found = {d.metadata["Name"]: d.version for d in distributions()}
            listed = ", ".join(f"{name} {found.get(name, 'missing')}" for name in names)
            return "refused", (
                f"the worker on {socket.gethostname()} has {listed} ({error}); this process has "
                f"anynorm {driver['anynorm']}, torch {driver['torch']}. Install the same on every "
                "node."
            )
        return answer(cell, driver, seconds, late)

    return task
