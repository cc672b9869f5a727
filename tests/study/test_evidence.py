"""Evidence from records: sweeps found, seeds summarised, diverged runs kept, gaps survived."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import record, star

from anynorm.report import html
from anynorm.study.cell import label
from anynorm.study.claims import QUESTIONS
from anynorm.study.claims.curves import probe
from anynorm.study.evidence import build
from anynorm.study.selection import setting, studies, sweep


def evidence(records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return build(records, title="a study", command="anynorm study", **options)


def claims(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {claim["id"]: claim for claim in evidence(records)["studies"][0]["claims"]}


def rows(claim: dict[str, Any], table: int = 0) -> dict[str, dict[str, Any]]:
    found = claim["tables"][table]
    return {row[0]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}


@pytest.fixture(scope="module")
def full() -> list[dict[str, Any]]:
    return star()


def test_a_whole_study_answers_every_question(full: list[dict[str, Any]]) -> None:
    study = evidence(full)["studies"][0]
    assert study["missing"] == []
    assert len(study["claims"]) == len(QUESTIONS)


def test_evidence_is_plain_json_without_nan(full: list[dict[str, Any]]) -> None:
    found = evidence(full)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_order_of_the_records_does_not_change_the_numbers(full: list[dict[str, Any]]) -> None:
    shuffled = copy.copy(full)
    random.Random(0).shuffle(shuffled)
    one, other = claims(full), claims(shuffled)
    for name in ("base", "lr", "loss-range", "flow"):
        assert rows(one[name]) == rows(other[name])


def test_the_base_setting_is_the_probed_one(full: list[dict[str, Any]]) -> None:
    [runs] = studies(full)
    assert runs.base == (0.1, 1.0, 60, "before", 300, 0)


def test_without_probes_the_base_setting_is_the_centre_of_the_star(
    full: list[dict[str, Any]],
) -> None:
    unprobed = [{**r, "probes": None} for r in full]
    [runs] = studies(unprobed)
    assert runs.base == (0.1, 1.0, 60, "before", 300, 0)


@pytest.mark.parametrize(("factor", "count"), [("lr", 7), ("init", 7), ("placement", 2)])
def test_a_sweep_varies_one_factor_alone(
    full: list[dict[str, Any]], factor: str, count: int
) -> None:
    [runs] = studies(full)
    found = sweep(runs, factor)
    assert len({r["cell"][factor] for r in found}) == count
    others = [name for name in ("lr", "init", "batch", "placement", "steps") if name != factor]
    assert all(len({r["cell"][name] for r in found}) == 1 for name in others)


def test_the_batch_sweep_scales_the_learning_rate_at_equal_epochs(
    full: list[dict[str, Any]],
) -> None:
    [runs] = studies(full)
    cells = [r["cell"] for r in sweep(runs, "batch")]
    assert {c["batch"] for c in cells} == {2, 4, 8, 16, 32, 60, 120}
    assert all(c["lr"] / c["batch"] == pytest.approx(0.1 / 60) for c in cells)
    assert all(c["steps"] * c["batch"] == pytest.approx(300 * 60, rel=0.05) for c in cells)


def test_a_batch_sweep_at_a_fixed_learning_rate_is_not_taken_for_a_scaled_one() -> None:
    records = [
        record(norm=n, batch=b, steps=18000 // b) for n in ("none", "batch") for b in (8, 60)
    ]
    assert "batch" not in claims(records)


def test_a_learning_rate_from_arithmetic_meets_the_one_that_was_typed() -> None:
    typed, computed = record(lr=0.3), record(lr=0.1 + 0.2)
    assert typed["cell"]["lr"] != computed["cell"]["lr"]
    assert setting(typed) == setting(computed)


def test_labels_name_options_and_noise() -> None:
    options = [["groups", 8]]
    assert label({"norm": "group", "norm_options": options}) == "group(groups=8)"
    assert label({"norm": "batch", "norm_options": [], "noise": True}) == "batch + noise"


def test_loss_range_and_gradient_distance_are_given_as_ratios(full: list[dict[str, Any]]) -> None:
    for name, expected in (("loss-range", 20), ("predictiveness", 20)):
        claim = claims(full)[name]
        row = rows(claim)["batch"]
        assert row["reference / normalizer"] == pytest.approx(expected, rel=0.25)
        assert row["interval from"] < row["reference / normalizer"] < row["interval to"]
        assert claim["status"] == "shown"


def test_early_means_are_over_steps_not_over_measurements() -> None:
    records = [record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in range(3)]
    for r in records:  # many measurements at the start must not outweigh the rest
        for column in r["probes"]["landscape"].values():
            column[:] = column[:4]
        r["probes"]["landscape"] |= {"step": [0, 1, 2, 100], "loss_range": [9.0, 9.0, 1.0, 1.0]}
    expected = (9.0 + 5.0 + 98.0) / 100
    assert rows(claims(records)["loss-range"])["none"]["geometric mean"] == pytest.approx(expected)


def test_early_means_stop_at_step_100() -> None:
    records = [record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in range(3)]
    for r in records:
        landscape = r["probes"]["landscape"]
        landscape["loss_range"] = [1.0 if s <= 100 else 1e6 for s in landscape["step"]]
    assert rows(claims(records)["loss-range"])["none"]["geometric mean"] == pytest.approx(1.0)


def test_beta_is_never_shown_without_eta_beta(full: list[dict[str, Any]]) -> None:
    panels = claims(full)["smoothness"]["figure"]["panels"]
    assert [panel["title"] for panel in panels] == ["β", "η·β"]


def test_a_diverged_run_is_counted_and_is_the_worst() -> None:
    records = [record(norm="none", seed=s) for s in range(2)]
    records += [record(norm="batch", seed=s, status="diverged" if s else "ok") for s in range(3)]
    found = claims(records)["base"]
    row = rows(found, 1)["batch"]
    assert (row["seeds"], row["diverged"]) == (3, 2)
    assert row["held-out accuracy: median"] == "diverged"
    assert row["held-out accuracy: low"] == "diverged"
    assert row["held-out accuracy: high"] > 0.9
    assert "Diverged: batch in 2 of 3 runs." in found["sentence"]


def test_a_curve_counts_a_run_that_stopped_as_the_worst_from_there_on() -> None:
    records = [record(norm="none", seed=s, status="diverged" if s < 2 else "ok") for s in range(3)]
    records.append(record(norm="batch"))
    curve = claims(records)["training"]["figure"]["panels"][0]["series"]["none"]
    assert curve["median"][0] is not None
    assert curve["median"][-1] is None
    assert curve["low"][-1] is not None


def test_an_early_mean_over_a_run_that_diverged_early_is_the_worst() -> None:
    records = [record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in range(3)]
    records[0] = record(norm="none", seed=0, probes=True, status="diverged")
    row = rows(claims(records)["loss-range"])["none"]
    assert row["highest"] == "diverged"
    assert row["diverged"] == 1


def test_a_first_measurement_without_a_predecessor_is_no_divergence() -> None:
    records = [record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in range(3)]
    for r in records:
        r["probes"]["units"]["wasserstein"][0] = [None] * 3
    row = rows(claims(records)["shift-distribution"])["batch"]
    assert row["diverged"] == 0
    assert row["geometric mean"] > 0


def test_a_regression_is_judged_by_its_held_out_loss() -> None:
    options = {"subject": "deep-linear", "data": "gaussian", "task": "regression"}
    records = [
        record(norm=n, seed=s, lr=lr, **options)
        for n in ("none", "batch")
        for s in range(3)
        for lr in (0.1, 1.0)
    ]
    study = evidence(records)["studies"][0]
    assert study["score"] == {"name": "held-out loss", "percent": False}
    assert {m["title"] for m in study["missing"]} >= {"Do training and evaluation mode agree?"}
    ranking = study["verdict"]["ranking"]
    assert ranking[0]["score"]["median"] < ranking[-1]["score"]["median"]


def test_the_train_eval_gap_has_a_third_point() -> None:
    records = [record(subject="rnn", norm=n, seed=s) for n in ("none", "batch") for s in range(3)]
    found = claims(records)["modes"]
    marks = {row["mark"] for row in found["figure"]["panels"][0]["rows"]}
    assert marks == {"evaluation mode", "training mode", "recomputed statistics"}
    assert "batch" in found["sentence"]


def test_a_diverged_run_has_no_generalization_gap_and_is_counted() -> None:
    records = [record(norm=norm, seed=seed) for norm in ("none", "batch") for seed in range(3)]
    records[0] = record(norm="none", seed=0, status="diverged")
    found = build(records, title="", command="")["studies"][0]["claims"]
    gap = next(claim for claim in found if claim["id"] == "generalization")
    none = rows(gap, 1)["none"]
    assert (none["seeds"], none["diverged"], none["highest"]) == (3, 1, "diverged")
    assert "diverged]" in gap["sentence"].split("At equal steps")[1]


def test_the_control_is_compared_but_never_ranked(full: list[dict[str, Any]]) -> None:
    study = evidence(full)["studies"][0]
    names = [row["label"] for row in claims(full)["control"]["figure"]["panels"][0]["rows"]]
    assert set(names) == {"none", "none + noise", "batch", "batch + noise"}
    assert "batch + noise" not in {entry["label"] for entry in study["verdict"]["ranking"]}


def test_costs_are_beside_the_model_without_normalization(full: list[dict[str, Any]]) -> None:
    row = rows(claims(full)["cost"])["batch"]
    assert row["kept for backward, × none: median"] == pytest.approx(1.9)
    assert row["time per step, × none: median"] == pytest.approx(1.6, rel=0.3)


def test_each_subject_is_a_study_of_its_own() -> None:
    records = [record(subject=s, norm=n) for s in ("cnn", "rnn") for n in ("none", "batch")]
    assert [study["subject"] for study in evidence(records)["studies"]] == ["cnn", "rnn"]


def test_a_store_with_fewer_runs_than_planned_is_partial(full: list[dict[str, Any]]) -> None:
    assert evidence(full[:10], planned=480)["partial"]
    assert not evidence(full, planned=len(full))["partial"]


def test_failed_runs_are_listed_by_their_reason(full: list[dict[str, Any]]) -> None:
    failures = [("run 1", "too small\n"), ("run 2", "odd"), ("run 3", "odd")]
    assert evidence(full[:10], planned=13, failures=failures)["failures"] == [
        {"reason": "odd", "runs": ["run 2", "run 3"]},
        {"reason": "too small", "runs": ["run 1"]},
    ]


def test_the_cost_of_probing_is_that_of_the_probed_runs(full: list[dict[str, Any]]) -> None:
    assert evidence(full)["probing"]["share"] == pytest.approx(0.4)
    assert evidence([record()])["probing"]["share"] is None


@pytest.mark.parametrize("seed", range(12))
def test_any_part_of_a_study_gives_evidence(full: list[dict[str, Any]], seed: int) -> None:
    rng = random.Random(seed)
    part = rng.sample(full, rng.choice([1, 2, 5, 20, 80]))
    for study in evidence(part)["studies"]:
        assert len(study["claims"]) + len(study["missing"]) == len(QUESTIONS)
        assert all(item["reason"].endswith(".") for item in study["missing"])


def cut_short(value: Any, rng: random.Random, key: str = "") -> Any:
    """Return `value` with parts of it gone, as a damaged or older record might have it."""
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if rng.random() < 0.9}
        return {name: cut_short(item, rng, name) for name, item in kept.items()}
    if isinstance(value, list):
        most = rng.randrange(len(value) + 1) if rng.random() < 0.3 else len(value)
        return [cut_short(item, rng, key) for item in value[:most]]
    # A number that was not finite is None. Steps, weights and names always are what they are.
    return None if isinstance(value, float) and rng.random() < 0.02 else value


@pytest.mark.parametrize("seed", range(20))
def test_records_cut_short_give_evidence_too(seed: int) -> None:
    rng = random.Random(seed)
    norms = ("none", "batch", "l1-batch")
    records = [
        {**cut_short(r, rng), "cell": r["cell"], "status": r["status"], "task": r["task"]}
        for r in star(norms, seeds=(0, 1))
    ]
    [study] = evidence(records)["studies"]
    assert len(study["claims"]) + len(study["missing"]) == len(QUESTIONS)
    assert all(item["reason"].endswith(".") for item in study["missing"])
    json.dumps(study, allow_nan=False)


@pytest.mark.parametrize("part", ["landscape", "shift", "units", "flow"])
def test_a_probe_that_found_nothing_is_not_measured(part: str) -> None:
    records = [record(norm=n, seed=s, probes=True) for n in ("none", "batch") for s in range(2)]
    for r in records:
        r["probes"][part] = {}
    study = evidence(records)["studies"][0]
    assert len(study["claims"]) + len(study["missing"]) == len(QUESTIONS)
    assert study["missing"]


def test_a_study_in_which_everything_diverged_has_evidence_too() -> None:
    records = [
        record(norm=n, seed=s, probes=True, status="diverged")
        for n in ("none", "batch")
        for s in range(3)
    ]
    study = evidence(records)["studies"][0]
    assert study["verdict"]["recommendation"].startswith("Most runs of every normalizer diverged")
    assert study["verdict"]["recommended"] is None


def truncated(values: dict[str, Any], length: int) -> dict[str, Any]:
    """A record's lists of values by step, cut after `length` steps."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found[key] = truncated(value, length)
        else:
            found[key] = value[:length] if isinstance(value, list) and key != "layers" else value
    return found


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("part", ["landscape", "shift", "units", "flow", "curve", "evaluations"])
@pytest.mark.parametrize("status", ["ok", "diverged"])
def test_runs_that_end_early_do_not_cost_the_study_its_report(
    length: int, part: str, status: str, tmp_path: Path
) -> None:
    for count in (1, 3, 6):  # one seed, one normalizer, all
        records = star(["none", "batch"])
        for run in [run for run in records if run["probes"]][:count]:
            if status == "diverged":
                run |= {"status": status, "diverged_at": length}
                run["final"] = dict.fromkeys(run["final"])
            parts = run if part in run else run["probes"]
            parts[part] = truncated(parts[part], length)
        html.write(evidence(records), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 0


def test_a_run_that_ended_before_its_second_probe_has_no_curve_of_changes() -> None:
    run = record(probes=True)
    run["probes"] = truncated(run["probes"], 1)
    pick = probe("units", "wasserstein")
    assert pick(run) is None
    curve = pick({**run, "status": "diverged"})
    assert curve is not None
    assert (curve.steps, curve.values) == ([], [])
