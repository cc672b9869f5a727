"""Slurm jobs, as processes of submitit's local executor."""

from __future__ import annotations

import shutil

import pytest
from engine_cells import built_in, cell, comparable, expected

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.engines import engine, run_cells
from anynorm.study.engines.slurm import Described, _job
from anynorm.study.engines.versions import versions
from anynorm.study.store import Store

pytest.importorskip("submitit")


def described(*cells: Cell) -> list[Described]:
    return [(one.to_dict(), 600.0, "late") for one in cells]


def test_records_are_those_of_this_process_and_failures_stop_nothing(store: Store) -> None:
    good = [built_in(0), built_in(1), cell("well")]
    done: list[Cell] = []
    local = engine("slurm:cluster=local,cells=3", 2)
    outcome = run_cells(local, iter([cell("raises"), *good]), store, done=done.append)
    assert set(done) == {cell("raises"), *good}
    assert {one["key"]: comparable(one) for one in store.records()} == expected(good)
    [failure] = outcome.failures
    assert failure.cell == cell("raises")
    assert "on purpose" in failure.reason


@pytest.mark.slow
def test_the_cells_of_a_lost_job_run_alone(store: Store) -> None:
    cells = [cell("well"), cell("dies"), cell("well", seed=1)]
    done: list[Cell] = []
    local = engine("slurm:cluster=local,cells=3", 2)
    outcome = run_cells(local, cells, store, done=done.append)
    assert set(done) == set(cells)
    assert store.present() == {cells[0].key, cells[2].key}
    [failure] = outcome.failures
    assert failure.cell == cell("dies")
    assert "its job was lost 2 times" in failure.reason


def test_a_job_of_another_version_refuses_its_cells(store: Store) -> None:
    why = _job(described(built_in(0)), store, {**versions(), "torch": "1.0"})
    assert "and 1.0 here" in str(why)
    assert not store.present()


def test_a_job_leaves_alone_what_another_has_finished(store: Store) -> None:
    cells = [built_in(0), built_in(1)]
    assert _job(described(cells[0]), store, versions()) == [None]
    before = store.path(cells[0].key).stat().st_mtime_ns
    assert _job(described(*cells), store, versions()) == [None, None]
    assert store.path(cells[0].key).stat().st_mtime_ns == before
    assert store.present() == {one.key for one in cells}


def test_an_option_that_submitit_does_not_know(store: Store) -> None:
    local = engine("slurm:cluster=local,partitoin=short", None)
    with pytest.raises(AnynormError, match="partitoin"):
        run_cells(local, [cell("well")], store, done=lambda _: None)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is installed here")
def test_where_there_is_no_slurm(store: Store) -> None:
    with pytest.raises(AnynormError, match="Run the command where `sbatch` works"):
        run_cells(engine("slurm", None), [cell("well")], store, done=lambda _: None)
