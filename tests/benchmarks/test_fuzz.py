"""A short differential fuzz, and that it sees what it looks for."""

from __future__ import annotations

import pytest
import torch
from benchmarks import fuzz, fuzz_layers
from benchmarks.fuzz_layers import FoundError


@pytest.mark.filterwarnings("ignore")  # of torch's operators, for the types that are drawn
@pytest.mark.parametrize("target", ["layers", "plans"])  # test_fuzz_records has the others
def test_a_short_fuzz(target: str) -> None:
    counts = fuzz.fuzz([target], 20_000, cases=60)[target]
    assert not counts.failures, counts.failures[0]
    assert sum(counts.backends.values()) == 60
    assert len(counts.backends) > 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["output", "gradient", "buffer"])
def test_a_fault_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fuzz_layers._near
    near = [0]

    def off(name: str, value: torch.Tensor, truth: torch.Tensor, bound: torch.Tensor) -> None:
        if what in name or (what == "buffer" and name.startswith("running")):
            near[0] += 1
            value = value * 1.01 + 0.01
        found(name, value, truth, bound)

    monkeypatch.setattr(fuzz_layers, "_near", off)
    assert any(_fails(seed) for seed in range(300, 330))
    assert near[0]


def _fails(seed: int) -> bool:
    try:
        fuzz_layers.run(seed)
    except FoundError:
        return True
    return False


def test_failures_are_told_by_their_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(seed: int) -> fuzz_layers.Outcome:
        if seed == 7:
            raise FoundError("off")
        return fuzz_layers.Outcome("kernels", 1 << 20)

    monkeypatch.setitem(fuzz.TARGETS, "layers", broken)
    assert fuzz.main(["--target", "layers", "--seed", "5", "--cases", "4"]) == 1
    told = capsys.readouterr().out
    assert "--target layers --seed 7 --cases 1: off" in told
    assert "4 cases: kernels 3 (on 65536 values or more: kernels 3); failures 1" in told


def test_the_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.TARGETS, "layers", lambda _: fuzz_layers.Outcome("torch"))
    assert fuzz.fuzz(["layers"], 0, minutes=0)["layers"].backends.total() == 0
