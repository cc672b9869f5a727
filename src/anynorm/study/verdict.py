"""Which normalizer to use, if the seeds can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.study.claims.outcome import row, score_panel
from anynorm.study.ranking import (
    CRITERIA,
    LARGEST_NULL,
    null_probability,
    preference,
    ranking,
    separated,
)
from anynorm.study.selection import Runs
from anynorm.study.spread import Score
from anynorm.study.wording import join, number, plural, score_text

__all__ = ["decide"]

NONE = "none"
WIDER = 0.5  # decades that count as a difference: one step of the learning-rate grid
Entry = Mapping[str, Any]


def decide(runs: Runs) -> dict[str, Any]:
    """Return the verdict on one study: its kind, what to use if anything, and the evidence.

    ``kind`` is ``use`` (one normalizer is separated above all others), ``undecided`` (several
    are not separated from the best, or there are too few seeds to separate anything) or ``no
    benefit`` (the model without normalization is among the best). ``recommended`` names the
    best, ties broken by tolerance to the learning rate, then to the initialization, by the
    smallest batch size, and by time; it is ``None`` where nothing can be recommended.
    """
    entries = ranking(runs)
    kind, headline, recommended, reason = _conclude(runs.score, entries)
    return {
        "kind": kind,
        "headline": headline,
        "recommended": recommended,
        "reason": reason,
        "ranking": entries,
        "figure": _figure(runs.score, entries),
        "sentences": _sentences(runs.score, entries),
    }


def _conclude(score: Score, entries: Sequence[Entry]) -> tuple[str, str, str | None, str]:
    if not entries:
        return "undecided", "Undecided: nothing was measured", None, "No run has finished."
    if all(entry["score"]["median"] is None for entry in entries):
        reason = "No normalizer finished most of its runs at any learning rate."
        return "undecided", "Undecided: every normalizer diverged", None, reason
    if len(entries) == 1:
        reason = "A verdict needs at least two normalizers."
        return "undecided", f"Undecided: only {entries[0]['label']} was run", None, reason
    return _compare(score, entries)


def _compare(score: Score, entries: Sequence[Entry]) -> tuple[str, str, str | None, str]:
    seeds = min(entry["score"]["n"] for entry in entries)
    top = [entry for entry in entries if entry["rank"] == 1]
    names = [entry["label"] for entry in top]
    first = min(top, key=preference)["label"]
    if null_probability(seeds, seeds) > LARGEST_NULL:
        words = f"Undecided: {plural(seeds, 'seed')} cannot separate anything"
        return "undecided", words, first, "Run at least 3 seeds of every normalizer."
    if NONE in names:
        return "no benefit", f"No benefit in {score.name}", NONE, _no_benefit(score, entries)
    if len(top) > 1:
        words = f"Undecided between {join(names)}"
        return "undecided", words, first, _tie_reason(top, first)
    reason = f"Every seed of {first} beats every seed of every other normalizer."
    return "use", f"Use {first}", first, reason


def _no_benefit(score: Score, entries: Sequence[Entry]) -> str:
    plain = next(entry for entry in entries if entry["label"] == NONE)
    worse = [e["label"] for e in entries if separated(plain["score"], e["score"], score)]
    reason = "No normalizer is separated above the model without normalization"
    reason += f"; {join(worse)} did worse in every seed." if worse else "."
    return reason + _what_it_buys(entries, plain)


def _what_it_buys(entries: Sequence[Entry], plain: Entry) -> str:
    """Say so if a normalizer as good as none leaves a wider choice of learning rates."""
    widest = min((e for e in entries if e["rank"] == 1), key=preference)
    wide, narrow = widest["lr_tolerance"], plain["lr_tolerance"]
    if not wide or not narrow or wide["decades"] is None:
        return ""
    if wide["decades"] - (narrow["decades"] or 0.0) < WIDER:
        return ""
    return (
        f" What it can buy is tolerance to the learning rate: {widest['label']} has "
        f"{wide['text']}, the model without {narrow['text']}."
    )


def _tie_reason(top: Sequence[Entry], first: str) -> str:
    reason = "Their seeds overlap, or are too few to tell them apart."
    ordered = sorted(top, key=preference)
    pairs = zip(CRITERIA, preference(ordered[0]), preference(ordered[1]), strict=True)
    for criterion, best, other in pairs:
        if best < other:
            return f"{reason} Of these, {first} has {criterion}."
    return reason


def _sentences(score: Score, entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return []
    found = [
        _scores_sentence(score, entries),
        _tolerance_sentence(entries, "lr_tolerance", "learning rate"),
        _tolerance_sentence(entries, "init_tolerance", "initialization"),
        _method_sentence(entries),
    ]
    return [sentence for sentence in found if sentence]


def _scores_sentence(score: Score, entries: Sequence[Entry]) -> str:
    texts = [
        f"{entry['label']} {score_text(score, entry['score'])} at {entry['lr']:g}"
        for entry in _noted(entries)
    ]
    return f"{score.name.capitalize()}, each at its own learning rate: {join(texts)}."


def _noted(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries worth a sentence: the first three, and the model without any."""
    return [e for index, e in enumerate(entries) if index < 3 or e["label"] == NONE]


def _tolerance_sentence(entries: Sequence[Entry], key: str, words: str) -> str:
    texts = [f"{entry['label']} {entry[key]['text']}" for entry in _noted(entries) if entry[key]]
    return f"Tolerance to the {words}: {join(texts)}." if texts else ""


def _method_sentence(entries: Sequence[Entry]) -> str:
    seeds = min(entry["score"]["n"] for entry in entries)
    chance = number(100 * null_probability(seeds, seeds))
    return (
        "Learning rates were chosen by training loss. Two normalizers are separated when all "
        f"seeds of one beat all seeds of the other; with {plural(seeds, 'seed')} chance alone "
        f"separates equals in {chance}% of comparisons, here of "
        f"{plural(math.comb(len(entries), 2), 'pair')}."
    )


def _figure(score: Score, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the ranking as a figure: every normalizer's score at its own learning rate."""
    rows = [row(entry["label"], entry["score"]) for entry in entries]
    return {"kind": "dots", "panels": [{**score_panel(score, rows), "rows": rows}]}
