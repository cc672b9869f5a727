"""What anynorm makes of the norms of many families: known, recognized, or refused by name.

    python -m benchmarks.families [NAME ...]

prints a table and, of all families, writes that of docs/families.md in some minutes.  Wrong is an
error other than our own, and a changed model whose outputs differ from those of the original.
"""

from __future__ import annotations

import argparse
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from anynorm.errors import AnynormError
from anynorm.study.data import seeded
from anynorm.surgery import convert, fold
from anynorm.surgery.call_info import Seen, observe
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.receipt import Difference
from anynorm.surgery.recognize import Recognition, is_vector, recognize
from anynorm.surgery.recognized import candidates
from anynorm.surgery.transaction import Trial
from benchmarks import ROOT
from benchmarks.attempt import WrongError, attempted, quiet
from benchmarks.calibrate import MEASURED_ELSEWHERE
from benchmarks.page import fill, line
from benchmarks.zoo import Architecture, warmed
from benchmarks.zoo_families import FAMILIES

__all__ = ["COLUMNS", "Family", "Unnamed", "main", "ready", "table", "tried", "unnamed"]

Example = dict[str, Tensor]
Column = Callable[[nn.Module, Example], str]
SAMPLES = 2
_EXACT = 1e-5
_TIMES = 5  # the rounding of the original to bfloat16


@dataclass(frozen=True)
class Unnamed:
    """Modules of one class for which no specification was found, and the reason."""

    kind: str
    normalizes: bool
    reason: str


@dataclass(frozen=True)
class Family:
    """What was found for one family: a text for each column, and the modules of no specification.

    `wrong` has what must not have happened, by column.
    """

    cells: dict[str, str]
    unnamed: set[Unnamed] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args(arguments).names
    quiet()
    found = {}
    for row in FAMILIES:
        if row.name in names or not names:
            found[row.name] = tried(row)
            print(line([row.name, *found[row.name].cells.values()]), flush=True)
    print(table(found))
    if not names:
        fill(ROOT / "docs" / "families.md", "families", table(found))


def ready(row: Architecture) -> tuple[nn.Module, Example]:
    """A model in eval mode whose γ and β are nontrivial, and an input for it."""
    with seeded(0):
        model = row.build()
        with torch.no_grad():
            for parameter in filter(is_vector, model.parameters()):
                parameter += torch.empty_like(parameter).uniform_(-0.5, 0.5)
    warmed(model, row.example)
    with seeded(1):
        return model, row.example(SAMPLES)


def tried(row: Architecture) -> Family:
    """Try everything on a family."""
    cells, wrong = {}, {}
    for name, column in COLUMNS.items():
        outcome, text = _outcome(column, row)
        cells[name] = {"passed": text, "refused": f"refused: {text}"}.get(outcome, outcome)
        if outcome == "wrong":
            wrong[name] = text
    return Family(cells, unnamed(*ready(row)), wrong)


def _outcome(column: Column, row: Architecture) -> tuple[str, str]:
    return attempted(lambda: column(*ready(row)))


def _by_class(model: nn.Module, _: Example) -> str:
    return str(sum(norm.known for norm in normalizers(model)))


def _by_behaviour(model: nn.Module, example: Example) -> str:
    return str(sum(bool(found) for _, found in _recognitions(model, example)))


def _recognitions(model: nn.Module, example: Example) -> Iterator[tuple[str, Recognition]]:
    """The class of each module that convert asks about or that is named a norm, and what it is."""
    known = {norm.module for norm in normalizers(model) if norm.known}
    asked = set(candidates(model))
    named = {part for part in model.modules() if _is_named_a_norm(type(part).__name__)}
    for module, seen in observe(model, (asked | named) - known, example).items():
        yield type(module).__name__, _recognized(module, seen)


def _is_named_a_norm(kind: str) -> bool:
    return "norm" in kind.lower()


def _recognized(module: nn.Module, seen: Seen) -> Recognition:
    if not seen.ranks:
        return Recognition(None, evidence=("the example gives it no tensor",))
    if seen.single is None:
        return Recognition(None, evidence=("it takes more than one tensor",))
    if not seen.single.is_floating_point():
        return Recognition(None, evidence=("its input has whole numbers",))
    return recognize(module, seen.single, activation=True)


def unnamed(model: nn.Module, example: Example) -> set[Unnamed]:
    """The modules without a specification that normalize, or whose class is named a norm."""
    return {
        Unnamed(kind, found.normalizes, "; ".join(found.evidence))
        for kind, found in _recognitions(model, example)
        if not found and (found.normalizes or _is_named_a_norm(kind))
    }


def _in_float32(model: nn.Module, example: Example) -> str:
    return _converted(model, example)


def _in_bfloat16(model: nn.Module, example: Example) -> str:
    return _converted(model.bfloat16(), tree_map_only(Tensor, _narrow, example))


def _narrow(x: Tensor) -> Tensor:
    return x.bfloat16() if x.is_floating_point() else x


def _converted(model: nn.Module, example: Example) -> str:
    receipt = convert(model, "anynorm", example).receipt
    if receipt.rolled_back or receipt.difference is None:
        raise WrongError(f"the outputs differ: {receipt.difference}")
    apart = receipt.difference.relative
    refused = len({note.layer for note in receipt.refused})
    return ("equal" if apart == 0 else f"{apart:.1g}") + (f", {refused} refused" if refused else "")


def _folded(model: nn.Module, example: Example) -> str:
    wide = copy.deepcopy(model).double()
    try:
        return _fold(wide, tree_map_only(Tensor, _wide, example), _EXACT)
    except AnynormError as error:
        if "got Double" not in str(error):
            raise
    return f"{_fold(model, example, _EXACT)}, in float32"  # an operator has no float64


def _folded_in_bfloat16(model: nn.Module, example: Example) -> str:
    narrow = tree_map_only(Tensor, _narrow, example)
    exact = Trial(example).outputs(model)
    model = model.bfloat16()
    rounding = Difference.between(exact, Trial(narrow).outputs(model)).relative
    words = _fold(model, narrow, _TIMES * rounding)
    return f"{words} (rounding: {rounding:.1g})"


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _fold(model: nn.Module, example: Example, most: float) -> str:
    receipt = fold(model, example, tolerance=None).receipt
    if receipt.difference is None or not receipt.difference.relative <= most:
        raise WrongError(f"the outputs differ: {receipt.difference}, and {most:.1g} is allowed")
    done, left = (len({note.layer for note in part}) for part in (receipt.changed, receipt.refused))
    return f"{done} of {done + left}, {receipt.difference.relative:.1g}"


def _doctor(model: nn.Module, example: Example) -> str:
    from anynorm.doctor import doctor

    found = doctor(model, [example, example])
    told = sorted({one.check for one in found.findings if one.check in MEASURED_ELSEWHERE})
    words = f"; found: {', '.join(map(str, told))}" if told else ""
    return f"{len(found.examined)} examined, {len(found.not_examined)} not{words}"


COLUMNS: Mapping[str, Column] = {
    "by class": _by_class,
    "by behaviour": _by_behaviour,
    "float32": _in_float32,
    "bfloat16": _in_bfloat16,
    "fold, float64": _folded,
    "fold, bfloat16": _folded_in_bfloat16,
    "doctor": _doctor,
}


def table(found: Mapping[str, Family]) -> str:
    """A row for each family, then the modules without a specification, then what is wrong."""
    lines = [line(["family", *COLUMNS]), "|---" * (1 + len(COLUMNS)) + "|"]
    lines += [line([name, *family.cells.values()]) for name, family in found.items()]
    wrong = [
        f"- {name}, {column}: {text}"
        for name, family in found.items()
        for column, text in family.wrong.items()
    ]
    lines += ["", f"{len(found)} families, {len(wrong)} wrong.", *wrong, ""]
    for normalizes, title in (
        (True, "Modules that normalize and match no specification"),
        (False, "Modules that are named a norm, and were not recognized"),
    ):
        lines += [f"{title}:", "", *_unnamed_table(found, normalizes), ""]
    return "\n".join(lines[:-1])


def _unnamed_table(found: Mapping[str, Family], normalizes: bool) -> list[str]:
    families = defaultdict(list)
    for name, family in found.items():
        for one in family.unnamed:
            if one.normalizes == normalizes:
                families[one.kind, one.reason].append(name)
    lines = [line(["class", "reason", "families"]), "|---|---|---|"]
    rows = sorted(families.items())
    return [*lines, *(line([kind, why, ", ".join(names)]) for (kind, why), names in rows)]


if __name__ == "__main__":
    main()
