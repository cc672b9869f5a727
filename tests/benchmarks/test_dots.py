"""The picture, drawn from results that nobody measured."""

from xml.etree import ElementTree

from benchmarks.speed.dots import draw, pictured
from unmeasured import gpu_result

SVG = "{http://www.w3.org/2000/svg}"


def test_every_pictured_case_is_a_mark_and_those_behind_are_diamonds(results):
    root = ElementTree.fromstring(draw(results))
    marks = [mark for mark in root.iter() if mark.find(f"{SVG}title") is not None]
    rows = [
        row
        for group in pictured(results[0]["cases"]).values()
        for rows in group.values()
        for row in rows
    ]
    assert len(marks) == 2 * len(rows)
    lost = sum(row["ratio"]["eager"]["median"] < 1 for row in rows)
    assert lost
    assert sum(mark.tag == f"{SVG}polygon" for mark in marks) == 2 * lost


def test_marks_lie_inside_the_picture(results):
    root = ElementTree.fromstring(draw(results))
    width, height = float(root.get("width")), float(root.get("height"))
    for mark in root.iter(f"{SVG}circle"):
        assert 0 < float(mark.get("cx")) < width
        assert 0 < float(mark.get("cy")) < height


def test_one_setting_alone_can_be_drawn(results):
    assert draw(results[:1]).startswith("<svg")


def test_a_gpu_has_a_panel_for_each_type():
    picture = draw([gpu_result("rows", eager=0.05), gpu_result("images")])
    assert ">bf16</text>" in picture
    assert ">fp32</text>" in picture
    assert "NVIDIA H200" in picture
    root = ElementTree.fromstring(picture)
    rows = [row for grid in ("rows", "images") for row in gpu_result(grid)["cases"]]
    both = [row for row in rows if row["phase"] == "both"]
    marks = [mark for mark in root.iter() if mark.find(f"{SVG}title") is not None]
    assert len(marks) == len(both)
    assert sum(mark.tag == f"{SVG}polygon" for mark in marks) == 64


def test_rows_without_torch_are_not_drawn():
    result = gpu_result("launch")
    for row in result["cases"][1:]:
        row["ratio"] = {}
    assert draw([result]).count("<title>") == 0  # the one that is left is a forward pass
    result["cases"] = result["cases"][1:]
    assert "nothing to compare" in draw([result])
