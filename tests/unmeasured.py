"""Results of the benchmark that nobody measured, as a processor and a GPU would give them."""

import load_benchmarks  # noqa: F401
import pytest
from benchmarks.result_files import about
from benchmarks.speed.grids import CASES, GRIDS, compiles
from benchmarks.speed.measure import row

__all__ = ["gpu_result", "processor_results", "results"]

GPU = {"name": "NVIDIA H200", "driver": "1.2", "l2_bytes": 60 << 20, "multiprocessors": 132}


@pytest.fixture
def results():
    """Both settings of a machine, with every case; every tenth is slower than its peers."""
    return processor_results()


def processor_results():
    def case(index, case):
        ours = 2.0 if index % 10 == 3 else 0.25 + index % 4 * 0.1
        return made(case, ours, {"compile": 1.5} if compiles(case) else {})

    cases = [case(index, found) for index, found in enumerate(CASES)]
    return [{"about": about(setting, {}), "cases": cases} for setting in ("default", "kept")]


def made(case, ours, others=(), copy=0.1, eager=1.0, kept=0.5):
    """A row in which nothing varies, with times in seconds."""
    times = {"ours": ours, "eager": eager, **dict(others), "copy": copy}
    memory = {name: {"bytes": 8 * case.values, "x": 4 * case.values} for name in times}
    memory["ours"] = {"bytes": int(8 * kept * case.values), "x": 0}
    del memory["copy"]
    return row(case, {name: [time] * 3 for name, time in times.items()}, memory)


def gpu_result(grid, ours=0.1, **options):
    """Every case of a grid on a GPU, ours as fast as a copy unless it is told otherwise."""
    cases = [made(case, ours, **options) for case in GRIDS[grid]]
    settings = {"peers": ["eager"], "not_installed": ["apex"]}
    described = {**about("default", settings), "device": "cuda:0", "gpu": GPU}
    return {"about": {**described, "wanted": len(cases)}, "cases": cases, "failed": []}
