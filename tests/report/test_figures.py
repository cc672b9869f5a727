"""Figures as plotly JSON: every claim drawn, nothing hidden by a gap, names escaped."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from synthetic_records import record, star, strings

from anynorm.report.figures import draw
from anynorm.report.figures.style import log_axis, style
from anynorm.study.evidence import build


@pytest.fixture(scope="module")
def evidence() -> dict[str, Any]:
    return build(star(), title="a study", command="anynorm study")


def figure(evidence: dict[str, Any], name: str) -> dict[str, Any]:
    [claim] = [c for c in evidence["studies"][0]["claims"] if c["id"] == name]
    return draw(claim["figure"], evidence["labels"])


def test_every_claim_is_drawn(evidence: dict[str, Any]) -> None:
    for claim in evidence["studies"][0]["claims"]:
        drawn = draw(claim["figure"], evidence["labels"])
        assert any(len(trace.get("x") or trace.get("z") or ()) for trace in drawn["data"])
        json.dumps(drawn, allow_nan=False)


def test_loss_bands_show_none_and_batch_at_first(evidence: dict[str, Any]) -> None:
    labels = evidence["labels"]
    shown = {t["meta"]["series"] for t in figure(evidence, "loss-range")["data"] if t["visible"]}
    assert {labels[index] for index in shown} == {"none", "batch"}


def test_beta_and_eta_beta_are_two_panels_of_one_figure(evidence: dict[str, Any]) -> None:
    layout = figure(evidence, "smoothness")["layout"]
    assert [note["text"] for note in layout["annotations"]] == ["β", "η·β"]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]


def test_a_seed_that_diverged_is_a_cross_on_the_heat_map(evidence: dict[str, Any]) -> None:
    cells, crosses = figure(evidence, "lr")["data"]
    lost = [(x, y) for y, row in enumerate(cells["z"]) for x, z in enumerate(row) if z is None]
    assert lost
    assert sorted(zip(crosses["x"], crosses["y"], strict=True)) == sorted(lost)


def test_the_heat_map_outlines_the_tolerance(evidence: dict[str, Any]) -> None:
    drawn = figure(evidence, "lr")
    row = evidence["labels"].index("batch")
    shapes = [s for s in drawn["layout"]["shapes"] if s["y0"] == row - 0.45]
    [shape] = [s for s in shapes if "dash" not in s["line"]]
    inside = drawn["data"][0]["z"][row][round(shape["x0"] + 0.47) : round(shape["x1"] - 0.47) + 1]
    best = max(z for cells in drawn["data"][0]["z"] for z in cells if z is not None)
    assert inside
    assert all(z >= best - 0.05 for z in inside)


def test_the_heat_map_shows_where_every_seed_trains_at_all(evidence: dict[str, Any]) -> None:
    drawn = figure(evidence, "lr")
    row = evidence["labels"].index("batch")
    shapes = [s for s in drawn["layout"]["shapes"] if s["y0"] == row - 0.45]
    [dotted] = [s for s in shapes if s["line"].get("dash") == "dot"]
    assert dotted["x0"] < dotted["x1"]
    assert "3 of 3 seeds train at all" in "".join(strings(drawn["data"][0]["customdata"]))


def test_the_common_loss_is_a_line_that_no_legend_hides(evidence: dict[str, Any]) -> None:
    [line] = [t for t in figure(evidence, "convergence")["data"] if t["name"] == "L*"]
    assert line["y"][0] == line["y"][1] > 0
    assert "meta" not in line


def test_bisected_values_of_a_few_normalizers_are_no_columns() -> None:
    records = [record(norm=n, lr=lr) for n in ("none", "batch") for lr in (0.1, 0.3, 1.0)]
    records.append(record(norm="batch", lr=0.17))
    drawn = figure(build(records, title="", command=""), "lr")
    assert drawn["layout"]["xaxis"]["ticktext"] == ["0.1", "0.3", "1"]


def test_diverged_runs_are_named_beside_the_dots() -> None:
    records = [record(norm=n, seed=s) for n in ("none", "batch") for s in range(3)]
    records[0] = record(norm="none", seed=0, status="diverged")
    drawn = figure(build(records, title="", command=""), "base")
    assert any("1/3 diverged" in text for text in drawn["layout"]["yaxis"]["ticktext"])


def test_a_curve_whose_runs_diverged_ends_in_a_cross() -> None:
    records = [
        record(norm=n, status="ok" if n == "batch" else "diverged") for n in ("none", "batch")
    ]
    drawn = figure(build(records, title="", command=""), "training")
    crosses = [t for t in drawn["data"] if t.get("marker", {}).get("symbol") == "x"]
    assert [trace["name"] for trace in crosses] == ["none"]


def test_a_band_is_cut_where_its_end_is_missing() -> None:
    curve = {
        "x": [1, 2, 3, 4],
        "median": [1, 1, 1, 1],
        "low": [1, 1, 1, 1],
        "high": [2, None, 2, 2],
    }
    panel = {"title": "t", "log": True, "series": {"batch": curve}}
    drawn = draw({"kind": "series", "x": {"title": "x"}, "panels": [panel]}, ["batch"])
    assert drawn["data"][0]["x"].count(None) == 2


def test_names_in_figures_are_escaped() -> None:
    name = "<img src=x onerror=alert(1)>"
    records = star(["none", name], seeds=(0,))
    found = build(records, title="", command="")
    for claim in found["studies"][0]["claims"]:
        texts = "".join(strings(draw(claim["figure"], found["labels"])))
        assert "<img" not in texts


def test_a_normalizer_keeps_its_style_and_none_its_own_colour() -> None:
    labels = ["none", *(f"norm-{i}" for i in range(20))]
    looks = {tuple(style(name, labels).values()) for name in labels}
    assert len(looks) == len(labels)
    assert [name for name in labels if style(name, labels)["color"] == "@0"] == ["none"]


@pytest.mark.parametrize("variant", [" + noise", ", no γ β", " without γ and β", "(affine=False)"])
def test_a_variant_has_the_colour_of_its_normalizer_and_another_dash(variant: str) -> None:
    labels = ["none", "layer", "batch", f"batch{variant}", "group"]
    plain, other = (style(name, labels) for name in ("batch", f"batch{variant}"))
    assert plain["color"] == other["color"]
    assert plain["dash"] != other["dash"]
    assert plain["symbol"] != other["symbol"]
    assert style("group", labels)["color"] not in (plain["color"], "@0")


def test_layers_are_named_on_the_axis() -> None:
    curve = {"x": [1, 2], "median": [1, 2], "low": [1, 2], "high": [1, 2]}
    panel = {"title": "t", "log": False, "series": {"batch": curve}}
    axis = {"title": "layer, input to output", "names": ["conv 1", "linear 1"]}
    drawn = draw({"kind": "series", "x": axis, "panels": [panel]}, ["batch"])
    assert drawn["layout"]["xaxis"]["ticktext"] == ["conv 1", "linear 1"]
    assert drawn["data"][1]["customdata"][1].endswith("linear 1")


def intervals(*rows: tuple[float | None, float | None, float | None, str]) -> dict[str, Any]:
    keys = ("value", "low", "high", "answer")
    found = [{"label": f"n{i}", **dict(zip(keys, row, strict=True))} for i, row in enumerate(rows)]
    panel = {"title": "difference", "margin": 0.5, "rows": found}
    return draw({"kind": "intervals", "panels": [panel]}, [row["label"] for row in found])


def test_intervals_stand_beside_zero_and_the_margin_with_the_answer_at_the_right() -> None:
    layout = intervals((1.0, 0.6, 1.4, "better"), (-0.1, -0.4, 0.2, "equivalent"))["layout"]
    band, zero = layout["shapes"]
    assert (band["x0"], band["x1"], zero["x0"], zero["x1"]) == (-0.5, 0.5, 0, 0)
    texts = [note["text"] for note in layout["annotations"][1:]]
    assert texts == ["better", "equivalent"]
    assert layout["xaxis"]["range"][0] < -0.5
    assert layout["xaxis"]["range"][1] > 1.4


@pytest.mark.parametrize(
    ("low", "high", "arrows"),
    [(-1.0, 2.0, []), (None, 2.0, ["left"]), (None, None, ["left", "right"])],
)
def test_an_end_without_a_limit_is_an_arrow(
    low: float | None, high: float | None, arrows: list[str]
) -> None:
    data = intervals((1.0, low, high, "cannot tell"))["data"]
    symbols = [trace.get("marker", {}).get("symbol", "") for trace in data]
    assert [s for s in symbols if s.startswith("triangle")] == [f"triangle-{a}" for a in arrows]


def test_a_difference_without_a_number_is_said_in_words() -> None:
    drawn = intervals((None, None, None, "better"))
    assert drawn["data"] == []
    texts = [note["text"] for note in drawn["layout"]["annotations"]]
    assert texts[1:] == ["better", "no number: runs diverged"]


@pytest.mark.parametrize("values", [[0.1, 0.2], [1e-6, 1e3], [1e-30, 1e30], [0.0, None], []])
def test_logarithmic_axes_have_a_readable_number_of_ticks(values: list[float | None]) -> None:
    axis = log_axis(values)
    assert 1 <= len(axis["tickvals"]) <= 12
    assert all(math.isfinite(tick) for tick in axis["tickvals"])
