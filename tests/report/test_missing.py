"""Every empty cell of a table has a reason, and the right one."""

from __future__ import annotations

from typing import Any

from anynorm.report.missing import explained


def reasons(table: dict[str, Any], figure: dict[str, Any] | None = None) -> list[list[str]]:
    rows = explained(table, figure or {})
    return [[getattr(value, "reason", str(value)) for value in row] for row in rows]


def test_a_median_without_a_number_diverged_where_seeds_ran() -> None:
    columns = ["normalizer", "seeds", "median", "lowest ratio"]
    found = reasons({"columns": columns, "rows": [["a", 3, None, None], ["b", 0, None, 2.0]]})
    assert found == [["a", "3", "diverged", "not applicable"], ["b", "0", "not measured", "2.0"]]


def test_each_quantity_has_its_own_seeds() -> None:
    columns = ["normalizer", "x: seeds", "x: median", "y: seeds", "y: median"]
    found = reasons({"columns": columns, "rows": [["a", 0, None, 2, None]]})
    assert found == [["a", "0", "not measured", "2", "diverged"]]


def test_a_range_that_holds_nowhere() -> None:
    found = reasons({"columns": ["normalizer", "from", "to"], "rows": [["a", None, None]]})
    assert found == [["a", "nowhere", "nowhere"]]


def test_a_curve_diverged_where_it_lacks_a_point_and_was_not_measured_elsewhere() -> None:
    curve = {"x": [1, 3], "median": [1.0, None], "low": [1.0, None], "high": [1.0, None]}
    panels = [{"title": "loss", "log": False, "series": {"a": curve}}]
    columns = ["normalizer", "step", "loss: median"]
    table = {"columns": columns, "rows": [["a", 1, 1.0], ["a", 2, None], ["a", 3, None]]}
    found = reasons(table, {"kind": "series", "panels": panels})
    assert [row[2] for row in found] == ["1.0", "not measured", "diverged"]
