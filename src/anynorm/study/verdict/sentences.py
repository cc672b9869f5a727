"""The verdict in words: the recommendation with its reasons and limits, and how it was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anynorm.study.inference import Comparison
from anynorm.study.selection import uses_no_batch
from anynorm.study.spread import Score
from anynorm.study.verdict.causes import LAG, Cause
from anynorm.study.verdict.recommend import MUCH, NONE, Choice, is_wider, wider
from anynorm.study.wording import change_interval, change_size, join, plural, score_text

__all__ = ["recommendation", "sentences"]

Entry = Mapping[str, Any]


def recommendation(
    choice: Choice,
    entries: Sequence[Entry],
    comparisons: Sequence[Comparison],
    causes: Sequence[Cause],
    score: Score,
) -> str:
    """Return what to use, why, and within which limits."""
    if not entries:
        return "Nothing was measured: no run has finished."
    if len(entries) == 1:
        return f"Only {entries[0]['label']} was run: a comparison needs at least two normalizers."
    if all(entry["score"]["median"] is None for entry in entries):
        return "Most runs of every normalizer diverged, at every learning rate that was tried."
    parts = [_about_score(choice, comparisons, score)]
    by_name = {entry["label"]: entry for entry in entries}
    if choice.name is not None:
        entry = by_name[choice.name]
        parts += [
            _advice(choice, entry, by_name.get(NONE)),
            _rival(choice, comparisons, score),
            _limit(entry, entries, score),
            _repair(entry, causes),
        ]
    else:
        parts.append(_what_would_tell(comparisons))
    return " ".join(part for part in parts if part)


def _about_score(choice: Choice, comparisons: Sequence[Comparison], score: Score) -> str:
    against_none = {c.a: c for c in comparisons if c.b == NONE}
    if not against_none:
        return _about_best(choice, comparisons, score)
    found = against_none.get(choice.name or "")
    if found is None:
        return _about_all(list(against_none.values()), score)
    return _compared_with_none(found, score)


def _compared_with_none(found: Comparison, score: Score) -> str:
    both = f"{found.a} and {found.b}"
    if found.answer == "better":
        return f"{_gain(found, score)} with {found.a} than without normalization."
    if found.answer == "equivalent":
        return (
            f"{_capital(score.name)} is equivalent with {both}: the difference is "
            f"{_interval(found, score)}, within the margin of {_margin(score)}."
        )
    if found.low is None:
        reason = "there is one seed" if found.test.startswith("none") else "runs diverged"
        interval = f"no interval, because {reason}"
    else:
        interval = _interval(found, score)
    return f"No detectable difference in {score.name} between {both} ({interval})."


def _gain(found: Comparison, score: Score) -> str:
    word = "higher" if score.higher_is_better else "lower"
    if found.difference is None or found.low is None:
        return f"{_capital(score.name)} is {word}"
    size = change_size(found.difference, score)
    return f"{_capital(score.name)} is {size} {word} ({_interval(found, score)})"


def _interval(found: Comparison, score: Score) -> str:
    if found.low is None or found.high is None:
        return "no interval"
    return change_interval(found.low, found.high, score)


def _margin(score: Score) -> str:
    return f"{score.equal_within:g}{'%' if score.unit == '%' else f' {score.unit}'}"


def _about_all(found: Sequence[Comparison], score: Score) -> str:
    """Compare all normalizers with the model without, if no normalizer is recommended."""
    groups = {
        answer: [c for c in found if c.answer == answer]
        for answer in ("equivalent", "cannot tell", "harmful")
    }
    parts = []
    if same := groups["equivalent"]:
        parts.append(f"equivalent to none (within {_margin(score)}) with {_names(same)}")
    if open_ := groups["cannot tell"]:
        names = _names(open_)
        parts.append(f"no detectable difference from none with {names}{_range_of(open_, score)}")
    if worse := groups["harmful"]:
        parts.append(f"{join([_harm(c, score) for c in worse], most=4)}")
    return f"{_capital(score.name)}: {'; '.join(parts)}."


def _harm(found: Comparison, score: Score) -> str:
    if found.difference is None or found.low is None:
        return f"{found.a} worse than {found.b}"
    size = change_size(found.difference, score)
    return f"{found.a} {size} worse than {found.b} ({_interval(found, score)})"


def _names(found: Sequence[Comparison]) -> str:
    return join([c.a for c in found], most=4)


def _range_of(found: Sequence[Comparison], score: Score) -> str:
    known = [c for c in found if c.low is not None and c.high is not None]
    if not known:
        return ""
    low, high = min(known, key=lambda c: c.low or 0.0), max(known, key=lambda c: c.high or 0.0)
    return f" (differences {_interval(replace(low, high=high.high), score)})"


def _about_best(choice: Choice, comparisons: Sequence[Comparison], score: Score) -> str:
    if choice.kind == "use":
        known = [c for c in comparisons if c.difference is not None]
        nearest = max(known, key=lambda c: c.difference or 0.0, default=None)
        ending = f"; the next best is {_harm(nearest, score)}" if nearest else ""
        return f"{_capital(score.name)} is better with {choice.name} than with any other{ending}."
    if comparisons and all(c.answer == "equivalent" for c in comparisons):
        return f"{_capital(score.name)} is equivalent with all normalizers."
    open_ = [c for c in comparisons if c.answer == "cannot tell"]
    if not open_:
        worse = [_harm(c, score) for c in comparisons if c.answer == "harmful"]
        return f"{_capital(score.name)}: {join(worse, most=4)}." if worse else ""
    others = join([c.a for c in open_], most=4)
    each = f"each of {others}" if len(open_) > 1 else others
    return (
        f"No detectable difference in {score.name} between {open_[0].b} and {each}"
        f"{_range_of(open_, score)}."
    )


def _advice(choice: Choice, entry: Entry, none: Entry | None) -> str:
    if choice.kind == "no benefit":
        return "No normalizer is needed for this score."
    reasons = choice.reasons or _reasons(entry, none)
    return f"Use {choice.name}{': ' + '; '.join(reasons) if reasons else ''}."


def _reasons(entry: Entry, none: Entry | None) -> list[str]:
    """Return further reasons for a normalizer whose score is better."""
    key = "lr_tolerance"
    return [wider(key, entry, none)] if none is not None and is_wider(key, entry, none) else []


def _rival(choice: Choice, comparisons: Sequence[Comparison], score: Score) -> str:
    """Name the normalizer with the best score, if another one is recommended."""
    found = next((c for c in comparisons if c.a == choice.name and c.b != NONE), None)
    if found is None or found.answer != "cannot tell" or not found.low or found.low > 0:
        return ""
    return (
        f"{_capital(found.b)} may be up to {change_size(score.opposite(found.low), score)} better."
    )


def _limit(entry: Entry, entries: Sequence[Entry], score: Score) -> str:
    """Return the batch size below which the normalizer should be avoided.

    Small batches may train worse for other reasons than the statistics. So if a normalizer without
    batch statistics was measured, its rise of the error is subtracted.
    """
    if entry["small_batch"] is None:
        return ""
    steady = next((e for e in entries if e.get("batch_sizes") and uses_no_batch(e["label"])), None)
    usual = dict(steady["batch_sizes"]) if steady and not uses_no_batch(entry["label"]) else {}
    last = None
    for size, rise in sorted(entry.get("batch_sizes") or [], reverse=True):
        beyond = None if rise is None else rise - max(usual.get(size) or 0.0, 0.0)
        if size > entry["small_batch"]["reference"]:
            continue
        if beyond is None or beyond > MUCH * score.equal_within:
            return "" if last is None else f"Avoid {entry['label']} below batch size {last}."
        last = size
    return ""


def _repair(entry: Entry, causes: Sequence[Cause]) -> str:
    for cause in causes:
        if cause.name == LAG and entry["label"] in cause.normalizers:
            return f"The running statistics of {entry['label']} lag behind: {_lower(cause.action)}"
    return ""


def _what_would_tell(comparisons: Sequence[Comparison]) -> str:
    open_ = [c for c in comparisons if c.answer == "cannot tell" and not c.test.startswith("none")]
    needed = [c for c in open_ if c.seeds is not None]
    if needed:
        first = min(needed, key=lambda c: c.seeds or 0)
        return (
            f"If the difference and the spread stay the same, {plural(first.seeds or 0, 'seed')} "
            f"would decide between {first.a} and {first.b}."
        )
    if any(c.low is None for c in open_):
        return "More seeds may decide."
    if not open_:
        return ""
    return "More seeds alone would not decide: more held-out samples are needed."


def sentences(
    entries: Sequence[Entry], comparisons: Sequence[Comparison], score: Score, looks: int
) -> list[str]:
    """Return the numbers behind the verdict, and how it was reached."""
    if not entries:
        return []
    found = [
        _scores_sentence(score, entries),
        _range_sentence(entries, "lr_tolerance", "learning rates"),
        _range_sentence(entries, "init_tolerance", "factors of the initial weights"),
        _method_sentence(comparisons, looks),
    ]
    return [sentence for sentence in found if sentence]


def _scores_sentence(score: Score, entries: Sequence[Entry]) -> str:
    texts = [
        f"{entry['label']} {score_text(score, entry['score'])} at {entry['lr']:g}"
        for entry in _noted(entries)
    ]
    return f"{_capital(score.name)}, each normalizer at its own learning rate: {join(texts)}."


def _noted(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that a sentence names: the first three, and none."""
    return [e for index, e in enumerate(entries) if index < 3 or e["label"] == NONE]


def _range_sentence(entries: Sequence[Entry], key: str, words: str) -> str:
    texts = [f"{entry['label']} {entry[key]['text']}" for entry in _noted(entries) if entry[key]]
    return f"Usable {words}: {join(texts)}." if texts else ""


def _method_sentence(comparisons: Sequence[Comparison], looks: int) -> str:
    tests = list(dict.fromkeys(c.test for c in comparisons if not c.test.startswith("none")))
    if not tests:
        return "Learning rates were chosen by training loss."
    repeated = (
        f" The study may be evaluated up to {looks} times while it grows; the intervals account "
        "for this."
        if looks > 1
        else ""
    )
    return (
        f"Learning rates were chosen by training loss. Comparisons use {join(tests)}. Each end of "
        f"an interval holds with 95% confidence for all comparisons together.{repeated}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
