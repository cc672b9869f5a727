"""Comparisons with four answers: better, equivalent, cannot tell, harmful."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from typing import Any

from anynorm.study.inference.errors import Difference, Errors, item_variance
from anynorm.study.inference.joint import many_to_one_level, range_level, t_quantile
from anynorm.study.inference.permutation import p_values
from anynorm.study.inference.sample import Sample

__all__ = ["ANSWERS", "LEVEL", "Comparison", "against_control", "among_best"]

ANSWERS = ("better", "equivalent", "cannot tell", "harmful")
LEVEL = 0.05
Pair = tuple[int, int]
# The choice between pooled and separate variances uses the data, which costs up to a tenth of the
# allowed error. The table in docs/study.md has the error that is reached.
_FOR_THE_CHOICE = 0.9
# Ranks are compared only in pairs in which runs diverged, and a control whose runs diverged looks
# worse than it is: with several pairs this costs a fifth of the error.
_WHERE_RUNS_DIVERGED = 0.8
_MOST_SEEDS = 100_000

_NAMES = {
    ("control", "pooled"): "Dunnett's test",
    ("control", "pooled, seeds as blocks"): "Dunnett's test with seeds as blocks",
    ("control", "separate"): "Welch's test adjusted for all comparisons",
    ("control", "paired"): "paired t test adjusted for all comparisons",
    ("best", "pooled"): "Tukey's test",
    ("best", "pooled, seeds as blocks"): "Tukey's test with seeds as blocks",
    ("best", "separate"): "Games-Howell test",
    ("best", "paired"): "paired t test adjusted for all pairs",
}


@dataclass(frozen=True)
class Comparison:
    """Sample `a` against sample `b`, in one quantity; larger is better.

    `low` and `high` are the ends of the interval of the difference; each end holds with 95%
    confidence, for all comparisons of the family together. An end is None if it is not bounded:
    with one seed, or if runs diverged. `answer` is one of `ANSWERS`, and `test` names the test.
    If the answer is "cannot tell", `seeds` is the number of seeds that would decide if the
    difference and the spread stay the same; it is None if no number would decide.
    """

    a: str
    b: str
    quantity: str
    answer: str
    difference: float | None
    low: float | None
    high: float | None
    test: str
    seeds: int | None = None

    @property
    def not_excluded(self) -> float | None:
        """The largest difference, in either direction, that is not excluded."""
        if self.low is None or self.high is None:
            return None
        return max(abs(self.low), abs(self.high))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "not_excluded": self.not_excluded}


def against_control(
    control: Sample,
    others: Sequence[Sample],
    *,
    quantity: str,
    margin: float,
    level: float = LEVEL,
) -> list[Comparison]:
    """Compare each of `others` with `control`.

    If no sample is better, the probability that any is called better is at most `level`. The same
    holds for harmful. The table in docs/study.md has simulated error rates, and the cases in which
    the level is not kept.

    Args:
        control: the reference sample, such as no normalization.
        others: the other samples.
        quantity: what the values are, in words.
        margin: differences within ± `margin` are called equivalent.
        level: the error that is allowed in each direction.

    Example:
        >>> none, batch = Sample("none", [90.1, 90.4, 89.9]), Sample("batch", [95.2, 94.8, 95.1])
        >>> [found] = against_control(none, [batch], quantity="accuracy", margin=0.5)
        >>> found.answer, round(found.difference, 1), found.test
        ('better', 4.9, "Dunnett's test")
    """
    samples = [control, *others]
    pairs = [(place, 0) for place in range(1, len(samples))]

    def joint(differences: Sequence[Difference], error: float) -> float:
        # Samples that cannot be compared by intervals count as independent comparisons.
        shares = [d.share for d in differences] + [0.0] * (len(others) - len(differences))
        return many_to_one_level(shares, error)

    family = _Family("control", quantity, margin, level, joint)
    return family.compare(samples, pairs)


def among_best(
    samples: Sequence[Sample], *, quantity: str, margin: float, level: float = LEVEL
) -> list[Comparison]:
    """Compare each sample with the one that has the best mean.

    The data choose the best one, so the error rate is that of all pairs: if all samples are equal,
    the probability that any is called harmful is at most `level`.

    Example:
        >>> rms, layer = Sample("rms", [90.1, 90.4, 89.9]), Sample("layer", [95.2, 94.8, 95.1])
        >>> [(found.a, found.b, found.answer)
        ...  for found in among_best([rms, layer], quantity="accuracy", margin=0.5)]
        [('rms', 'layer', 'harmful')]
    """
    middles = [sample.middle for sample in samples]
    known = [place for place, middle in enumerate(middles) if middle is not None]
    if not known or len(samples) < 2:
        return []
    best = max(known, key=lambda place: (middles[place], -samples[place].diverged))
    pairs = [(place, best) for place in range(len(samples)) if place != best]

    def joint(_: Sequence[Difference], error: float) -> float:
        return range_level(len(samples), error)

    family = _Family("best", quantity, margin, level, joint)
    return family.compare(samples, pairs)


@dataclass(frozen=True)
class _Family:
    """Comparisons with a common error rate."""

    kind: str
    quantity: str
    margin: float
    level: float
    joint: Callable[[Sequence[Difference], float], float]

    def compare(self, samples: Sequence[Sample], pairs: Sequence[Pair]) -> list[Comparison]:
        """Compare the samples at the places in `pairs`, the first of a pair with the second."""
        few = {place for place, sample in enumerate(samples) if len(sample.values) < 2}
        # A sample with a single seed must not prevent the comparison of the others.
        enough = [pair for pair in pairs if not few & {*pair}]
        lost = {pair for pair in enough if any(samples[place].diverged for place in pair)}
        found = {(a, b): self._too_few(samples[a], samples[b]) for a, b in pairs}
        found |= self._by_interval(samples, [pair for pair in enough if pair not in lost])
        found |= self._by_permutation(samples, enough, lost)
        return [found[pair] for pair in pairs]

    def _too_few(self, a: Sample, b: Sample) -> Comparison:
        return self._comparison(a, b, "cannot tell", test="none: two seeds or more are needed")

    def _by_interval(
        self, samples: Sequence[Sample], pairs: Sequence[Pair]
    ) -> dict[Pair, Comparison]:
        if not pairs:
            return {}
        whole = [
            place
            for place, sample in enumerate(samples)
            if not sample.diverged and len(sample.values) > 1
        ]
        errors = Errors([samples[place] for place in whole])
        differences = [errors.difference(*map(whole.index, pair)) for pair in pairs]
        level = self.joint(differences, _FOR_THE_CHOICE * self.level)
        return {
            (a, b): self._from_interval(samples[a], samples[b], difference, level)
            for (a, b), difference in zip(pairs, differences, strict=True)
        }

    def _from_interval(
        self, a: Sample, b: Sample, difference: Difference, level: float
    ) -> Comparison:
        half = t_quantile(level, difference.freedom) * difference.error
        low, high = difference.value - half, difference.value + half
        answer = _answer(low, high, self.margin)
        return self._comparison(
            a,
            b,
            answer,
            low=low,
            high=high,
            test=_NAMES[self.kind, difference.method],
            seeds=_seeds(difference, level, self.margin) if answer == "cannot tell" else None,
        )

    def _by_permutation(
        self, samples: Sequence[Sample], pairs: Sequence[Pair], lost: Collection[Pair]
    ) -> dict[Pair, Comparison]:
        """Compare the pairs in `lost`, in which runs diverged, so that there is no interval."""
        if not lost:
            return {}
        chosen = [place for place, sample in enumerate(samples) if len(sample.values) > 1]
        family = [*permutations(chosen, 2)] if self.kind == "best" else [*pairs]

        def values(directed: Sequence[Pair]) -> list[float]:
            places = [(chosen.index(a), chosen.index(b)) for a, b in directed]
            return p_values([samples[place] for place in chosen], places)

        better = dict(zip(family, values(family), strict=True))
        turned = [(b, a) for a, b in family]
        # All ordered pairs contain each pair in both directions, so one test serves both.
        both = set(turned) == set(family)
        worse = [better[pair] for pair in turned] if both else values(turned)
        harmful = dict(zip(family, worse, strict=True))
        level = self.level if len(pairs) == 1 else _WHERE_RUNS_DIVERGED * self.level
        found = {}
        for a, b in lost:
            answer = "cannot tell"
            if better[a, b] <= level and _beyond_items(samples[a], samples[b], level):
                answer = "better"
            elif harmful[a, b] <= level and _beyond_items(samples[b], samples[a], level):
                answer = "harmful"
            test = "permutation test of ranks with diverged runs last"
            found[a, b] = self._comparison(samples[a], samples[b], answer, test=test)
        return found

    def _comparison(self, a: Sample, b: Sample, answer: str, **found: Any) -> Comparison:
        ends = (a.middle, b.middle)
        difference = None if ends[0] is None or ends[1] is None else ends[0] - ends[1]
        given = {"difference": difference, "low": None, "high": None} | found
        return Comparison(a=a.name, b=b.name, quantity=self.quantity, answer=answer, **given)


def _beyond_items(a: Sample, b: Sample, level: float) -> bool:
    """Whether the choice of held-out items alone does not explain that `a` is better than `b`.

    The test of ranks does not include this choice. If all runs of a sample diverged, it is worse
    for any choice of items.
    """
    variance, freedom = item_variance(a, b)
    if variance <= 0 or not (len(a.finite) and len(b.finite)):
        return True
    difference = float(a.finite.mean() - b.finite.mean())
    more_lost = b.diverged / len(b.values) > a.diverged / len(a.values)
    return more_lost or difference > t_quantile(level, freedom) * variance**0.5


def _answer(low: float, high: float, margin: float) -> str:
    if low > 0:
        return "better"
    if high < 0:
        return "harmful"
    return "equivalent" if max(-low, high) <= margin else "cannot tell"


def _seeds(difference: Difference, level: float, margin: float) -> int | None:
    """The number of seeds that would decide if difference and spread stay the same."""

    def decides(count: int) -> bool:
        known = difference.count
        more = replace(
            difference,
            seeds=difference.seeds * known / count,
            seed_freedom=difference.seed_freedom * (count - 1) / (known - 1),
        )
        half = t_quantile(level, more.freedom) * more.error
        return _answer(more.value - half, more.value + half, margin) != "cannot tell"

    counts = range(difference.count + 1, _MOST_SEEDS + 1)
    first = bisect_left(counts, True, key=decides)
    return counts[first] if first < len(counts) else None
