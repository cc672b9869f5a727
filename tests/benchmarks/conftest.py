"""Make `benchmarks`, which is not installed, importable; and results that nobody measured."""

import load_benchmarks  # noqa: F401
import pytest


@pytest.fixture
def results():
    """Both settings of a machine, with every case; every tenth is slower than its peers."""
    from benchmarks.cases import CASES
    from benchmarks.measure import row
    from benchmarks.results import about

    def case(index, case):
        ours = 2.0 if index % 10 == 3 else 0.25 + index % 4 * 0.1
        peers = {"eager": [1.0] * 3, **({"compile": [1.5] * 3} if case.compiles else {})}
        memory = {
            name: {"bytes": 4 * case.values, "x": 4 * case.values} for name in ("ours", *peers)
        }
        return row(case, {"ours": [ours] * 3, **peers, "copy": [0.1] * 3}, memory)

    cases = [case(index, found) for index, found in enumerate(CASES)]
    return [{"about": about(setting, {}), "cases": cases} for setting in ("default", "kept")]
