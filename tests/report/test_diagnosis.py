"""A diagnosis as a page and on a terminal: findings first, everything from users as text."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from pages import Tags
from rich.console import Console

from anynorm.report.diagnosis import page, write
from anynorm.report.diagnosis_terminal import show

HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"'>&", "[red]x[/red]"]


def finding(number: int, severity: str, layer: str, **changes: Any) -> dict[str, Any]:
    return {
        "check": number,
        "name": f"name of {number}",
        "severity": severity,
        "layer": layer,
        "message": f"something at {layer}",
        "numbers": {"values": 3, "ratio": 0.123456, "words": "of 8"},
        "threshold": "fewer than 16",
        "why": "It matters.",
        "fix": f"model.get_submodule({layer!r}).momentum = 0.1",
        "citation": "Wu & He 2018",
        **changes,
    }


def diagnosis(*findings: dict[str, Any], **facts: Any) -> dict[str, Any]:
    found = {one["check"] for one in findings}
    states = {n: "found" if n in found else "healthy" for n in range(1, 5)} | {5: "skipped"}
    words = {"measures": "m", "threshold": "t", "severity": "warning", "citation": "c"}
    return {
        "schema": 1,
        "healthy": all(one["severity"] == "info" for one in findings),
        "status": 1,
        "facts": {"model": "Net", "batches": 1200, "families": {"batch": 2}, **facts},
        "findings": list(findings),
        "checks": [
            {"check": n, "name": f"name of {n}", "state": state, "findings": 0, **words}
            for n, state in states.items()
        ],
        "skipped": [{"check": 5, "name": "name of 5", "needs": "optimizer="}],
    }


FOUND = diagnosis(
    finding(1, "error", "bn1"), finding(1, "error", "bn2"), finding(2, "info", "", fix="one line")
)


def shown(found: dict[str, Any], width: int = 100) -> str:
    file = StringIO()
    show(found, Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def test_findings_come_first_then_the_healthy_then_the_skipped() -> None:
    ids = [a.get("id") for tag, a in Tags(page(FOUND)).tags if tag == "section"]
    assert ids == ["summary", "error-1", "info-2", "healthy", "skipped", "examined"]


def test_a_finding_shows_numbers_reason_fix_and_source() -> None:
    text = Tags(page(FOUND)).text
    for words in (
        "2 errors, 1 info",
        "something at bn1",
        "It matters.",
        "0.1235",
        "of 8",
        "model.get_submodule('bn1').momentum = 0.1",
        "model.get_submodule('bn2').momentum = 0.1",
        "Wu & He 2018",
        "5 name of 5 needs optimizer=",
        "batches1,200",
    ):
        assert words in text
    assert "the model" in text  # the layer of a finding about the whole


def test_a_healthy_model() -> None:
    text = Tags(page(diagnosis(note="nothing to check"))).text
    assert "Healthy4 of 5 checks ran. nothing to check" in text
    assert "Start with" not in text
    assert "Healthy" in shown(diagnosis(note="nothing to check"))


def test_the_page_holds_no_script_and_asks_for_nothing() -> None:
    tags = Tags(page(FOUND)).tags
    [policy] = [a["content"] for _, a in tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'none'; ")
    assert "script" not in [tag for tag, _ in tags]
    links = [a.get("src") or a.get("href") for _, a in tags if {"src", "href"} & set(a)]
    anchors = {f"#{a['id']}" for _, a in tags if "id" in a}
    assert all(link == "data:," or link in anchors for link in links)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    one = finding(1, "error", name, message=name, fix=name, numbers={name: name})
    found = diagnosis(one, model=name, note=name)
    parsed = Tags(page(found))
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags}
    assert not [a for _, attributes in parsed.tags for a in attributes if a.startswith("on")]
    assert parsed.text.count(name) >= 6
    assert shown(found).count(name) >= 5


def test_escapes_do_nothing_on_a_terminal() -> None:
    assert "\x1b" not in shown(diagnosis(finding(1, "error", "a\x1b[31mb", message="\x1b[2J")))


def test_the_terminal_counts_layers_that_it_does_not_show() -> None:
    many = [finding(1, "warning", f"layer{index}") for index in range(10)]
    text = shown(diagnosis(*many))
    assert "layer2" in text
    assert "layer3" not in text
    assert "and 7 more" in text
    assert "not checked: 5 name of 5 needs optimizer=" in text


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    found = diagnosis(finding(1, "error", "a.very.long.name." * 6))
    assert max(map(len, shown(found, width).splitlines())) <= width


def test_writing_is_whole(tmp_path: Any) -> None:
    target = tmp_path / "new" / "diagnosis.html"
    write(FOUND, target)
    assert target.read_text("utf-8") == page(FOUND)
