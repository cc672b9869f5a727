"""The runs beside the star of comparisons."""

from __future__ import annotations

from typing import Any

import pytest

from anynorm.errors import AnynormError
from anynorm.study.cell import Cell
from anynorm.study.experiments import Experiments


def cells(
    *norms: str, noise: bool = True, probes: bool = True, **experiments: Any
) -> list[tuple[str, float, float, bool]]:
    """Return label, learning rate, init factor and probes of what the experiments add."""
    base = [Cell(subject="cnn", data="digits", norm=n, lr=0.1, steps=9, seed=0) for n in norms]
    found = Experiments(**experiments).cells(base, noise=noise, probes=probes)
    return [(cell.label, cell.lr, cell.init, cell.probes) for cell in found]


def test_the_control_trains_at_a_multiple_of_the_base_rate() -> None:
    assert cells("none", "layer", "batch") == [
        ("none", 1.0, 1.0, True),
        ("none + noise", 1.0, 1.0, True),
        ("batch", 1.0, 1.0, True),
        ("batch + noise", 1.0, 1.0, True),
    ]


def test_an_experiment_needs_what_it_compares() -> None:
    assert cells("batch", "layer", probed_inits=(100.0,)) == []
    assert cells("none", "layer", fixed_affine=True) == []


def test_without_noise_there_is_no_control() -> None:
    assert cells("none", "batch", noise=False) == []


def test_other_initial_weights_are_probed() -> None:
    found = cells("none", "batch", noise=False, probed_inits=(100.0,))
    assert found == [("none", 0.1, 100.0, True), ("batch", 0.1, 100.0, True)]


def test_gamma_and_beta_are_fixed_at_the_base_setting() -> None:
    found = cells("none", "batch", noise=False, fixed_affine=True)
    assert found == [("batch, no γ β", 0.1, 1.0, False)]


def test_a_study_without_probes_stays_without() -> None:
    assert not any(probes for *_, probes in cells("none", "batch", probes=False))


def test_an_unknown_budget_is_refused() -> None:
    with pytest.raises(AnynormError, match="budget 'minutes' is unknown"):
        Experiments(budgets=("minutes",))
