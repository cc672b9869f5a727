"""A short fuzz of damaged records; `python -m benchmarks.fuzz_records` runs it longer."""

from __future__ import annotations

import load_benchmarks  # noqa: F401
import pytest
from benchmarks import fuzz_records

CASES = 24
MENDED = (204663, 210823)  # went wrong once


@pytest.mark.parametrize("seed", [*range(CASES), *MENDED])
def test_damaged_records_give_a_page_that_says_what_is_missing(seed: int) -> None:
    problem = fuzz_records.failure(fuzz_records.case(seed))
    assert problem is None, f"seed {seed}: {problem}"


def test_a_case_is_reproducible_and_the_damage_is_real() -> None:
    assert repr(fuzz_records.case(3)) == repr(fuzz_records.case(3))
    texts = {repr(fuzz_records.case(seed)) for seed in range(CASES)}
    assert len(texts) == CASES


def test_what_goes_wrong_is_found_and_told_with_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> dict[str, object]:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(fuzz_records, "build", broken)
    told: list[str] = []
    assert fuzz_records.run(7, 2, told.append) == told
    assert len(told) == 2
    assert told[1].startswith("records, seed 8: ")
    assert "on purpose" in told[1]
