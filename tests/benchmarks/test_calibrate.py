"""The doctor's false alarms: what was measured, how it is counted, and that the page says so."""

import pytest


def row(accuracy, states, families=("batch",), skipped=()):
    from anynorm.doctor import CHECKS

    checks = {str(check.number): "" for check in CHECKS} | states
    return {
        "name": "a-net",
        "accuracy": accuracy,
        "families": dict.fromkeys(families, 1),
        "skipped": dict.fromkeys(skipped, "something"),
        "checks": checks,
        "words": {number: "bn: off" for number, state in states.items() if state},
    }


def cells(text, number):
    [found] = [line for line in text.splitlines() if line.startswith(f"| {number} ")]
    return [cell.strip() for cell in found.split("|")[2:-1]]


def test_alarms_are_counted_over_the_healthy_models_that_a_check_applies_to():
    from benchmarks.calibrate import alarms, table

    result = {
        "models": [
            row(0.99, {"1": "error", "19": "info"}),
            row(0.95, {"1": "warning"}, families=("batch", "layer"), skipped=("14",)),
            row(0.95, {}),
            row(0.95, {}, families=("layer",)),
            row(0.5, {"1": "error"}),
        ]
    }
    text = table(result)
    assert cells(text, 1) == ["3", "2 (67%)", "0"]
    assert cells(text, 19) == ["4", "0 (0%)", "1"]
    assert cells(text, 22) == ["2", "0 (0%)", "0"]
    assert cells(text, 14) == ["2", "0 (0%)", "0"]
    listed, others = alarms(result).split("Not counted")
    assert listed.count("check 1: bn: off") == 2
    assert "a-net (50%): check 1: bn: off" in others


def test_a_check_that_never_ran_has_no_rate():
    from benchmarks.calibrate import table

    assert cells(table({"models": [row(0.99, {}, skipped=("14",))]}), 14) == ["–", "–", "–"]


def test_the_page_says_what_the_code_and_the_measurements_say():
    from benchmarks.doctor_page import PAGE, tables

    text = PAGE.read_text("utf-8")
    for name, words in tables().items():
        assert f"<!-- {name} -->\n{words}\n<!-- end of {name} -->" in text


def test_enough_healthy_models_were_measured():
    from benchmarks.calibrate import FILE, HEALTHY, MEASURED_ELSEWHERE
    from benchmarks.result_files import read

    from anynorm.doctor import CHECKS

    healthy = [found for found in read(FILE)["models"] if found["accuracy"] >= HEALTHY]
    assert len(healthy) >= 20
    measured = {str(c.number) for c in CHECKS if c.number not in MEASURED_ELSEWHERE}
    assert all(set(found["checks"]) >= measured for found in healthy)


@pytest.mark.slow
def test_a_trained_model_is_kept_until_it_is_built_otherwise(tmp_path, monkeypatch):
    import torch
    from benchmarks import zoo_trained

    calls = []

    def train(model, *, epochs, seed):
        calls.append((epochs, seed))
        with torch.no_grad():
            next(model.parameters()).fill_(0.5)
        return 0.875

    monkeypatch.setattr(zoo_trained, "train", train)
    for expected in (1, 1, 2):
        model, accuracy = zoo_trained.trained("rt-detr-resnet", tmp_path, seed=expected // 2)
        assert accuracy == 0.875
        assert bool((next(model.parameters()) == 0.5).all())
        assert len(calls) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rt-detr-resnet", "pvt"])
def test_a_model_is_examined(name):
    from benchmarks.calibrate import examine
    from benchmarks.zoo import build

    from anynorm.doctor import CHECKS

    found = examine(name, build(name).eval())
    assert set(found["checks"]) == {str(check.number) for check in CHECKS}
    assert set(found["skipped"]) == {"14"}
    assert (found["checks"]["4"] == "error") == (name == "rt-detr-resnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["detr", "d-fine", "groupvit", "superpoint", "dpt-depth", "wav2vec2-conformer"]
)
def test_models_that_are_no_classifiers_are_no_errors(name):
    from benchmarks.zoo import build, find, warmed

    import anynorm

    example = find(name).example
    model = warmed(build(name), example)
    found = anynorm.doctor(model, [example(8) for _ in range(3)], source=model)
    assert [finding for finding in found.findings if finding.severity == "error"] == []
    assert not {12, 16, 24} & {skipped.check for skipped in found.skipped}
