"""`tune_allocator`, in processes of its own: it cannot be undone."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys

import pytest

import anynorm
from anynorm.kernels import allocator

ON_GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
PRELOADED = "LD_PRELOAD" in os.environ  # as in `make sanitize`
KEEPS = """
import resource, torch, anynorm
assert anynorm.info().allocator == "as the system has it"
assert anynorm.tune_allocator() and anynorm.tune_allocator()
assert anynorm.info().allocator == "keeps freed memory (tune_allocator)"

def faults_of_a_tensor(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
# Each fits where the one before was freed: an aligned block asks for a little more than it gets.
print(*(faults_of_a_tensor(12_000_000 - 10_000 * number) for number in range(15)))
"""


@pytest.mark.skipif(not ON_GLIBC or PRELOADED, reason="only glibc's own allocator can be tuned")
def test_freed_memory_is_kept() -> None:
    done = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    faults = [int(count) for count in done.stdout.split()]
    assert statistics.median(faults) < 1000, faults  # a fresh tensor has more than 11,000 pages


def test_elsewhere_nothing_is_changed_and_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_state", "")
    monkeypatch.setattr("sys.platform", "darwin")
    assert anynorm.tune_allocator() is False
    assert "only glibc on Linux" in anynorm.info().allocator


def test_another_allocator_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_state", "")
    monkeypatch.setattr(allocator, "_allocates", lambda libc: False)
    monkeypatch.setattr("sys.platform", "linux")
    assert anynorm.tune_allocator() is False
    assert "glibc" in anynorm.info().allocator
