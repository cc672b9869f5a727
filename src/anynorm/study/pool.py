"""Runs cells in spawned processes, one torch thread each; nothing a process does can hang it."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell

__all__ = ["Failure", "Outcome", "run_cells"]

_CONTEXT = get_context("spawn")
_READY = "ready"
# A process that dies without a word was killed (out of memory, say): its cell gets another try.
_TRIES = 2

_NO_START = (
    "a worker process could not start. In a script, call the study under "
    "`if __name__ == '__main__':`, because each worker imports the script; one that is read from "
    "standard input cannot be imported: save it as a file."
)


@dataclass(frozen=True)
class Failure:
    """A cell that gave no record, and why."""

    cell: Cell
    reason: str

    @property
    def run(self) -> str:
        """The cell in words."""
        cell = self.cell
        setting = f"lr {cell.lr:g}, init {cell.init:g}, batch {cell.batch}, {cell.placement}"
        return f"{cell.subject}, {cell.label} ({setting}, seed {cell.seed})"

    def __str__(self) -> str:
        return f"{self.run} failed:\n{self.reason}"


@dataclass
class Outcome:
    """What became of the cells that were run."""

    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False


def run_cells(
    cells: Iterable[Cell],
    folder: Path,
    *,
    workers: int,
    done: Callable[[Cell], None],
) -> Outcome:
    """Run every cell; each writes its record into the store at `folder`.

    `done` is called for each finished cell. A cell that raises, or whose process dies twice, is
    a `Failure` and stops nothing else. Ctrl-C stops the running cells and keeps what is finished.
    Raises `AnynormError` when worker processes cannot start at all.
    """
    pool = _Pool(deque(cells), folder, done)
    try:
        pool.run(workers)
    except KeyboardInterrupt:
        pool.outcome.interrupted = True
    finally:
        pool.close()
    return pool.outcome


@dataclass
class _Worker:
    """A process and the cell it is at work on, if any."""

    process: Any
    pipe: Any
    cell: Cell | None = None
    ready: bool = False


class _Pool:
    def __init__(self, pending: deque[Cell], folder: Path, done: Callable[[Cell], None]) -> None:
        self.pending, self.folder, self.done = pending, folder, done
        self.workers: list[_Worker] = []
        self.deaths: dict[Cell, int] = {}
        self.outcome = Outcome()

    def run(self, count: int) -> None:
        """Give cells to workers until none is pending or at work."""
        for _ in range(min(count, len(self.pending))):
            self._start()
        while self.pending or any(worker.cell for worker in self.workers):
            pipes = {worker.pipe: worker for worker in self.workers}
            for pipe in connection.wait(list(pipes)):
                self._hear(pipes[pipe])

    def close(self) -> None:
        """End every process at once; records are written atomically, so none is left half."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    def _start(self) -> None:
        pipe, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, str(self.folder)))
        with _uninterrupted():
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, pipe))

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        if message == _READY:
            worker.ready = True
        else:
            self._finish(worker, message)
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        if self.pending:
            worker.cell = self.pending.popleft()
            # A worker that has just died is heard of, and its cell tried again, in the next round.
            with suppress(BrokenPipeError):
                worker.pipe.send(worker.cell)

    def _finish(self, worker: _Worker, reason: str | None) -> None:
        cell, worker.cell = worker.cell, None
        if cell is None:
            return
        if reason is not None:
            self.outcome.failures.append(Failure(cell, reason))
        self.done(cell)

    def _bury(self, worker: _Worker) -> None:
        """A worker died: try its cell again in a new process, and give up at the second death."""
        worker.process.join()
        if not worker.ready:
            raise AnynormError(_NO_START)
        self.workers.remove(worker)
        if (cell := worker.cell) is not None:
            self.deaths[cell] = self.deaths.get(cell, 0) + 1
            if self.deaths[cell] < _TRIES:
                self.pending.append(cell)
            else:
                self._finish(worker, _death(worker.process.exitcode))
        if self.pending:
            self._start()


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


def _serve(pipe: Any, folder: str) -> None:
    """The life of a worker: run the cells that come through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from anynorm.study.store import Store

    store = Store(folder)
    pipe.send(_READY)
    try:
        while True:
            pipe.send(_attempt(pipe.recv(), store))
    except (EOFError, BrokenPipeError):
        return


def _attempt(cell: Cell, store: Any) -> str | None:
    """Run one cell; returns why it failed, with a traceback unless it is bad input alone."""
    try:
        from anynorm.study.train import run

        store.write(run(cell))
    except Exception as error:
        if isinstance(error, AnynormError) and error.__cause__ is None:
            return str(error)
        return traceback.format_exc()
    return None


def _die_with_parent() -> None:
    """A killed driver must not leave workers behind that train for nobody."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
