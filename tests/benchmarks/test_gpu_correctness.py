"""The tests of the kernels in a given time: what is written of them, as it comes."""

import importlib.util
import json

import load_benchmarks  # noqa: F401
import pytest
from benchmarks import gpu_correctness, gpu_page
from benchmarks.gpu_correctness import OUTCOMES, correctness, outcome_lines

TESTS = """
import torch
from anynorm.kernels.triton import operators

ROW = (torch.randn(4, 8), None, None, None, [1], True, True, 2.0, 1.0, 1e-5, "identity")

def test_that_passes():
    operators.standardize(*ROW)

def test_that_fails():
    operators.standardize(*ROW)
    assert False, "the values differ"

def test_that_breaks_the_device():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def test_in_another_process():
    pass
"""


@pytest.fixture
def tests(monkeypatch, tmp_path):
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    monkeypatch.setattr(gpu_correctness, "TESTS", (str(file),))
    monkeypatch.setattr(gpu_correctness, "SANITIZER", "no-such-program")
    monkeypatch.setattr(gpu_correctness, "_PROCESSES", 1)
    monkeypatch.setenv("PYTEST_ADDOPTS", f"--rootdir {tmp_path} -c /dev/null")
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_outcomes_are_written_as_they_come_with_the_launches_of_failures(tests):
    out = tests / "out"
    correctness(out, 120.0)
    lines = [json.loads(line) for line in (out / OUTCOMES).read_text().splitlines()]
    found = {line["test"].partition("::")[2]: line for line in lines}
    assert found["test_that_passes"]["outcome"] == "passed"
    failed = found["test_that_fails"]
    assert failed["outcome"] == "failed"
    assert "the values differ" in failed["words"]
    [launch] = failed["launches"]
    assert launch["tensors"]["x"] == "(4, 8) (8, 1) float32"
    assert launch["grid"][1:] == [1, 1]
    assert launch["arguments"]
    # The process that it broke ended in front of the next test.
    assert found["test_that_breaks_the_device"]["outcome"] == "failed"
    assert found.get("test_in_another_process", {"outcome": "failed"})["outcome"] == "failed"
    words = "\n".join(outcome_lines(out))
    assert "failed" in words
    assert "the values differ" in words
    assert gpu_page.summarize(out) == words
    assert (out / "summary.md").read_text() == words + "\n"


def test_nothing_is_said_where_nothing_was_tested(tmp_path):
    assert list(outcome_lines(tmp_path)) == []
    assert gpu_page.summarize(tmp_path) == "nothing was measured"
