"""More seeds where they can still change an answer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import record

from anynorm.errors import AnynormError
from anynorm.study import study
from anynorm.study.sequential import could_tell, looks, open_comparisons, seeds_to_add


def runs(scores: dict[str, float], spread: float, seeds: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(1)
    return [
        record(
            norm=norm,
            seed=seed,
            lr=lr,
            status="ok",
            final={
                "test_accuracy": score + spread * rng.uniform(-1, 1),
                "train_loss": 0.1 if lr == 0.3 else 0.5,
            },
        )
        for norm, score in scores.items()
        for seed in range(seeds)
        for lr in (0.1, 0.3)
    ]


def test_looks_are_fixed_and_end() -> None:
    assert looks(3) == [3, 5, 8, 13, 21, 32]
    assert looks(1)[:3] == [1, 3, 5]
    assert looks(40) == [40]


def test_only_comparisons_that_seeds_could_decide_are_open() -> None:
    records = runs({"none": 0.9, "batch": 0.97, "layer": 0.915}, 0.015)
    found = [c for c in open_comparisons(records, None, 6) if could_tell(c)]
    assert ("layer", "none") in {(c["a"], c["b"]) for c in found}
    assert ("batch", "none") not in {(c["a"], c["b"]) for c in found}


def test_seeds_are_added_at_the_chosen_rate_to_what_is_open() -> None:
    records = runs({"none": 0.9, "batch": 0.97, "layer": 0.915}, 0.015)
    found = [c for c in open_comparisons(records, None, 6) if c["a"] == "layer"][:1]
    cells = seeds_to_add(records, found, 5)
    assert {(cell.norm, cell.seed) for cell in cells} == {
        (norm, seed) for norm in ("layer", found[0]["b"]) for seed in (3, 4)
    }
    assert {cell.lr for cell in cells} == {0.3}
    assert not any(cell.probes for cell in cells)


def test_more_seeds_follow_the_first_one() -> None:
    records = runs({"none": 0.9, "batch": 0.97}, 0.01)
    for one in records:
        one["cell"]["seed"] += 10
    cells = seeds_to_add(records, [{"a": "batch", "b": "none"}], 5)
    assert {cell.seed for cell in cells} == {13, 14}


SMALL: dict[str, Any] = {"norms": ["none", "batch"], "lrs": [], "inits": [], "batches": []}
SMALL |= {"steps": 5, "seeds": 2, "placements": ["before"], "refine": 0, "noise": False}
SMALL |= {"workers": 2, "probes": False}


def test_a_study_grows_until_it_is_decided_and_resumes(tmp_path: Path) -> None:
    found = study(**SMALL, store=tmp_path, until_decided=True, margin=5.0)
    assert found.looks == len(looks(2))
    assert found.stopped in ("decided", "most seeds", "more seeds would not decide")
    assert len(found.records) > 4
    assert not found.evidence["partial"]
    again = study(**SMALL, store=tmp_path, until_decided=True, margin=5.0)
    assert again.reused == again.planned == found.planned
    assert again.verdict == found.verdict


def test_a_study_ends_when_time_is_over(tmp_path: Path) -> None:
    found = study(**SMALL, store=tmp_path, minutes=0.01)
    assert found.stopped == "out of time"
    assert len(found.records) >= 1
    assert found.evidence["stopped"] == "out of time"


@pytest.mark.parametrize("name", ["minutes", "margin"])
def test_limits_must_be_positive(name: str, tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match=f"{name} is 0; it must be positive"):
        study(**SMALL, store=tmp_path, **{name: 0})
