"""What is aimed at on a GPU, and how far results are from it, computed from their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anynorm.bench.cases import Case
from anynorm.errors import AnynormError
from benchmarks.speed.grids import GRIDS
from benchmarks.speed.peers import PEERS
from benchmarks.speed.show import machine

__all__ = ["GOALS", "Goal", "Outcome", "goal_lines", "outcome"]

Row = Mapping[str, Any]
Figure = Callable[[Row], float | None]


@dataclass(frozen=True)
class Goal:
    """A figure that is to be at least so much in each wanted case of a grid."""

    words: str
    least: float
    figure: Figure
    grid: str
    wants: Callable[[Case], bool]

    @property
    def cells(self) -> list[str]:
        """The names of the wanted cases."""
        return [case.name for case in GRIDS[self.grid] if self.wants(case)]


@dataclass(frozen=True)
class Outcome:
    """How many cells are wanted, were measured and reach the goal, and which is the worst.

    A cell in which we failed was measured and does not reach it.
    """

    wanted: int
    measured: int
    met: int
    worst: tuple[str, float] | None

    @property
    def verdict(self) -> str:
        """Say yes only of a goal that every wanted cell reaches."""
        if not self.measured:
            return "not measured"
        if self.met < self.measured:
            return "no"
        return "yes" if self.measured == self.wanted else "open"


def _share(row: Row) -> float | None:
    return float(row["share"]["ours"])


def _against_torch(row: Row) -> float | None:
    return row["ratio"]["eager"]["median"] if "eager" in row["ratio"] else None


def _against_all(row: Row) -> float | None:
    """The smallest ratio, where others than torch.nn took part."""
    ratios = {name: ratio["median"] for name, ratio in row["ratio"].items()}
    return min(ratios.values()) if ratios.keys() - {"eager"} else None


def _kept(row: Row) -> float | None:
    """Bytes that torch keeps over those that we keep."""
    found = {name: memory["bytes"] for name, memory in row["kept"].items()}
    return found["eager"] / found["ours"] if found.keys() >= {"eager", "ours"} else None


def _batch(*fusions: str) -> Callable[[Case], bool]:
    return lambda case: (
        case.normalizer == "batch" and case.fusion in fusions and case.phase == "both"
    )


def _last(case: Case) -> bool:
    return (
        case.normalizer in ("group", "instance")
        and case.layout == "channels_last"
        and case.phase == "both"
    )


def _of_rows(case: Case) -> bool:
    return case.normalizer in ("layer", "rms")


FUSED = ("relu", "add+relu")
# φ's mask is kept as bits: 1/16 of the input in bf16, so that half is 0.53 of torch's bytes.
HALF = 1 / 0.55
GOALS = (
    Goal(
        "row norms, forward: 90% of the copy's bandwidth",
        0.9, _share, "rows", lambda case: case.phase == "forward",
    ),
    Goal(
        "row norms, forward + backward: 85% of the copy's bandwidth",
        0.85, _share, "rows", lambda case: case.phase == "both",
    ),
    Goal("row norms: as fast as every peer", 1.0, _against_all, "peers", _of_rows),
    Goal("batch norm: 1.3 × torch", 1.3, _against_torch, "images", _batch("plain")),
    Goal("batch norm + (add +) ReLU: 2 × torch", 2.0, _against_torch, "images", _batch(*FUSED)),
    Goal(
        "batch norm + (add +) ReLU: at most 0.55 of torch's bytes kept",
        HALF, _kept, "images", _batch(*FUSED),
    ),
    Goal("group and instance norm, channels_last: 2 × torch", 2.0, _against_torch, "images", _last),
    Goal("small shapes: never slower than torch", 1.0, _against_torch, "launch", lambda _: True),
)  # fmt: skip


def outcome(goal: Goal, results: Sequence[Mapping[str, Any]]) -> Outcome:
    """Compare the results with a goal; of a cell that was measured twice the worse counts."""
    wanted = goal.cells
    figures: dict[str, float] = {}
    for name, figure in _figures(goal, results):
        if figure is not None and name in wanted:
            figures[name] = min(figure, figures.get(name, figure))
    met = sum(figure >= goal.least for figure in figures.values())
    worst = min(figures.items(), key=lambda item: item[1], default=None)
    return Outcome(len(wanted), len(figures), met, worst)


def _figures(
    goal: Goal, results: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, float | None]]:
    for result in results:
        for row in result.get("cases", ()):
            yield row["name"], goal.figure(row)
        for failure in result.get("failed", ()):
            if failure["contestant"] in ("ours", "process"):
                yield failure["name"], 0.0


def goal_lines(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table in Markdown; raises `AnynormError` for results of a processor."""
    for result in results:
        if not result["about"].get("gpu"):
            raise AnynormError(
                "the goals are those of a GPU, and these are results of a processor; measure with "
                "--device cuda."
            )
    yield from _heading(results)
    yield "| goal | reached | cells that reach it | measured | wanted | worst |"
    yield "|---|---|---|---|---|---|"
    for goal in GOALS:
        found = outcome(goal, results)
        worst = f"{found.worst[1]:.2f} in {found.worst[0]}" if found.worst else "–"
        counts = f"{found.met} | {found.measured} | {found.wanted}"
        yield f"| {goal.words} | {found.verdict} | {counts} | {worst} |"


def _heading(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "; ".join(dict.fromkeys(machine(result["about"]) for result in results)) + "."
    rows = [row for result in results for row in result.get("cases", ())]
    met = [peer for peer in PEERS if any(peer in row["ratio"] for row in rows)]
    titles = [PEERS[peer].title for peer in met]
    failures = sum(len(result.get("failed", ())) for result in results)
    yield f"Compared with {', '.join(titles) or 'nobody'}; {failures} contestants failed in a case."
    yield ""
