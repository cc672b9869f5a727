"""The search for crossovers: its arithmetic, its shapes and how a path is forced."""

import math

import pytest
from benchmarks import crossover
from benchmarks.crossover import NEVER, SIZES, entry, forced, shape, smallest

from anynorm.ops import crossover as source
from anynorm.ops.crossover import Crossover


def test_the_smallest_size_from_which_all_are_won():
    assert smallest({1: 0.5, 2: 1.1, 4: 0.9, 8: 1.2, 16: 1.3}) == 8
    assert smallest({1: 0.5, 2: 0.9, 4: 0.7}) == NEVER
    assert smallest({4: 1.5, 8: 1.1, 16: 1.3}) == 1  # every size measured, so smaller ones too
    assert smallest({4: 0.7, 8: 1.1, 16: 0.985, 32: 1.2}) == 8  # a tie between two wins


@pytest.mark.parametrize("layout", ["rows", "channels first", "channels last"])
def test_shapes_have_so_many_values(layout):
    assert [math.prod(shape(layout, size)) for size in SIZES] == list(SIZES)


def test_the_table_is_set_for_each_call(monkeypatch):
    key = next(iter(source.TABLE))
    monkeypatch.setattr(source, "TABLE", dict(source.TABLE))
    monkeypatch.setattr(source, "SMALLEST", dict(source.SMALLEST))
    seen = []
    for least in (1, NEVER):
        forced(
            key,
            least,
            lambda: seen.append((source.TABLE[key].plain, source.SMALLEST[key[0]].plain)),
        )()
    assert seen == [(1, 1), (NEVER, NEVER)]


@pytest.mark.parametrize("row", [Crossover(1), Crossover(1 << 15), Crossover(1 << 15, 1 << 12)])
def test_lines_are_python(row):
    line = entry(("batch", "rows"), row)
    assert eval("{" + line + "}", {"Crossover": Crossover}) == {("batch", "rows"): row}


def test_without_kernels_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(crossover.kernels, "available", lambda: False)
    monkeypatch.setattr("sys.argv", ["crossover"])
    with pytest.raises(SystemExit, match="no kernels"):
        crossover.main()
