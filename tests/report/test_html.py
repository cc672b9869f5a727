"""The page as text: one file, atomic, complete, nothing from users read as markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pages import Tags
from synthetic_records import record, star

from anynorm.report.frame import asset
from anynorm.report.html import embedded, page, write
from anynorm.report.text import markup
from anynorm.study.evidence import build

HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "</script><b>", "\"'>&"]


@pytest.fixture(scope="module")
def evidence() -> dict[str, Any]:
    return build(star(), title="Digits", command="anynorm study --model mlp-relu", planned=9999)


@pytest.fixture(scope="module")
def text(evidence: dict[str, Any]) -> str:
    return page(evidence)


@pytest.fixture(scope="module")
def parsed(text: str) -> Tags:
    return Tags(text)


def test_plotly_is_embedded_once(text: str) -> None:
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert len(text) < 8_000_000


def test_nothing_is_loaded_from_elsewhere(parsed: Tags) -> None:
    links = [a.get("src") or a.get("href") for _, a in parsed.tags if {"src", "href"} & set(a)]
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)


def test_the_policy_allows_no_request_and_no_foreign_script(parsed: Tags) -> None:
    [policy] = [a["content"] for t, a in parsed.tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_the_verdict_comes_first_then_the_questions_then_a_section_for_each(
    parsed: Tags, evidence: dict[str, Any]
) -> None:
    sections = [a for tag, a in parsed.tags if tag == "section"]
    assert (sections[0]["class"] or "").startswith("verdict")
    ids = [claim["id"] for claim in evidence["studies"][0]["claims"]]
    assert sections[1]["id"] == "s0-claims"
    assert [a["id"] for a in sections[2 : 2 + len(ids)]] == [f"s0-{name}" for name in ids]


def test_the_verdict_goes_from_advice_to_evidence(text: str, evidence: dict[str, Any]) -> None:
    verdict = evidence["studies"][0]["verdict"]
    parts = [
        verdict["recommendation"],
        "First look at this",
        verdict["causes"][0]["sentence"],
        verdict["causes"][0]["action"],
        "Is the difference in held-out accuracy real?",
        "Comparisons",
        "Ranking",
        "How this verdict was reached",
        verdict["sentences"][-1],
    ]
    places = [text.index(markup(part)) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("use", "use"), ("prefer", "prefer"), ("undecided", "cannot tell yet")],
)
def test_the_kind_of_the_verdict_is_a_badge(
    evidence: dict[str, Any], kind: str, words: str
) -> None:
    found = {**evidence["studies"][0]["verdict"], "kind": kind}
    shown = page({**evidence, "studies": [{**evidence["studies"][0], "verdict": found}]})
    assert f'<span class="badge {kind}">{words}</span>' in shown


def test_comparisons_are_a_table_with_a_word_for_every_missing_number() -> None:
    records = [record(norm=n, seed=s) for n in ("none", "batch", "layer") for s in (0, 1)]
    records += [record(norm="group", seed=0), record(norm="group", seed=1, status="diverged")]
    shown = Tags(page(build(records, title="t", command=""))).text
    for words in ("compared with", "seeds that would decide", "no limit", "not known"):
        assert words in shown
    assert "–" not in shown.replace("15–85%", "")


def test_a_claim_shows_its_status_and_its_answer_in_a_line(evidence: dict[str, Any]) -> None:
    first, *others = evidence["studies"][0]["claims"]
    said = {"status": "contradicted", "statement": "It <does> not."}
    study = {**evidence["studies"][0], "claims": [{**first, **said}, *others]}
    shown = page({**evidence, "studies": [study]})
    plain = page({**evidence, "studies": [{**study, "claims": others}]})
    word = '<span class="status bad">contradicted</span>'
    assert shown.count(word) == plain.count(word) + 2
    assert shown.count("It &lt;does&gt; not.") == 1


def test_the_questions_link_to_their_sections(parsed: Tags, evidence: dict[str, Any]) -> None:
    links = [a["href"] for tag, a in parsed.tags if tag == "a"]
    for claim in evidence["studies"][0]["claims"]:
        assert claim["title"].endswith("?")
        assert links.count(f"#s0-{claim['id']}") == 2


def test_every_plot_has_its_data(parsed: Tags, text: str) -> None:
    data = re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    figures = json.loads(data[1])
    plots = [a["data-figure"] for _, a in parsed.tags if a.get("class") == "plot"]
    assert sorted(plots) == sorted(figures)


def test_the_page_says_how_it_was_made(parsed: Tags) -> None:
    for words in (
        "anynorm study --model mlp-relu",
        "40% of the training time",
        "torch 2.13.0",
        "0, 1, 2",
        "of 9999 runs are finished",
    ):
        assert words in parsed.text


def test_every_claim_gives_definition_sentence_and_numbers(
    parsed: Tags, evidence: dict[str, Any]
) -> None:
    for claim in evidence["studies"][0]["claims"]:
        assert claim["definition"] in parsed.text
        assert claim["sentence"] in parsed.text
    tables = sum(tag == "table" for tag, _ in parsed.tags)
    assert tables == 3 + sum(len(c["tables"]) for c in evidence["studies"][0]["claims"])


def test_what_was_not_measured_is_named() -> None:
    found = build([record(norm=n) for n in ("none", "batch")], title="t", command="c")
    shown = Tags(page(found)).text
    for item in found["studies"][0]["missing"]:
        assert item["title"] in shown
        assert item["reason"][1:] in shown


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    records = star(["none", name], seeds=(0,), subject=name, data=name)
    parsed = Tags(page(build(records, title=name, command=name)))
    allowed = {"script", "img"} if "img" in name else {"script"}
    assert [tag for tag, _ in parsed.tags if tag in allowed] == ["script"] * 3
    assert not [a for _, attributes in parsed.tags for a in attributes if a.startswith("on")]
    assert parsed.text.count(name) > 5


def test_no_two_things_share_a_colour() -> None:
    themes = asset("page.css").split("@media (prefers-color-scheme: dark)")
    for theme in (themes[0], themes[1].partition("\n}\n")[0]):
        colours = re.findall(r"--(?:hue-\d|good|bad|scale-low|scale-high|band): (#\w+)", theme)
        assert len(colours) == 13
        assert len(set(colours)) == 13


def test_an_empty_store_gives_a_page() -> None:
    assert "Runs" in page(build([], title="t", command=""))


@pytest.mark.parametrize("hostile", ["</script>", "<!--", "&lt;"])
def test_embedded_json_survives_html(hostile: str) -> None:
    text = embedded({hostile: hostile})
    assert json.loads(text) == {hostile: hostile}
    assert not set(text) & set("<>&")


def test_writing_replaces_the_file_at_once(tmp_path: Path, evidence: dict[str, Any]) -> None:
    target = tmp_path / "new folder" / "report.html"
    write(evidence, target)
    first = target.read_text(encoding="utf-8")
    write(evidence, target)
    assert target.read_text(encoding="utf-8") == first
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_failed_runs_are_shown_with_their_reason_as_text() -> None:
    failures = [("mlp, <b>batch</b> (seed 0)", "Traceback\nValueError: <script>small</script>")]
    found = build([record()], title="t", command="", planned=2, failures=failures)
    shown = page(found)
    assert "1 failed: ValueError: &lt;script&gt;small&lt;/script&gt;" in shown
    assert "mlp, &lt;b&gt;batch&lt;/b&gt; (seed 0)" in shown
    assert "<pre>Traceback<br>ValueError" in shown
