"""The noisy control: a judgement only where batch norm has a benefit to lose."""

from __future__ import annotations

from typing import Any

from synthetic_records import control_arms, record, star

from anynorm.study.claims.control import QUESTIONS, control_of
from anynorm.study.claims.question import ask
from anynorm.study.selection import studies

SEEDS = range(3)


def claim(records: list[dict[str, Any]]) -> dict[str, Any]:
    [runs] = studies(records)
    return ask(QUESTIONS[0], runs)


def base() -> list[dict[str, Any]]:
    return [record(norm=n, seed=s, probes=True) for n in ("none", "batch", "layer") for s in SEEDS]


def arms(**scores: tuple[float, float, float] | None) -> list[dict[str, Any]]:
    """Return the base and the arms by name, `None` for one that diverged."""
    found = base()
    for name, values in scores.items():
        norm, _, noise = name.partition("_")
        for seed, value in enumerate(values or (0.0,) * 3):
            status = "ok" if values else "diverged"
            final = {"test_accuracy": value}
            options = {"status": status, "final": final, "noise": bool(noise), "probes": True}
            found.append(record(norm=norm, lr=1.0, seed=seed, **options))
    return found


def test_the_four_arms_are_compared_at_the_rate_of_the_control() -> None:
    found = claim([*base(), *control_arms()])
    rows = found["figure"]["panels"][0]["rows"]
    assert [r["label"] for r in rows] == ["none", "none + noise", "batch", "batch + noise"]
    assert "at learning rate 1:" in found["sentence"]
    assert found["figure"]["panels"][1]["title"].startswith("distribution shift")


def test_the_benefit_survives_where_none_diverges_and_noise_does_not_matter() -> None:
    good, noisy = (0.98, 0.97, 0.98), (0.97, 0.972, 0.969)
    found = claim(arms(none=None, none_noise=None, batch=good, batch_noise=noisy))
    assert found["sentence"].startswith("The benefit survives the noise")


def test_the_benefit_is_taken_away_where_noise_brings_batch_norm_down_to_none() -> None:
    low, high = (0.801, 0.80, 0.799), (0.95, 0.951, 0.949)
    found = claim(arms(none=low, none_noise=low, batch=high, batch_noise=low))
    assert found["sentence"].startswith("The noise takes the benefit away")


def test_without_a_benefit_the_control_cannot_tell_and_says_why() -> None:
    same = (0.97, 0.98, 0.975)
    found = claim(arms(none=same, none_noise=same, batch=same, batch_noise=(0.96, 0.97, 0.95)))
    assert found["sentence"].startswith("The control cannot tell: at learning rate 1")
    assert "do not show that batch is better than none" in found["sentence"]


def test_an_old_study_has_its_control_at_the_base_rate() -> None:
    noisy = [record(seed=s, noise=True, probes=True) for s in SEEDS]
    [runs] = studies([*base(), *noisy])
    found = control_of(runs)
    assert found is not None
    assert (found.lr, list(found.arms)) == (0.1, ["none", "batch", "batch + noise"])


def test_without_none_there_is_no_judgement() -> None:
    records = [r for r in [*base(), *control_arms()] if r["cell"]["norm"] != "none"]
    assert claim(records)["sentence"].startswith("The control cannot tell: no model without")


def test_fixed_gamma_and_beta_are_no_control_of_noise() -> None:
    records = [r for r in star(("none", "batch")) if not r["cell"]["noise"]]
    assert (
        claim(records)["missing"]
        == "the noisy control was not run. --noise with none and batch would measure it."
    )
