"""Results as words."""

from benchmarks.speed.show import behind, behind_lines, line, opening, parts, warning
from unmeasured import gpu_result


def test_a_line_of_the_terminal(results):
    row = results[0]["cases"][3]
    assert "eager 0.50 [0.50, 0.50]" in line(row)
    assert "20.00 copies" in line(row)
    assert next(words for words, bad in parts(row) if bad).strip().startswith("eager")


def test_failures_are_in_the_line(results):
    row = {**results[0]["cases"][0], "failed": {"liger": "RuntimeError: no"}}
    assert line(row).endswith("liger failed: RuntimeError: no")
    assert line({"name": "a", "failed": {"process": "it died"}}).endswith("process failed: it died")


def test_a_busy_machine_is_told(results):
    about = {**results[0]["about"], "cores": 2, "load": 0.1}
    assert warning(about) == ""
    assert "busy (load 3.5 on 2 cores)" in warning({**about, "load": 3.5})


def test_what_is_behind(results):
    lost = behind(results[0]["cases"])
    lines = list(behind_lines(results[0]["cases"]))
    assert len(lines) == len(lost) + sum(map(len, lost.values()))
    assert lines[0] == f"behind eager in {len(lost['eager'])} of {len(results[0]['cases'])} cases"
    assert lines[1].startswith("  0.50  ")


def test_the_opening_names_the_machine_and_who_is_absent():
    about = {**gpu_result("rows")["about"], "load": None}
    assert list(opening(about)) == [
        f"NVIDIA H200, driver 1.2; torch {about['torch']}; allocator: default",
        "not installed: apex",
    ]
