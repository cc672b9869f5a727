"""Runs cells in spawned processes with one torch thread each; a hanging process cannot block it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from typing import Any

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.engines.base import Results
from anynorm.study.engines.limits import FIRST_SECONDS, Limits
from anynorm.study.store import Records

__all__ = ["ProcessPool"]

_CONTEXT = get_context("spawn")
# Messages of a worker besides its answers: its process has started; a run begins, after its imports
# and the loading of its data.
_READY, _BEGINS = ("ready",), ("begins",)
# A process that dies without a message was killed (for example out of memory): its cell is retried.
_TRIES = 2
_SECONDS_BETWEEN_CHECKS = 1.0
# A process whose pipe is closed ends by itself, unless its run closed the pipe.
_SECONDS_TO_END = 10.0

_NO_START = (
    "a worker process could not start. In a script, call the study under "
    "`if __name__ == '__main__':`, because each worker imports the script; one that is read from "
    "standard input cannot be imported: save it as a file."
)


class ProcessPool:
    """The engine of one machine: `workers` processes, each of which writes its records.

    A cell fails if its process dies twice, or if it exceeds its time limit.
    """

    def __init__(self, workers: int, limits: Limits | None = None) -> None:
        self.workers, self.limits = workers, limits or Limits()

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell; raises `AnynormError` if processes cannot start at all."""
        processes = _Processes(deque(cells), store, self.limits)
        try:
            yield from processes.run(self.workers)
        finally:
            processes.close()

    def close(self) -> None:
        """Do nothing: all processes end with their run."""


@dataclass
class _Worker:
    """A process and the cell that it runs, if any; `since` is the time of its last message."""

    process: Any
    pipe: Any
    cell: Cell | None = None
    ready: bool = False
    begun: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """The seconds since its run began or, before that, since it started to prepare."""
        return time.monotonic() - self.since


class _Processes:
    def __init__(self, pending: deque[Cell], store: Records, limits: Limits) -> None:
        self.pending, self.store, self.limits = pending, store, limits
        self.workers: list[_Worker] = []
        self.deaths: dict[Cell, int] = {}

    def run(self, count: int) -> Results:
        """Give cells to workers until no cell is pending or running."""
        for _ in range(min(count, len(self.pending))):
            self._start()
        while self.pending or any(worker.cell for worker in self.workers):
            pipes = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(pipes), _SECONDS_BETWEEN_CHECKS):
                yield from self._hear(pipes[pipe])
            yield from self._bury_the_silent()
            yield from self._end_the_late()

    def close(self) -> None:
        """Kill every process; records are written atomically, so none is incomplete."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    def _start(self) -> None:
        pipe, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self.store))
        with _uninterrupted():
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, pipe))

    def _hear(self, worker: _Worker) -> Results:
        try:
            message = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            yield from self._bury(worker)
            return
        if message == _BEGINS:
            worker.begun, worker.since = True, time.monotonic()
            return
        cell, worker.cell, worker.begun = worker.cell, None, False
        if cell is not None and message is None:
            self.limits.learn(cell, worker.seconds)
        worker.ready = True
        self._give(worker)
        if cell is not None:
            yield cell, message

    def _bury_the_silent(self) -> Results:
        """Handle dead processes whose pipe is still open, as in a child process of a run."""
        for worker in list(self.workers):
            if not worker.process.is_alive() and not worker.pipe.poll():
                yield from self._bury(worker)

    def _end_the_late(self) -> Results:
        """Stop the runs that exceed their time limit; they are not retried."""
        for worker in list(self.workers):
            is_idle = worker.ready and worker.cell is None
            limit = FIRST_SECONDS
            if worker.begun and worker.cell is not None:
                limit = self.limits.of(worker.cell)
            if is_idle or worker.seconds <= limit or worker.pipe.poll():
                continue
            worker.process.kill()
            self._replace(worker)
            if worker.cell is not None:
                yield worker.cell, self.limits.why(limit)

    def _give(self, worker: _Worker) -> None:
        if self.pending:
            worker.cell, worker.since = self.pending.popleft(), time.monotonic()
            # If the worker has just died, the next round notices it and retries the cell.
            with suppress(BrokenPipeError):
                worker.pipe.send(worker.cell)

    def _bury(self, worker: _Worker) -> Results:
        """A worker died: retry its cell in a new process; after the second death it has failed."""
        lost = worker.cell is not None and self._is_lost(worker.cell)
        self._replace(worker)
        if worker.cell is not None and lost:
            yield worker.cell, _death(worker.process.exitcode)

    def _replace(self, worker: _Worker) -> None:
        """End a process, and start another one if there are cells."""
        _end(worker.process)
        worker.pipe.close()
        if not worker.ready:
            raise AnynormError(_NO_START)
        self.workers.remove(worker)
        if self.pending:
            self._start()

    def _is_lost(self, cell: Cell) -> bool:
        self.deaths[cell] = self.deaths.get(cell, 0) + 1
        if self.deaths[cell] < _TRIES:
            self.pending.append(cell)
        return self.deaths[cell] >= _TRIES


def _end(process: Any) -> None:
    """Wait some seconds for a process to end by itself, then kill it."""
    deadline = time.monotonic() + _SECONDS_TO_END
    # `join` with a timeout may wait forever if the process closed its sentinel pipe.
    while process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that start in this block ignore Ctrl-C; the driver handles it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by signal {-code}, {_TRIES} times (out of memory?)"
    return f"its process ended with exit code {code}, {_TRIES} times"


def _serve(pipe: Any, store: Records) -> None:
    """The loop of a worker: run the cells from the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send(_READY)
    from anynorm.study.engines.work import attempt, prepare, written

    try:
        while True:
            cell = pipe.recv()
            prepare(cell)
            pipe.send(_BEGINS)
            pipe.send(written(attempt(cell), store))
    except (EOFError, BrokenPipeError):
        return


def _die_with_parent() -> None:
    """End this worker when the driver dies."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
