"""Text that comes from users is never markup: not in HTML, not in figures."""

from __future__ import annotations

import re

import pytest

from anynorm.report.text import cell, markup, plot, visible, wrapped

HOSTILE = ["<script>alert(1)</script>", "<img onerror=x>", "a & b", '"quoted"', "</script>", "it's"]


@pytest.mark.parametrize("name", HOSTILE)
def test_markup_leaves_no_character_that_html_reads(name: str) -> None:
    assert not set(markup(name)) & set("<>\"'")
    assert not set(plot(name)) & set("<>")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wrapped_label_has_no_tag_but_line_breaks(name: str) -> None:
    assert set(re.findall(r"<[^>]*>", wrapped(name))) <= {"<br>"}


@pytest.mark.parametrize("char", ["\n", "\x1b", "\u202e", "\ud800", "\x00", "\u2028"])
def test_invisible_characters_are_written_out(char: str) -> None:
    shown = visible(f"a{char}b")
    assert shown.isprintable()
    assert shown.startswith("a\\")
    shown.encode("utf-8")


def test_unicode_that_can_be_seen_stays() -> None:
    assert visible("naïve–数") == "naïve–数"


def test_a_label_of_any_length_has_at_most_two_short_lines() -> None:
    lines = wrapped("x" * 500).split("<br>")
    assert len(lines) == 2
    assert all(len(line) <= 17 for line in lines)


def test_a_wrapped_label_loses_nothing_that_fits() -> None:
    assert wrapped("batch-per-activation").replace("<br>", "") == "batch-per-activation"


def test_cells_of_tables() -> None:
    assert [cell(value) for value in (1.23456, 1e-7, 12, None)] == ["1.235", "1e-07", "12", "–"]
