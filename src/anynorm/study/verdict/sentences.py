"""The verdict in words: the recommendation with its reasons and limits, and how it was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anynorm.catalogue import catalogue
from anynorm.study.inference import Comparison
from anynorm.study.spread import Score
from anynorm.study.verdict.causes import LAG, Cause
from anynorm.study.verdict.recommend import NONE, Choice, wider
from anynorm.study.wording import join, plural, score_text, signed

__all__ = ["recommendation", "sentences"]

Entry = Mapping[str, Any]
_RISE = 5.0  # points of error at a small batch that are a limit worth naming


def recommendation(
    choice: Choice,
    entries: Sequence[Entry],
    comparisons: Sequence[Comparison],
    causes: Sequence[Cause],
    score: Score,
    margin: float,
) -> str:
    """Return what to use, why, and within which limits."""
    if not entries:
        return "Nothing was measured: no run has finished."
    if len(entries) == 1:
        return f"Only {entries[0]['label']} was run: a comparison needs at least two normalizers."
    if all(entry["score"]["median"] is None for entry in entries):
        return "Most runs of every normalizer diverged, at every learning rate that was tried."
    parts = [_about_score(choice, comparisons, score, margin)]
    by_name = {entry["label"]: entry for entry in entries}
    if choice.name is not None:
        entry = by_name[choice.name]
        parts += [
            _advice(choice, entry, by_name.get(NONE)),
            _limit(entry, entries),
            _repair(entry, causes),
        ]
    else:
        parts.append(_what_would_tell(comparisons))
    return " ".join(part for part in parts if part)


def _about_score(
    choice: Choice, comparisons: Sequence[Comparison], score: Score, margin: float
) -> str:
    against_none = {c.a: c for c in comparisons if c.b == NONE}
    if not against_none:
        return _about_best(choice, comparisons, score)
    found = against_none.get(choice.name or "")
    if found is None:
        return _about_all(list(against_none.values()), score, margin)
    return _compared_with_none(found, score, margin)


def _compared_with_none(found: Comparison, score: Score, margin: float) -> str:
    about = f"{score.name} between {found.a} and {found.b}"
    if found.answer == "better":
        return f"{_gain(found, score)} with {found.a} than without normalization."
    if found.answer == "equivalent":
        return f"Equivalent {about} (within {margin:g} {score.unit}: {_interval(found)})."
    if found.low is None:
        reason = "there is one seed" if found.test.startswith("none") else "runs diverged"
        return f"No detectable difference in {about} (no interval, since {reason})."
    return f"No detectable difference in {about} ({_interval(found)} {score.unit})."


def _gain(found: Comparison, score: Score) -> str:
    word = "higher" if score.higher_is_better else "lower"
    if found.difference is None or found.low is None:
        return f"{_capital(score.name)} is {word}"
    size = f"{found.difference:.1f} {score.unit}"
    return f"{_capital(score.name)} is {size} {word} ({_interval(found)})"


def _interval(found: Comparison) -> str:
    if found.low is None or found.high is None:
        return "no interval"
    return f"between {signed(found.low)} and {signed(found.high)}"


def _about_all(found: Sequence[Comparison], score: Score, margin: float) -> str:
    """Describe all normalizers against none, where none of them is recommended."""
    groups = {
        answer: [c for c in found if c.answer == answer]
        for answer in ("equivalent", "cannot tell", "harmful")
    }
    parts = []
    if same := groups["equivalent"]:
        parts.append(f"{_names(same)} within {margin:g} {score.unit} of none")
    if open_ := groups["cannot tell"]:
        parts.append(f"{_names(open_)} not told apart from none{_range_of(open_, score)}")
    if worse := groups["harmful"]:
        parts.append(f"{_names(worse)} worse than none")
    return f"{_capital(score.name)}: {'; '.join(parts)}."


def _names(found: Sequence[Comparison]) -> str:
    return join([c.a for c in found], most=4)


def _range_of(found: Sequence[Comparison], score: Score) -> str:
    ends = [(c.low, c.high) for c in found if c.low is not None and c.high is not None]
    if not ends:
        return ""
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return f" (differences between {signed(low)} and {signed(high)} {score.unit})"


def _about_best(choice: Choice, comparisons: Sequence[Comparison], score: Score) -> str:
    if choice.kind == "use":
        return f"{_capital(score.name)} is better with {choice.name} than with any other."
    if comparisons and all(c.answer == "equivalent" for c in comparisons):
        return f"Equivalent {score.name} with all normalizers."
    open_ = [c for c in comparisons if c.answer == "cannot tell"]
    if not open_:
        return ""
    return (
        f"No detectable difference in {score.name} between {open_[0].b} and {_names(open_)}"
        f"{_range_of(open_, score)}."
    )


def _advice(choice: Choice, entry: Entry, none: Entry | None) -> str:
    if choice.kind == "no benefit":
        return "No normalizer is needed for it."
    reasons = choice.reasons or _reasons(entry, none)
    return f"Use {choice.name}{': ' + '; '.join(reasons) if reasons else ''}."


def _reasons(entry: Entry, none: Entry | None) -> list[str]:
    """Return what else speaks for a normalizer that is better anyway."""
    rates = entry["lr_tolerance"]
    is_range = rates and rates["low"] is not None and rates["low"] < rates["high"]
    if none is None or not is_range or not none["lr_tolerance"]:
        return []
    return [wider("lr_tolerance", entry, none)]


def _limit(entry: Entry, entries: Sequence[Entry]) -> str:
    """Return the batch size below which it should be avoided.

    Small batches may train worse for another reason than the statistics. So the rise of the error
    counts beyond that of a normalizer without batch statistics, where one was measured.
    """
    steady = next((e for e in entries if e.get("batch_sizes") and _is_steady(e)), None)
    usual = dict(steady["batch_sizes"]) if steady and not _is_steady(entry) else {}
    rises = {
        size: None if rise is None else rise - max(usual.get(size) or 0.0, 0.0)
        for size, rise in entry.get("batch_sizes") or []
    }
    bad = [size for size, rise in rises.items() if rise is None or rise > _RISE]
    good = [size for size in rises if size > max(bad, default=0)]
    if not bad or not good:
        return ""
    return f"Avoid it below batch size {min(good)}."


def _is_steady(entry: Entry) -> bool:
    norm = str(entry["label"]).partition("(")[0]
    return norm in catalogue and not catalogue[norm].state


def _repair(entry: Entry, causes: Sequence[Cause]) -> str:
    for cause in causes:
        if cause.name == LAG and entry["label"] in cause.normalizers:
            return f"Its running statistics lag behind: {_lower(cause.action)}"
    return ""


def _what_would_tell(comparisons: Sequence[Comparison]) -> str:
    open_ = [c for c in comparisons if c.answer == "cannot tell"]
    needed = [c.seeds for c in open_ if c.seeds is not None]
    if not open_:
        return ""
    if not needed:
        return "More seeds alone would not tell."
    seeds = plural(min(needed), "seed")
    return f"If difference and spread stay as they are, {seeds} would decide the first of these."


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
    return f"{_capital(score.name)}, each at its own learning rate: {join(texts)}."


def _noted(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries worth a sentence: the first three, and the model without any."""
    return [e for index, e in enumerate(entries) if index < 3 or e["label"] == NONE]


def _range_sentence(entries: Sequence[Entry], key: str, words: str) -> str:
    texts = [f"{entry['label']} {entry[key]['text']}" for entry in _noted(entries) if entry[key]]
    return f"Usable {words}: {join(texts)}." if texts else ""


def _method_sentence(comparisons: Sequence[Comparison], looks: int) -> str:
    tests = list(dict.fromkeys(c.test for c in comparisons if not c.test.startswith("none")))
    if not tests:
        return "Learning rates were chosen by training loss."
    repeated = (
        f" The study is looked at up to {looks} times, which is allowed for." if looks > 1 else ""
    )
    return (
        f"Learning rates were chosen by training loss. Compared by: {join(tests)}. Each end of an "
        f"interval holds with 95% confidence for all comparisons together.{repeated}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
