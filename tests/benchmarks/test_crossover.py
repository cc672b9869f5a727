"""The search for crossovers: its arithmetic, its shapes and how a path is forced."""

import math

import pytest
from benchmarks import crossover
from benchmarks.crossover import GPU_SIZES, NEVER, entry, forced, place, shape, smallest

from anynorm.bench.timing import events
from anynorm.ops import dispatch_thresholds as source
from anynorm.ops.dispatch_thresholds import Crossover


def test_the_smallest_size_from_which_all_are_won():
    assert smallest({1: 0.5, 2: 1.1, 4: 0.9, 8: 1.2, 16: 1.3}) == 8
    assert smallest({1: 0.5, 2: 0.9, 4: 0.7}) == NEVER
    assert smallest({4: 1.5, 8: 1.1, 16: 1.3}) == 1  # every size measured, so smaller ones too
    assert smallest({4: 0.7, 8: 1.1, 16: 0.985, 32: 1.2}) == 8  # a tie between two wins


@pytest.mark.parametrize("layout", ["rows", "channels first", "channels last"])
def test_shapes_have_so_many_values(layout):
    assert [math.prod(shape(layout, size)) for size in GPU_SIZES] == list(GPU_SIZES)


@pytest.fixture
def here(monkeypatch):
    """Kernels for both devices, and copies of the tables, which measurements write to."""
    for name in ("TABLE", "SMALLEST", "GPU_TABLE", "GPU_SMALLEST"):
        monkeypatch.setattr(source, name, dict(getattr(source, name)))
    for found in (crossover.kernels, crossover.kernels.cuda):
        monkeypatch.setattr(found, "available", lambda: True)
    monkeypatch.setattr(crossover, "resolve", lambda name: name)


@pytest.mark.parametrize(("device", "prefix"), [("cpu", ""), ("cuda:0", "GPU_")])
def test_the_table_is_set_for_each_call(device, prefix, here):
    table, least = getattr(source, f"{prefix}TABLE"), getattr(source, f"{prefix}SMALLEST")
    key, where = next(iter(table)), place(device)
    seen = []
    for size in (1, NEVER):
        forced(where, key, size, lambda: seen.append((table[key].plain, least[key[0]].plain)))()
    assert (where.name, max(where.sizes)) == (f"{prefix}TABLE", 1 << (26 if prefix else 22))
    assert seen == [(1, 1), (NEVER, NEVER)]


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["crossover", *arguments])
    crossover.main()


def test_both_paths_are_timed_and_the_table_is_printed(here, monkeypatch, capsys):
    calls = []

    def alternate(named, budget, seconds):
        for call in named.values():
            call()
        calls.append(tuple(named))
        return {"ours": [1.0, 1.0], "torch": [2.0, 2.0]}

    monkeypatch.setattr(crossover, "alternate", alternate)
    monkeypatch.setattr(crossover, "SIZES", (1 << 10, 1 << 11))
    run(monkeypatch, "--only", "rms", "--allocator", "default")
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        f"rms/rows {fusion}: 2^10 2.00  2^11 2.00" for fusion in ("plain", "relu")
    ]
    assert printed[2:] == [
        "TABLE: dict[tuple[str, str], Crossover] = {",
        '    ("rms", "rows"): Crossover(1, 1, 64),',
        "}",
    ]
    assert calls == [("ours", "torch")] * 8  # two sizes, plain and fused, forward and both


def test_a_gpu_is_timed_by_its_events_in_its_own_table(here, monkeypatch, capsys):
    seen = []

    def alternate(named, budget, seconds):
        seen.append(seconds)
        return {"ours": [2.0, 2.0], "torch": [1.0, 1.0]}

    def inputs(case, device):
        seen.append((device, case.values))
        return case

    for name, double in {
        "alternate": alternate,
        "inputs": inputs,
        "ours": lambda case, device: seen.append(device),
        "step": lambda case, layer, given: None,
        "GPU_SIZES": (1 << 26,),
    }.items():
        monkeypatch.setattr(crossover, name, double)
    monkeypatch.setattr(crossover, "adopt", lambda *given: seen.append(given))
    run(monkeypatch, "--only", "layer", "--device", "cuda:0")
    assert seen[0] == ("cuda:0", "default", None)
    assert seen[1:4] == ["cuda:0", ("cuda:0", 1 << 26), events]
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "GPU_TABLE: dict[tuple[str, str], Crossover] = {",
        '    ("layer", "rows"): Crossover(1 << 62, 1 << 62, 128),',
        "}",
    ]


@pytest.mark.parametrize("row", [Crossover(1), Crossover(1 << 15), Crossover(1 << 15, 1 << 12)])
def test_lines_are_python(row):
    line = entry(("batch", "rows"), row)
    assert eval("{" + line + "}", {"Crossover": Crossover}) == {("batch", "rows"): row}


def test_without_kernels_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(crossover.kernels, "available", lambda: False)
    with pytest.raises(SystemExit, match="no kernels"):
        run(monkeypatch)


def test_what_cannot_be_is_said_in_one_line(here, monkeypatch):
    monkeypatch.setattr("anynorm.tune_allocator", lambda: False)
    with pytest.raises(SystemExit, match=r"freed memory cannot be kept here.*default alone\.$"):
        run(monkeypatch)
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="there is no device 'gpu'"):
        run(monkeypatch, "--device", "gpu")
