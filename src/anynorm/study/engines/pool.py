"""Runs cells in spawned processes, one torch thread each; nothing a process does can hang it."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.engines.base import Results
from anynorm.study.store import Records

__all__ = ["Pool"]

_CONTEXT = get_context("spawn")
_READY = "ready"
# A process that dies without a word was killed (out of memory, say): its cell gets another try.
_TRIES = 2
_SECONDS_BETWEEN_CHECKS = 1.0

_NO_START = (
    "a worker process could not start. In a script, call the study under "
    "`if __name__ == '__main__':`, because each worker imports the script; one that is read from "
    "standard input cannot be imported: save it as a file."
)


class Pool:
    """The engine of one machine: as many processes as `workers` says, each writes its records.

    A cell whose process dies twice has failed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, cells: Iterable[Cell], store: Records) -> Results:
        """Run every cell; raises `AnynormError` when processes cannot start at all."""
        processes = _Processes(deque(cells), store)
        try:
            yield from processes.run(self.workers)
        finally:
            processes.close()

    def close(self) -> None:
        """Do nothing: no process outlives its run."""


@dataclass
class _Worker:
    """A process and the cell it is at work on, if any."""

    process: Any
    pipe: Any
    cell: Cell | None = None
    ready: bool = False


class _Processes:
    def __init__(self, pending: deque[Cell], store: Records) -> None:
        self.pending, self.store = pending, store
        self.workers: list[_Worker] = []
        self.deaths: dict[Cell, int] = {}

    def run(self, count: int) -> Results:
        """Give cells to workers until none is pending or at work."""
        for _ in range(min(count, len(self.pending))):
            self._start()
        while self.pending or any(worker.cell for worker in self.workers):
            pipes = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(pipes), _SECONDS_BETWEEN_CHECKS):
                yield from self._hear(pipes[pipe])
            yield from self._bury_the_silent()

    def close(self) -> None:
        """End every process at once; records are written atomically, so none is left half."""
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
        cell, worker.cell = worker.cell, None
        worker.ready = True
        self._give(worker)
        if cell is not None:
            yield cell, message

    def _bury_the_silent(self) -> Results:
        """Bury the dead whose pipe does not say so: a child that a run forked keeps it open."""
        for worker in list(self.workers):
            if not worker.process.is_alive() and not worker.pipe.poll():
                yield from self._bury(worker)

    def _give(self, worker: _Worker) -> None:
        if self.pending:
            worker.cell = self.pending.popleft()
            # A worker that has just died is heard of, and its cell tried again, in the next round.
            with suppress(BrokenPipeError):
                worker.pipe.send(worker.cell)

    def _bury(self, worker: _Worker) -> Results:
        """A worker died: try its cell again in a new process, and give up at the second death."""
        worker.process.join()
        if not worker.ready:
            raise AnynormError(_NO_START)
        self.workers.remove(worker)
        lost = worker.cell is not None and self._is_lost(worker.cell)
        if self.pending:
            self._start()
        if worker.cell is not None and lost:
            yield worker.cell, _death(worker.process.exitcode)

    def _is_lost(self, cell: Cell) -> bool:
        self.deaths[cell] = self.deaths.get(cell, 0) + 1
        if self.deaths[cell] < _TRIES:
            self.pending.append(cell)
        return self.deaths[cell] >= _TRIES


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process started in here ignores Ctrl-C from its first moment; the driver acts on it."""
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
    """The life of a worker: run the cells that come through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send(_READY)
    from anynorm.study.engines.work import attempt_and_write

    try:
        while True:
            pipe.send(attempt_and_write(pipe.recv(), store))
    except (EOFError, BrokenPipeError):
        return


def _die_with_parent() -> None:
    """A killed driver must not leave workers behind that train for nobody."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
