"""The error and the power of the doctor: what was simulated, and that the page says so."""

import math

import pytest


@pytest.fixture(scope="module")
def result():
    from benchmarks.doctor_power import FILE
    from benchmarks.result_files import read

    return read(FILE)


def test_the_page_says_what_was_simulated():
    from benchmarks.doctor_power import PAGE, tables

    text = PAGE.read_text("utf-8")
    for name, words in tables().items():
        assert f"<!-- {name} -->\n{words}\n<!-- end of {name} -->" in text


@pytest.mark.parametrize(
    "setting",
    [
        ("Gaussian", 1, 2, 32, 64, 1),
        ("log-normal", 1, 8, 8, 64, 1),
        ("ReLU", 64, 1, 8, 16, 1),
        ("1 in 20 is not 0", 1, 2, 16, 64, 1),
    ],
)
def test_another_simulation_agrees_with_the_table(result, setting):
    """Within four standard errors of the difference between both simulations."""
    from benchmarks.doctor_power import Setting, simulate

    setting, count = Setting(*setting), 40
    [row] = [r for r in result["rows"] if all(r[k] == v for k, v in vars(setting).items())]
    again = simulate(setting, count, seed=1)
    for key, published in row["found"].items():
        share = min(max((published + again[key]) / 2, 0.02), 0.98)
        error = math.sqrt(share * (1 - share) * (1 / count + 1 / row["studies"]))
        assert abs(again[key] - published) <= 4 * error, key


@pytest.mark.parametrize("shape", ["log-normal", "t with 3 degrees of freedom", "1 in 20 is not 0"])
@pytest.mark.parametrize("size", [(64, 2, 16, 16, 1), (64, 8, 8, 16, 1), (1, 8, 8, 64, 1)])
def test_what_is_not_found_under_heavy_tails_is_undecided(shape, size):
    from benchmarks.doctor_power import Setting, simulate

    found = simulate(Setting(shape, *size), 12)
    assert found["silent: shift"] == found["silent: factor"] == 0
    assert found["now: factor"] < 1  # else the setting would show nothing


def test_the_error_is_kept(result):
    """At most 1% of warnings and 0.1% of errors over all settings, and 3% in each."""
    rows = result["rows"]
    studies = sum(row["studies"] for row in rows)
    for key, share in (("warning", 0.01), ("error", 0.001)):
        found = sum(row["studies"] * row["found"][f"now: {key}"] for row in rows)
        assert found <= share * studies + 3 * math.sqrt(share * studies)
    for row in rows:
        slack = 4 * math.sqrt(0.01 / row["studies"])
        assert row["found"]["now: warning"] <= 0.01 + slack


def test_what_must_be_found_is_found_from_64_samples_on_or_the_data_cannot_tell(result):
    for row in result["rows"]:
        found = row["found"]
        if row["batches"] * row["batch"] >= 64:
            assert found["now: shift"] >= 0.95
            assert found["undecided: shift"] == 0
        if row["batches"] * row["batch"] >= 64 and row["shape"] == "Gaussian":
            assert found["now: factor"] >= 0.95
        slack = 4 * math.sqrt(0.05 / row["studies"])
        for fault in ("shift", "factor"):
            if found[f"undecided: {fault}"] == 0:
                assert found[f"now: {fault}"] >= 0.95 - slack


def test_no_cut_changes_what_is_found(result):
    pieces = list(result["pieces"].values())
    for key in ("warning", "shift", "factor"):
        assert len({row[f"now: {key}"] for row in pieces}) == 1
