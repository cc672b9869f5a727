"""How often the study's verdict is wrong, and how often it finds a benefit that is there.

    python -m benchmarks.verdict              # 1,000 studies of each setting, 20 minutes, two cores
    python -m benchmarks.verdict --studies 200 --out /tmp/verdict.json

Synthetic records with known truth go through the same code as those of real studies. Scores are
accuracies with a deviation of one point over seeds. In a study without a benefit all normalizers
have the same expected score; in one with a benefit, batch norm is better by two points. Counted is
how often the verdict is "use" (or, for the classical tests, how often any normalizer is called
better than none, one-sided at 5% for all comparisons together).
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from anynorm.study.selection import studies
from anynorm.study.sequential import could_tell, looks, open_comparisons, seeds_to_add
from anynorm.study.verdict import decide
from benchmarks import RESULTS
from benchmarks.page import line
from benchmarks.result_files import about, read, write

__all__ = [
    "FILE",
    "SHAPES",
    "TESTS",
    "Setting",
    "error_table",
    "growth_table",
    "main",
    "margin_table",
    "power_table",
    "simulate",
]

FILE = RESULTS / "verdict.json"
COUNTS, SEEDS = (3, 8, 12), (3, 5, 10, 20)
BENEFIT = 2.0  # in deviations over seeds
DEVIATION = 0.01
NORMS = ("none", "batch", "layer", "group", "rms", "instance", "weight", "l1-batch")
NORMS += ("linf-batch", "filter-response", "zca", "cosine")
MARGIN = 3.0  # in points, and so in deviations: what studies of equivalence call no difference
LOST = 0.2  # share of runs that diverge, where runs do

Scores = np.ndarray  # of shape (normalizers, seeds); NaN is a run that diverged
Random = np.random.Generator


@dataclass(frozen=True)
class Setting:
    """A kind of study: how scores are distributed, how many there are, and the truth."""

    shape: str
    normalizers: int
    seeds: int
    benefit: float = 0.0


def _normal(random: Random, count: int, seeds: int) -> Scores:
    return random.standard_normal((count, seeds))


def _spread(*factors: Callable[[int], np.ndarray]) -> Callable[[Random, int, int], Scores]:
    def draw(random: Random, count: int, seeds: int) -> Scores:
        return _normal(random, count, seeds) * factors[0](count)[:, None]

    return draw


def _lognormal(sign: float) -> Callable[[Random, int, int], Scores]:
    def draw(random: Random, count: int, seeds: int) -> Scores:
        values = np.exp(_normal(random, count, seeds))
        return sign * (values - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)

    return draw


def _paired(random: Random, count: int, seeds: int) -> Scores:
    shared = random.standard_normal((1, seeds))
    return math.sqrt(0.5) * (_normal(random, count, seeds) + shared)


def _censored(random: Random, count: int, seeds: int) -> Scores:
    values = _normal(random, count, seeds)
    values[random.random(values.shape) < LOST] = np.nan
    return values


def _first(factor: float) -> Callable[[int], np.ndarray]:
    return lambda count: np.array([factor] + [1.0] * (count - 1))


def _second(factor: float) -> Callable[[int], np.ndarray]:
    return lambda count: np.array([1.0, factor] + [1.0] * (count - 2))


def _every_second(count: int) -> np.ndarray:
    return np.where(np.arange(count) % 2, 3.0, 1.0)


def _ladder(count: int) -> np.ndarray:
    return np.geomspace(4.0, 1.0, count)


def _skewed_and_spread(random: Random, count: int, seeds: int) -> Scores:
    values = _lognormal(-1.0)(random, count, seeds)
    return values * _every_second(count)[:, None]


SHAPES: dict[str, Callable[[Random, int, int], Scores]] = {
    "normal, equal spread": _normal,
    "none spreads 3 times as far": _spread(_first(3.0)),
    "batch spreads 3 times as far": _spread(_second(3.0)),
    "every second one spreads 3 times as far": _spread(_every_second),
    "spreads fall from 4 to 1": _spread(_ladder),
    "skewed to the right (log-normal)": _lognormal(1.0),
    "skewed to the left (log-normal)": _lognormal(-1.0),
    "skewed to the left, every second one spreads 3 times as far": _skewed_and_spread,
    "half of the variance shared by seeds": _paired,
    "one run in five diverges": _censored,
}


def draw(setting: Setting, studies: int, random: Random) -> Scores:
    """Draw the scores of many studies, in deviations from the common truth."""
    shape = SHAPES[setting.shape]
    scores = np.stack([shape(random, setting.normalizers, setting.seeds) for _ in range(studies)])
    scores[:, 1] += setting.benefit
    return scores


def record(norm: str, seed: int, value: float) -> dict[str, Any]:
    """Return the record of a run with this score; it has what a verdict needs and no more."""
    finished = not math.isnan(value)
    accuracy = 0.9 + DEVIATION * value if finished else None
    cell = {"subject": "simulated", "data": "simulated", "norm": norm, "norm_options": []}
    cell |= {"lr": 0.1, "init": 1.0, "batch": 60, "placement": "before", "noise": False}
    cell |= {"optimizer": "sgd", "steps": 100, "seed": seed}
    return {
        "cell": cell,
        "task": "classification",
        "status": "ok" if finished else "diverged",
        "diverged_at": None if finished else 3,
        "final": {"test_accuracy": accuracy, "train_loss": 0.1 if finished else None},
    }


def verdict_now(scores: Scores) -> Scores:
    """Whether the verdict of today says to use a normalizer because it is better."""
    return np.array([_verdict(one)["kind"] == "use" for one in scores])


def _verdict(scores: Scores, margin: float | None = None) -> dict[str, Any]:
    records = [
        record(name, seed, float(value))
        for name, row in zip(NORMS, scores, strict=False)
        for seed, value in enumerate(row)
    ]
    [runs] = studies(records, margin)
    return decide(runs)


def rule_before(scores: Scores) -> Scores:
    """The rule of earlier versions: every seed of one normalizer beats every seed of all others."""
    values = np.nan_to_num(scores, nan=-np.inf)
    low, high = values.min(axis=2), values.max(axis=2)
    above = [(low[:, [k]] > np.delete(high, k, axis=1)).all(axis=1) for k in range(1, low.shape[1])]
    return np.any(above, axis=0)


def dunnett(scores: Scores) -> Scores:
    """Dunnett's test, with SciPy's critical value."""
    _, count, seeds = scores.shape
    variance = scores.var(axis=2, ddof=1).mean(axis=1, keepdims=True)
    means = scores.mean(axis=2)
    t = (means[:, 1:] - means[:, :1]) / np.sqrt(2 * variance / seeds)
    return t.max(axis=1) > _dunnett_critical(count, seeds)


@cache
def _dunnett_critical(count: int, seeds: int) -> float:
    """SciPy gives it in the form of an interval, which is so many standard errors wide."""
    scores = np.random.default_rng(0).standard_normal((count, seeds))
    found = stats.dunnett(*scores[1:], control=scores[0], alternative="greater", rng=0)
    with warnings.catch_warnings():
        # SciPy integrates at random, and says that it meets the level to three digits only.
        warnings.simplefilter("ignore", UserWarning)
        low = found.confidence_interval(0.95).low
    error = math.sqrt(2 * scores.var(axis=1, ddof=1).mean() / seeds)
    difference = scores[1].mean() - scores[0].mean()
    return float((difference - low[0]) / error)


def welch(scores: Scores) -> Scores:
    """Welch's t test with Bonferroni's correction."""
    options = {"axis": 2, "equal_var": False, "alternative": "greater"}
    p = stats.ttest_ind(scores[:, 1:], scores[:, :1], **options).pvalue
    return p.min(axis=1) * p.shape[1] <= 0.05


def mann_whitney(scores: Scores) -> Scores:
    """The rank test of Mann and Whitney with Bonferroni's correction."""
    ranks = np.nan_to_num(scores, nan=-1e9)
    p = stats.mannwhitneyu(ranks[:, 1:], ranks[:, :1], axis=2, alternative="greater").pvalue
    return p.min(axis=1) * p.shape[1] <= 0.05


def equivalent_at_the_margin(scores: Scores) -> Scores:
    """Whether batch norm is called equivalent to none, in a study whose margin is `MARGIN`."""
    found = [_verdict(one, margin=MARGIN)["comparisons"][0] for one in scores]
    return np.array([comparison["answer"] == "equivalent" for comparison in found])


def grown(scores: Scores) -> Scores:
    """Whether a study that grows until it is decided says at its end to use a normalizer."""
    return np.array([_grow(one) for one in scores])


def _grow(scores: Scores) -> bool:
    """Grow a study as `anynorm.study` does with until_decided."""
    counts = looks(3)
    names = NORMS[: len(scores)]
    records = [_run(scores, name, seed) for name in names for seed in range(counts[0])]
    for count in counts[1:]:
        unsettled = open_comparisons(records, None, len(counts))
        hopeful = [comparison for comparison in unsettled if could_tell(comparison)]
        if not hopeful:
            break
        cells = seeds_to_add(records, hopeful, count)
        records += [_run(scores, cell.norm, cell.seed) for cell in cells]
    [runs] = studies(records)
    return bool(decide(runs, looks=len(counts))["kind"] == "use")


def _run(scores: Scores, name: str, seed: int) -> dict[str, Any]:
    return record(name, seed, float(scores[NORMS.index(name), seed]))


TESTS: dict[str, Callable[[Scores], Scores]] = {
    "before": rule_before,
    "now": verdict_now,
    "Dunnett": dunnett,
    "Welch": welch,
    "Mann-Whitney": mann_whitney,
}
# The t tests have no way to count a run that diverged.
WITHOUT_LOST = ("Dunnett", "Welch")


def simulate(setting: Setting, count: int, seed: int = 0) -> dict[str, float]:
    """Return the share of `count` studies in which each test finds a benefit."""
    key = [seed, *map(ord, setting.shape), setting.normalizers, setting.seeds]
    scores = draw(setting, count, np.random.default_rng(key))
    lost = bool(np.isnan(scores).any())
    return {
        name: float(test(scores).mean())
        for name, test in TESTS.items()
        if not (lost and name in WITHOUT_LOST)
    }


def simulate_one(
    setting: Setting, count: int, seed: int, test: Callable[[Scores], Scores]
) -> dict[str, float]:
    """Return the share of `count` studies in which a test of ours alone says yes."""
    key = [seed, setting.normalizers, setting.seeds]
    return {"now": float(test(draw(setting, count, np.random.default_rng(key))).mean())}


def settings() -> Iterator[Setting]:
    """Every setting: without a benefit and with one."""
    for shape in SHAPES:
        for count in COUNTS:
            for seeds in SEEDS:
                yield Setting(shape, count, seeds)
        for count in COUNTS[:2]:
            for seeds in SEEDS:
                yield Setting(shape, count, seeds, BENEFIT)


def growing() -> Iterator[Setting]:
    """The settings of studies that grow from 3 to 32 seeds: no benefit, and one of a deviation."""
    for count in COUNTS[:2]:
        for benefit in (0.0, 1.0):
            yield Setting("normal, equal spread", count, looks(3)[-1], benefit)


def at_the_margin() -> Iterator[Setting]:
    """The settings in which batch norm is worse by just the margin: "equivalent" is wrong."""
    for seeds in SEEDS:
        yield Setting("normal, equal spread", COUNTS[1], seeds, -MARGIN)


def _job(job: tuple[str, Setting, int, int]) -> dict[str, Any]:
    part, setting, count, seed = job
    if part == "once":
        found = simulate(setting, count, seed)
    else:
        test = grown if part == "grows" else equivalent_at_the_margin
        found = simulate_one(setting, count, seed, test)
    return {**asdict(setting), "part": part, "studies": count, "found": found}


def error_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The largest error of each test over the numbers of normalizers and seeds."""
    lines = [line(("scores", *TESTS)), "|---" * (1 + len(TESTS)) + "|"]
    for shape in SHAPES:
        chosen = [
            row["found"]
            for row in rows
            if row["part"] == "once" and row["shape"] == shape and not row["benefit"]
        ]
        worst = {name: max((f[name] for f in chosen if name in f), default=None) for name in TESTS}
        lines.append(line((shape, *map(_percent, worst.values()))))
    return "\n".join(lines)


def power_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often each test finds the benefit, by seeds, with the fewest and the most normalizers."""
    head = ("scores", "normalizers", "test", *(f"{seeds} seeds" for seeds in SEEDS))
    lines = [line(head), "|---" * len(head) + "|"]
    for shape in SHAPES:
        for count in COUNTS[:2]:
            found = {
                row["seeds"]: row["found"]
                for row in rows
                if row["shape"] == shape and row["normalizers"] == count
                if row["part"] == "once" and row["benefit"]
            }
            for name in TESTS:
                values = [found[seeds].get(name) for seeds in SEEDS if seeds in found]
                if any(value is not None for value in values):
                    lines.append(line((shape, str(count), name, *map(_percent, values))))
    return "\n".join(lines)


def growth_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What studies say that grow from 3 seeds to as many as it takes, at most 32."""
    lines = [line(("normalizers", "benefit, deviations", "use, %")), "|---" * 3 + "|"]
    for row in rows:
        if row["part"] == "grows":
            cells = (str(row["normalizers"]), f"{row['benefit']:g}", _percent(row["found"]["now"]))
            lines.append(line(cells))
    return "\n".join(lines)


def margin_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often equivalence is claimed where the difference is just the margin."""
    cells = [
        (str(row["seeds"]), _percent(row["found"]["now"]))
        for row in rows
        if row["part"] == "margin"
    ]
    return "\n".join([line(("seeds", "called equivalent, %")), "|---|---|", *map(line, cells)])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate every setting and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1000, help="studies of each setting (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (0)")
    parser.add_argument("--processes", type=int, default=2, help="at a time (2)")
    parser.add_argument(
        "--shapes", nargs="+", help="only these scores; keep the rest of the result"
    )
    parser.add_argument("--out", type=Path, default=FILE, help=f"the result ({FILE})")
    options = parser.parse_args(arguments)
    parts = {"once": settings, "grows": growing, "margin": at_the_margin}
    jobs = [
        (part, setting, options.studies, options.seed)
        for part, made in parts.items()
        for setting in made()
        if options.shapes is None or setting.shape in options.shapes
    ]
    kept = [] if options.shapes is None else read(options.out)["rows"]
    kept = [row for row in kept if row["shape"] not in options.shapes]
    with Pool(options.processes) as pool:
        rows = kept + list(pool.imap(_job, jobs))
    write(options.out, {"about": about("default", {}), "rows": rows})
    print(error_table(rows), power_table(rows), growth_table(rows), margin_table(rows), sep="\n\n")


if __name__ == "__main__":
    main()
