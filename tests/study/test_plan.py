"""Which cells a study runs."""

from __future__ import annotations

from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.study.experiments import Experiments
from anynorm.study.plan import StudyPlan


def plan(**changes: Any) -> StudyPlan:
    base: dict[str, Any] = {"subject": "mlp-relu", "data": "digits", "norms": ("none", "batch")}
    base |= {"lr": 0.1, "steps": 100, "batch": 60, "seeds": 2, "noise": False}
    return StudyPlan(**{**base, **changes})


def test_base_cells_alone_are_probed() -> None:
    cells = plan(lrs=(0.1, 1.0), inits=(0.1, 1.0)).star()
    assert [cell.lr for cell in cells if cell.probes] == [0.1] * 4
    # base, lr 1.0 and init 0.1; the base values of the sweeps are the base cells themselves
    assert len(cells) == 3 * 2 * 2


def test_no_run_appears_twice() -> None:
    cells = plan(lrs=(0.05, 0.1), batches=(60, 30), batch_norms=("batch",)).star()
    configurations = [{**cell.to_dict(), "probes": None} for cell in cells]
    assert all(configurations.count(one) == 1 for one in configurations)
    # base, lr 0.05, and batch 30 for batch norm at equal epochs and at equal steps
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 2 * 2 + 2 * 2


def test_variants_run_at_the_base_and_the_learning_rates_near_it_alone() -> None:
    rates = (0.01, 2.0, 0.05, 9.0, 0.1, 0.5)
    swept = {"lrs": rates, "inits": (0.1, 1.0), "placements": ("before", "after")}
    cells = plan(**swept, norms=("batch", "l1-batch"), variants=("l1-batch",), seeds=1).star()
    found = {(cell.lr, cell.init, cell.placement) for cell in cells if cell.norm == "l1-batch"}
    assert found == {(lr, 1.0, "before") for lr in (0.05, 0.1, 0.5, 2.0)}
    assert len([cell for cell in cells if cell.norm == "batch"]) == 8


def test_without_a_normalizer_nothing_is_placed() -> None:
    found = plan(placements=("before", "after"), seeds=1).star()
    assert [(cell.norm, cell.placement) for cell in found] == [
        ("none", "before"),
        ("batch", "before"),
        ("batch", "after"),
    ]


def sizes(**changes: Any) -> dict[int, set[tuple[float, int]]]:
    """Return the learning rates and steps of batch norm at each batch size."""
    found: dict[int, set[tuple[float, int]]] = {}
    for cell in plan(batches=(30, 4, 2), batch_norms=("batch",), seeds=1, **changes).star():
        if cell.norm == "batch":
            found.setdefault(cell.batch, set()).add((cell.lr, cell.steps))
        assert cell.norm == "batch" or cell.batch == 60
    return found


def test_a_warm_up_lasts_for_as_many_samples_with_any_batch_size() -> None:
    budget = Experiments(budgets=("epochs",))
    changes = {"batches": (30, 120), "batch_norms": ("batch",), "experiments": budget}
    cells = plan(**changes, seeds=1, warmup=20).star()
    found = {cell.batch: cell.warmup for cell in cells if cell.norm == "batch"}
    assert found == {60: 20, 30: 40, 120: 10}


def test_every_cell_has_the_optimizer_of_the_study() -> None:
    settings = {"optimizer": "adamw", "weight_decay": 0.1, "warmup": 5}
    for cell in plan(**settings, lrs=(0.1, 1.0)).star():
        assert {name: getattr(cell, name) for name in settings} == settings


def test_batch_sizes_at_equal_epochs_see_as_many_samples() -> None:
    found = sizes(experiments=Experiments(budgets=("epochs",)))
    assert found[60] == {(0.1, 100)}
    assert found[30] == {(0.05, 200)}
    assert found[4] == {(0.00666667, 1500)}
    assert found[2] == {(0.00333333, 3000)}


def test_batch_sizes_at_equal_steps_have_the_same_rates() -> None:
    found = sizes(experiments=Experiments(budgets=("steps",)))
    assert found[2] == {(0.00333333, 100)}
    both = sizes()
    assert both[60] == {(0.1, 100)}
    assert both[2] == {(0.00333333, 100), (0.00333333, 3000)}


def test_the_noisy_control_has_four_probed_arms_at_a_large_rate() -> None:
    cells = plan(noise=True, seeds=1, experiments=Experiments(control=3.0)).star()
    arms = [(cell.norm, cell.noise) for cell in cells if cell.lr == 0.3 and cell.probes]
    assert arms == [("none", False), ("none", True), ("batch", False), ("batch", True)]
    assert not [cell for cell in cells if cell.noise and cell.lr != 0.3]


def test_the_control_probes_the_runs_of_the_sweep_at_its_rate() -> None:
    cells = plan(noise=True, lrs=(0.1, 1.0), norms=("none", "batch", "layer"), seeds=1).star()
    at_control = {cell.norm: cell.probes for cell in cells if cell.lr == 1.0 and not cell.noise}
    assert at_control == {"none": True, "batch": True, "layer": False}


def test_placements_vary_around_the_first() -> None:
    cells = plan(placements=("after", "before"), norms=("batch",), seeds=1).star()
    assert [(cell.placement, cell.probes) for cell in cells] == [("after", True), ("before", False)]


def test_product_has_every_combination() -> None:
    chosen = plan(
        lrs=(0.1, 1.0), inits=(1.0, 2.0, 3.0), batches=(60, 30), placements=("before", "after")
    )
    cells = chosen.product()
    assert len([cell for cell in cells if cell.steps == 200 or cell.batch == 60]) == 96
    assert sum(cell.probes for cell in cells) == 4
    assert {cell.lr for cell in cells if cell.batch == 30} == {0.05, 0.5}


def test_options_of_a_normalizer_reach_its_cells() -> None:
    (cell,) = plan(norms=("group:groups=4",), seeds=1).star()
    assert (cell.norm, cell.norm_options) == ("group", (("groups", 4),))


def test_at_least_one_seed() -> None:
    with pytest.raises(AnynormError, match="seeds is 0"):
        plan(seeds=0)
