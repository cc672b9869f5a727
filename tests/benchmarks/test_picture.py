"""The picture and the tables, drawn from results that nobody measured."""

from xml.etree import ElementTree

import pytest
from benchmarks import page
from benchmarks.dots import draw, pictured
from benchmarks.picture import latest, main
from benchmarks.resnet_table import table
from benchmarks.results import file_name, write
from benchmarks.show import behind, line, warning

SVG = "{http://www.w3.org/2000/svg}"
PAGE = """# Speed
<!-- summary -->
<!-- end of summary -->
<!-- cases -->
old
<!-- end of cases -->
"""


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


def test_the_page_shows_every_case_and_marks_those_behind(results, tmp_path):
    files = [tmp_path / file_name(result["about"]) for result in results]
    for path, result in zip(files, results, strict=True):
        write(path, result)
    speed, picture = tmp_path / "speed.md", tmp_path / "images" / "speed.svg"
    speed.write_text(PAGE)
    main([*map(str, files), "--page", str(speed), "--picture", str(picture)])
    words = speed.read_text()
    assert picture.read_text().startswith("<svg")
    assert "old" not in words
    assert words.count("**0.50** ±0.00 / **0.50** ±0.00") == len(
        behind(results[0]["cases"])["eager"]
    )
    rows = [line for line in words.splitlines() if line.startswith("| ") and "±" in line]
    assert len(rows) == len(results[0]["cases"])


def test_a_page_without_markers_is_refused(tmp_path):
    path = tmp_path / "speed.md"
    path.write_text("# Speed\n<!-- cases -->\n")
    with pytest.raises(ValueError, match="end of cases"):
        page.fill(path, "cases", "words")
    assert path.read_text() == "# Speed\n<!-- cases -->\n"


def test_the_machine_measured_last_is_shown(results, tmp_path):
    other = {**results[1], "about": {**results[1]["about"], "cpu": "other", "date": "2000-01-01"}}
    for number, result in enumerate([other, *reversed(results)]):
        write(tmp_path / f"{number}.json", result)
    layers, networks = latest(sorted(tmp_path.iterdir()))
    assert [layer["about"]["allocator"] for layer in layers] == ["default", "kept"]
    assert networks == []


def test_one_setting_alone_can_be_drawn(results):
    assert draw(results[:1]).startswith("<svg")
    assert "default" in page.cases_table(results[:1])


def test_a_line_of_the_terminal(results):
    text = line(results[0]["cases"][3])
    assert "eager 0.50 [0.50, 0.50]" in text.plain
    assert any("red" in str(span.style) for span in text.spans)


def test_a_busy_machine_is_told(results):
    about = {**results[0]["about"], "cores": 2, "load": 0.1}
    assert warning(about) == ""
    assert "busy (load 3.5 on 2 cores)" in warning({**about, "load": 3.5})
    assert "busy" in page.summary([{**results[0], "about": {**about, "load": 3.5}}])


def test_the_networks_table(results):
    spread = {"median": 0.9, "low": 0.8, "high": 1.0}
    row = {
        "layout": "contiguous",
        "ms": {"ours": spread, "eager": spread},
        "ratio": spread,
        "memory": {name: {"peak": 100.0} for name in ("ours", "eager")},
        "loss_difference": 1e-7,
    }
    about = {**results[0]["about"], "settings": {"batch": 2, "size": 8, "width": 4}}
    assert "| **0.90** [0.80, 1.00] | 100 MB |" in table([{"about": about, "network": [row]}])
