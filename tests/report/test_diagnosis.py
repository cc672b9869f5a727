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
    severe = any(one["severity"] != "info" for one in findings)
    return {
        "schema": 2,
        "healthy": not severe,
        "status": int(severe),
        "causes": [],
        "examined": ["bn1", "bn2"],
        "not_examined": {},
        "undecided": [],
        "facts": {"model": "Net", "batches": 1200, "families": {"batch": 2}, **facts},
        "findings": list(findings),
        "checks": [
            {"check": n, "name": f"name of {n}", "state": state, "findings": 0, **words}
            for n, state in states.items()
        ],
        "skipped": [
            {"check": 5, "name": "name of 5", "needs": "labels", "asked": True},
            {"check": 6, "name": "name of 6", "needs": "source=", "asked": False},
        ],
    }


def caused(found: dict[str, Any], *places: int, **changes: Any) -> dict[str, Any]:
    """A diagnosis with a cause more, which explains the findings at these places."""
    cause = {
        "name": "input preprocessing",
        "severity": found["findings"][places[0]]["severity"],
        "evidence": "The input is 16 times too large",
        "fix": "x = x / 16",
        "effect": "the loss goes from 3.1 to 0.12",
        "sure": "likely",
        "refused": "",
        "data": False,
        "findings": list(places),
        **changes,
    }
    return {**found, "causes": [*found["causes"], cause]}


FOUND = diagnosis(
    finding(1, "error", "bn1"), finding(1, "error", "bn2"), finding(2, "info", "", fix="one line")
)


CAUSED = caused(FOUND, 0, 1)


def shown(found: dict[str, Any], width: int = 100) -> str:
    file = StringIO()
    show(found, Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def test_findings_come_first_then_the_healthy_then_the_skipped() -> None:
    ids = [a.get("id") for tag, a in Tags(page(FOUND)).tags if tag == "section"]
    assert ids == ["summary", "error-1", "info-2", "healthy", "skipped", "examined"]


def test_the_first_four_lines_are_cause_effect_repair_and_certainty() -> None:
    lines = shown(CAUSED).splitlines()[:4]
    assert lines == [
        "Net  input preprocessing: 2 errors, 1 info",
        "effect  the loss goes from 3.1 to 0.12",
        "repair  x = x / 16",
        "sure    likely",
    ]


def test_findings_fold_under_their_cause() -> None:
    parsed = Tags(page(CAUSED))
    ids = [a.get("id") for tag, a in parsed.tags if tag == "section"]
    assert ids == ["summary", "cause-0", "info-2", "healthy", "skipped", "examined"]
    assert [tag for tag, _ in parsed.tags].count("details") == 1
    assert "2 findings: numbers, thresholds, sources" in parsed.text
    text = shown(CAUSED)
    assert text.index("16 times") < text.index("something at bn1") < text.index("besides")


def test_a_repair_that_is_not_offered_says_why() -> None:
    found = caused(FOUND, 0, 1, refused="it raises the loss from 0.1 to 0.9", fix="")
    assert "repair  none: it raises the loss from 0.1 to 0.9" in shown(found)
    assert "none: it raises the loss" in Tags(page(found)).text


def test_data_that_look_wrong_are_said_to() -> None:
    assert "the data look wrong, not the model" in shown(caused(FOUND, 0, data=True))


def test_a_second_cause_follows_the_first() -> None:
    text = shown(caused(CAUSED, 2, name="small batches", severity="warning"))
    assert text.splitlines()[4] == "also: small batches"


def test_what_was_not_examined_is_neither_healthy_nor_ill() -> None:
    found = {
        **diagnosis(note="nothing was examined"),
        "status": 3,
        "healthy": False,
        "examined": [],
        "not_examined": {"norm": "a MyNorm looks like a normalization layer"},
    }
    assert "Net  Not examined" in shown(found)
    assert "not examined: norm: a MyNorm" in shown(found)
    assert "was not examined: a MyNorm" in Tags(page(found)).text


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
        "5 name of 5 needs labels",
        "batches1,200",
    ):
        assert words in text
    assert "the model" in text  # the layer of a finding about the whole


def test_a_healthy_model() -> None:
    text = Tags(page(diagnosis(note="nothing to check"))).text
    assert "Healthy4 of 5 checks ran. nothing to check" in text
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
    words = dict.fromkeys(("name", "evidence", "fix", "effect", "sure"), name)
    found = caused(diagnosis(one, model=name, note=name), 0, **words)
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
    assert "not checked: 5 name of 5: needs labels" in text
    assert "name of 6" not in text


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    found = caused(diagnosis(finding(1, "error", "a.very.long.name." * 6)), 0)
    assert max(map(len, shown(found, width).splitlines())) <= width


def test_writing_is_whole(tmp_path: Any) -> None:
    target = tmp_path / "new" / "diagnosis.html"
    write(FOUND, target)
    assert target.read_text("utf-8") == page(FOUND)
