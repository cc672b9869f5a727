"""The terminal's tables: numbers with their spread, any width, names as they are."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from synthetic_records import record, star

from anynorm.report.comparisons import interval, signed
from anynorm.report.terminal import show
from anynorm.study.evidence import build


def shown(evidence: dict[str, Any], width: int = 160) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    show(evidence, console)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


@pytest.fixture(scope="module")
def evidence() -> dict[str, Any]:
    return build(star(), title="t", command="c", planned=1000)


def test_the_verdict_and_the_ranking_with_spread(evidence: dict[str, Any]) -> None:
    text = shown(evidence)
    verdict = evidence["studies"][0]["verdict"]
    assert verdict["recommendation"] in " ".join(text.split())
    for entry in verdict["ranking"]:
        low, high = (100 * entry["score"][key] for key in ("low", "high"))
        assert f"[{low:.1f}, {high:.1f}]" in text
    assert "630 of 1000 runs" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_console(evidence: dict[str, Any], width: int) -> None:
    assert max(map(len, shown(evidence, width).splitlines())) <= width


def test_advice_comes_before_evidence(evidence: dict[str, Any]) -> None:
    text = " ".join(shown(evidence, 100).split())
    verdict = evidence["studies"][0]["verdict"]
    parts = [verdict["recommendation"], "First look at this", verdict["causes"][0]["action"]]
    parts += ["Comparisons", "Ranking", "How this verdict was reached"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_eighty_columns_cut_nothing_off(evidence: dict[str, Any]) -> None:
    lines = shown(evidence, 80).splitlines()
    assert not [line for line in lines if "…" in line]
    for one in evidence["studies"][0]["verdict"]["comparisons"]:
        numbers = [signed(one["difference"]), interval(one), one["answer"]]
        assert [
            line
            for line in lines
            if line.split() == " ".join([one["a"], one["b"], *numbers]).split()
        ]


def test_differences_without_numbers_are_words() -> None:
    records = [record(norm=n, seed=s) for n in ("none", "batch") for s in range(3)]
    records[0] = record(norm="none", seed=0, status="diverged")
    [row] = [
        line
        for line in shown(build(records, title="t", command="c")).splitlines()
        if " none " in line and "interval" in line
    ]
    assert "no interval" in row


def test_the_answers_to_claims_are_a_list(evidence: dict[str, Any]) -> None:
    claims = [{**claim, "status": "shown"} for claim in evidence["studies"][0]["claims"][:2]]
    text = shown({**evidence, "studies": [{**evidence["studies"][0], "claims": claims}]}, 80)
    assert "What was judged" in text
    assert text.count("shown") == 2
    bare = [{**claim, "status": ""} for claim in claims]
    text = shown({**evidence, "studies": [{**evidence["studies"][0], "claims": bare}]}, 80)
    assert "What was judged" not in text


def test_a_wide_console_shows_every_column_and_a_narrow_one_the_score(
    evidence: dict[str, Any],
) -> None:
    assert "memory" in shown(evidence, 200)
    narrow = shown(evidence, 50)
    assert "memory" not in narrow
    assert "normalizer" in narrow


@pytest.mark.parametrize("name", ["[bold red]x[/]", "[/]", "\x1b[31mred", "a\nb"])
def test_markup_and_escapes_in_names_do_nothing(name: str) -> None:
    records = [record(norm=n, seed=s, subject=name) for n in ("none", name) for s in range(3)]
    text = shown(build(records, title="t", command="c"))
    assert name.encode("unicode_escape").decode() in text
    assert "\x1b" not in text


def test_what_was_not_measured_is_named() -> None:
    text = shown(build([record()], title="t", command="c"))
    assert "Not measured:" in text
    assert "Which learning rates work?" in text


def test_an_empty_store_shows_nothing() -> None:
    assert shown(build([], title="t", command="c")) == ""


def test_failed_runs_are_named_with_the_last_line_of_their_reason() -> None:
    failures = [("mlp, batch (seed 0)", "Traceback\n[red]ValueError[/red]: small")] * 2
    found = build([record()], title="t", command="", planned=3, failures=failures)
    assert "2 failed, the first is mlp, batch (seed 0): [red]ValueError[/red]: small" in shown(
        found
    )


def test_a_study_that_grew_says_why_it_stopped(evidence: dict[str, Any]) -> None:
    text = shown({**evidence, "stopped": "decided"}, 80)
    assert "Seeds were added until every comparison was decided." in text
    assert "Seeds were added" not in shown(evidence, 80)
