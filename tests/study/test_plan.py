"""Which cells a study runs."""

from __future__ import annotations

from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.study.plan import Plan


def plan(**changes: Any) -> Plan:
    base: dict[str, Any] = {"subject": "mlp-relu", "data": "digits", "norms": ("none", "batch")}
    base |= {"lr": 0.1, "steps": 100, "batch": 60, "seeds": 2, "noise": False}
    return Plan(**{**base, **changes})


def test_base_cells_alone_are_probed() -> None:
    cells = plan(lrs=(0.1, 1.0), inits=(0.1, 1.0)).star()
    assert [cell.lr for cell in cells if cell.probes] == [0.1] * 4
    # base, lr 1.0 and init 0.1; the base values of the sweeps are the base cells themselves
    assert len(cells) == 3 * 2 * 2


def test_no_run_appears_twice() -> None:
    cells = plan(lrs=(0.05, 0.1), batches=(60, 30), batch_norms=("batch",)).star()
    configurations = [{**cell.to_dict(), "probes": None} for cell in cells]
    assert all(configurations.count(one) == 1 for one in configurations)
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 * 2 + 2


def test_batch_sizes_see_as_many_samples_at_a_rate_in_proportion() -> None:
    cells = plan(batches=(30, 4, 2), batch_norms=("batch",), seeds=1).star()
    found = {cell.batch: (cell.lr, cell.steps) for cell in cells if cell.norm == "batch"}
    assert found == {60: (0.1, 100), 30: (0.05, 200), 4: (0.00666667, 1500), 2: (0.00333333, 3000)}
    assert not [cell for cell in cells if cell.norm == "none" and cell.batch != 60]


def test_a_warm_up_lasts_for_as_many_samples_with_any_batch_size() -> None:
    cells = plan(batches=(30, 120), batch_norms=("batch",), seeds=1, warmup=20).star()
    found = {cell.batch: cell.warmup for cell in cells if cell.norm == "batch"}
    assert found == {60: 20, 30: 40, 120: 10}


def test_every_cell_has_the_optimizer_of_the_study() -> None:
    settings = {"optimizer": "adamw", "weight_decay": 0.1, "warmup": 5}
    for cell in plan(**settings, lrs=(0.1, 1.0)).star():
        assert {name: getattr(cell, name) for name in settings} == settings


def test_noise_control_accompanies_batch_norm_in_the_base_comparison() -> None:
    noisy = [cell for cell in plan(noise=True, lrs=(1.0,)).star() if cell.noise]
    assert [(cell.norm, cell.lr, cell.probes) for cell in noisy] == [("batch", 0.1, True)] * 2


def test_placements_vary_around_the_first() -> None:
    cells = plan(placements=("after", "before"), norms=("batch",), seeds=1).star()
    assert [(cell.placement, cell.probes) for cell in cells] == [("after", True), ("before", False)]


def test_product_has_every_combination() -> None:
    chosen = plan(
        lrs=(0.1, 1.0), inits=(1.0, 2.0, 3.0), batches=(60, 30), placements=("before", "after")
    )
    cells = chosen.product()
    assert len(cells) == 2 * 3 * 2 * 2 * 2 * 2
    assert sum(cell.probes for cell in cells) == 4
    assert {cell.lr for cell in cells if cell.batch == 30} == {0.05, 0.5}


def test_options_of_a_normalizer_reach_its_cells() -> None:
    (cell,) = plan(norms=("group:groups=4",), seeds=1).star()
    assert (cell.norm, cell.norm_options) == ("group", (("groups", 4),))


def test_at_least_one_seed() -> None:
    with pytest.raises(AnynormError, match="seeds is 0"):
        plan(seeds=0)
