"""The picture of |γ|."""

from __future__ import annotations

from xml.etree import ElementTree

from anynorm.report.scales import picture

SVG = "{http://www.w3.org/2000/svg}"


def test_every_channel_is_a_dot_and_those_below_the_gap_are_marked() -> None:
    scales = {"a": (1.0, 0.001, 0.5), "b": (0.0, 0.9)}
    root = ElementTree.fromstring(picture(scales, (0.001, 0.5)))
    dots = root.findall(f"{SVG}circle")
    assert [dot.get("class") for dot in dots] == ["good", "bad", "good", "bad", "good"]
    places = [float(dot.get("cx", "nan")) for dot in dots]
    assert places[0] > places[4] > places[2] > places[1] == places[3]
    assert "2 (40%) lie below the gap" in (root.get("aria-label") or "")


def test_bars_count_all_channels() -> None:
    root = ElementTree.fromstring(picture({"a": (1.0, 1.0, 0.1)}, None))
    bars = [bar for bar in root.findall(f"{SVG}rect") if bar.get("class") == "good"]
    tall = sorted(float(bar.get("height", "nan")) for bar in bars)
    assert tall[1] == 2 * tall[0]
    assert "no natural gap" in (root.get("aria-label") or "")


def test_names_of_layers_are_escaped() -> None:
    drawn = picture({"<script>alert(1)</script>\u202e": (1.0, 0.5)}, None)
    assert "<script>" not in drawn
    assert "\u202e" not in drawn
    ElementTree.fromstring(drawn)


def test_channels_that_are_all_zero() -> None:
    assert ElementTree.fromstring(picture({"a": (0.0, 0.0)}, None)).tag == f"{SVG}svg"
