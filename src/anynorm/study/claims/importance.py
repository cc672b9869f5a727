"""Whether |γ| says which channels matter, within a layer and across layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from anynorm.study.claims.affine import CHOICES, NOT_MEASURED, measured
from anynorm.study.claims.intervals import Interval, cells, interval, interval_text
from anynorm.study.claims.outcome import row
from anynorm.study.claims.question import Answer, Question, Table, ends, table
from anynorm.study.layer_names import of_record
from anynorm.study.selection import Runs
from anynorm.study.spread import finite, spread
from anynorm.study.wording import join, number

__all__ = ["QUESTIONS"]

Found = Mapping[str, Any]
# The share of constant channels that the sentence describes.
SHARE = 0.3
# If all channels are equal, the rank correlation is not defined.
LOST = "not defined in some runs"
WAYS = {"by_layer": "of each layer", "overall": "of all layers together"}


def _importance(runs: Runs) -> Answer | str:
    groups = measured(runs, "importance")
    if not groups:
        return NOT_MEASURED
    figure = {"kind": "dots", "panels": [*_loss_panels(groups), *_correlation_panels(groups)]}
    sentence = " ".join(_judgement(name, found) for name, found in groups.items())
    within, *_ = _answers(groups.get("batch") or next(iter(groups.values())))
    return Answer(
        sentence,
        figure,
        [_correlation_table(groups), _loss_table(groups)],
        status={"yes": "shown", "no": "contradicted"}.get(within, "cannot tell"),
        statement="Within a layer, |γ| says which channels matter.",
    )


def _within(found: Found) -> float | None:
    """Return the mean over the layers of the correlation within each."""
    known = [value for value in found["within"] if finite(value) is not None]
    return fmean(known) if known else None


def _across(found: Found) -> float | None:
    return finite(found["across"])


SCOPES = {"within a layer": _within, "over all layers": _across}


def _correlations(runs: Sequence[Found]) -> dict[str, list[float | None]]:
    return {words: [pick(found) for found in runs] for words, pick in SCOPES.items()}


def _loss(found: Found, way: str, choice: str, share: float) -> float | None:
    """Return the loss with a share of the channels constant: the median over random choices."""
    value = found[way][choice][found["shares"].index(share)]
    if not isinstance(value, list):
        return finite(value)
    known = [one for one in value if finite(one) is not None]
    return sorted(known)[len(known) // 2] if known else None


def _loss_panels(groups: Mapping[str, Sequence[Found]]) -> Iterator[dict[str, Any]]:
    share = _shown_share(groups)
    for way, words in WAYS.items():
        rows = [
            row(
                name,
                spread([_loss(f, way, choice, share) for f in found], higher_is_better=False),
                choice,
            )
            for name, found in groups.items()
            for choice in CHOICES
        ]
        title = f"training loss with {100 * share:.0f}% {words} constant"
        yield {"title": title, "log": True, "rows": rows}


def _shown_share(groups: Mapping[str, Sequence[Found]]) -> float:
    shares = [float(share) for found in groups.values() for share in found[0]["shares"]]
    return min(shares, key=lambda share: abs(share - SHARE))


def _correlation_panels(groups: Mapping[str, Sequence[Found]]) -> Iterator[dict[str, Any]]:
    for words in SCOPES:
        rows = [
            row(name, spread(_correlations(found)[words], higher_is_better=True))
            for name, found in groups.items()
        ]
        yield {"title": f"rank correlation {words}", "log": False, "rows": rows}


def _judgement(name: str, runs: Sequence[Found]) -> str:
    """Judge both scopes by the correlation, and by whether |γ| is better than a random choice."""
    texts = []
    pairs = zip(_correlations(runs).items(), WAYS, _answers(runs), strict=True)
    for (words, values), way, answer in pairs:
        value = f"rank correlation {interval_text(interval(values), 2, sign=True, lost=LOST)}"
        texts.append(f"{ANSWERS[words][answer]}: {value}; {_choices_text(runs, way)}.")
    return " ".join(texts).replace("NAME", name)


def _answers(runs: Sequence[Found]) -> list[str]:
    """Return yes, no or unclear for each scope."""
    pairs = zip(_correlations(runs).values(), WAYS, strict=True)
    return [_both(_sign(interval(values)), _beats_random(runs, way)) for values, way in pairs]


ANSWERS = {
    "within a layer": {
        "yes": "Within a layer of NAME, |γ| orders the channels",
        "no": "Within a layer of NAME, |γ| does not order the channels",
        "unclear": "Within a layer of NAME, the seeds do not tell whether |γ| orders the channels",
    },
    "over all layers": {
        "yes": "Across layers |γ| is comparable",
        "no": "Across layers |γ| is not comparable",
        "unclear": "The seeds do not tell whether |γ| is comparable across layers",
    },
}


def _both(*answers: str) -> str:
    """Return yes if all say so, and no if one does."""
    return "no" if "no" in answers else "yes" if set(answers) == {"yes"} else "unclear"


def _sign(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "unclear"
    return "yes" if found.low > 0 else "no" if found.high < 0 else "unclear"


def _beats_random(runs: Sequence[Found], way: str) -> str:
    """Say whether removing the channels with the smallest |γ| costs less than random ones."""
    share = _shown_share({"": runs})
    gains = []
    for found in runs:
        small, random = (_loss(found, way, choice, share) for choice in CHOICES[:2])
        known = small is not None and random is not None and min(small, random) > 0
        gains.append(math.log(random / small) if known else None)  # type: ignore[operator]
    return _sign(interval(gains))


def _choices_text(runs: Sequence[Found], way: str) -> str:
    """Return the loss for each choice of the channels that become constant."""
    share = _shown_share({"": runs})
    medians = [
        spread([_loss(found, way, choice, share) for found in runs], higher_is_better=False)
        for choice in CHOICES
    ]
    texts = [
        f"{number(seeds['median'])} with the {choice}"
        if choice != "random"
        else f"{number(seeds['median'])} with random ones"
        for choice, seeds in zip(CHOICES, medians, strict=True)
    ]
    return f"with {100 * share:.0f}% {WAYS[way]} constant the loss is {join(texts)}"


def _correlation_table(groups: Mapping[str, Sequence[Found]]) -> Table:
    """Return each layer's correlation, and that over all layers, with intervals over seeds."""
    rows: list[list[Any]] = []
    for name, runs in groups.items():
        for place, layer in enumerate(of_record(runs[0])):
            values = [found["within"][place] for found in runs]
            counts = [runs[0]["channels"][place], len(runs[0]["gamma"][place])]
            rows.append([name, layer, *counts, *cells(interval(values), LOST)])
        for words, values in _correlations(runs).items():
            rows.append([name, words, "all", "all", *cells(interval(values), LOST)])
    columns = ["normalizer", "layer", "channels", "measured", "mean", "low", "high"]
    return table("Rank correlation of |γ| with the rise of the loss", columns, rows)


def _loss_table(groups: Mapping[str, Sequence[Found]]) -> Table:
    columns = ["normalizer", "chosen", "share, %", "|γ|", "seeds", "median", "low", "high"]
    rows = [
        [name, WAYS[way], 100 * share, choice, seeds["n"], *ends(seeds)]
        for name, runs in groups.items()
        for way in WAYS
        for share in runs[0]["shares"]
        for choice in CHOICES
        for seeds in [
            spread([_loss(found, way, choice, share) for found in runs], higher_is_better=False)
        ]
    ]
    return table("Training loss with constant channels", columns, rows)


QUESTIONS = (
    Question(
        "importance",
        "Does |γ| say which channels matter?",
        "After training, one channel at a time is made constant: its normalized value is set to "
        "0, so that it outputs β, and later layers use the statistics of the changed net. The "
        "importance of a channel is the rise of the loss, on 256 training samples in train mode. "
        "Its Spearman rank correlation with |γ| is measured within each layer (the mean over "
        "layers is shown), and over the channels of all layers. At most 400 channels of a model "
        "are measured, spread evenly. Then 10, 30 or 50% of the channels are made constant "
        "together: those with the smallest |γ|, random ones (median of 20 draws), or those with "
        "the largest, of each layer or of all layers together. |γ| orders the channels if the "
        "correlation is above zero, and making the smallest ones constant does less harm than "
        "random ones.",
        _importance,
    ),
)
