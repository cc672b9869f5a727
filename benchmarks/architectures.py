"""Every verb on every architecture of the zoo: passed, refused with a reason, or wrong.

    python -m benchmarks.architectures [NAME ...]

prints a table and, of all of them, writes that of docs/architectures.md in a quarter of an hour.
Wrong is what raises anything but our own error, changes what it must not, or computes something
else than it should.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.surgery import convert, fold, prune, recalibrate
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.receipt import Difference, Result
from anynorm.surgery.transaction import Trial
from benchmarks import ROOT
from benchmarks.attempt import WrongError, attempted, quiet
from benchmarks.page import fill
from benchmarks.zoo import ARCHITECTURES, Architecture, build, warmed

Verb = Callable[[Architecture, nn.Module], str]
SAMPLES = 2


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args(arguments).names
    quiet()
    rows = [row for row in ARCHITECTURES if row.name in names or not names]
    found = {row.name: tried(row) for row in rows}
    print(table(found))
    if not names:
        fill(ROOT / "docs" / "architectures.md", "outcomes", table(found))


def tried(row: Architecture) -> dict[str, tuple[str, str]]:
    """The outcome and a word on it, for each verb."""
    return {name: _outcome(verb, row) for name, verb in VERBS.items()}


def _outcome(verb: Verb, row: Architecture) -> tuple[str, str]:
    return attempted(lambda: verb(row, warmed(build(row.name), row.example)))


def table(found: dict[str, dict[str, tuple[str, str]]]) -> str:
    """The outcomes as Markdown: totals, then a row for each architecture, then the reasons."""
    lines = ["| | " + " | ".join(VERBS) + " |", "|---" * (1 + len(VERBS)) + "|"]
    for outcome in ("passed", "refused", "wrong"):
        counts = [sum(row[verb][0] == outcome for row in found.values()) for verb in VERBS]
        lines.append(f"| {outcome} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "| architecture | " + " | ".join(VERBS) + " |", "|---" * (1 + len(VERBS)) + "|"]
    for name, row in found.items():
        shown = [text if outcome == "passed" else outcome for outcome, text in row.values()]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", *_reasons(found)])


def _reasons(found: dict[str, dict[str, tuple[str, str]]]) -> list[str]:
    reasons = Counter(
        (verb, outcome, _short(text))
        for row in found.values()
        for verb, (outcome, text) in row.items()
        if outcome != "passed"
    )
    return [
        f"- {verb} {outcome}, {n} times: {text}" for (verb, outcome, text), n in reasons.items()
    ]


def _short(text: str) -> str:
    """The message's first sentence, without the name of one model's class."""
    words = re.sub(r"^\w+(?= has no)|(?<=cannot trace )\w+", "the model", text.split(". ")[0])
    return words if len(words) < 160 else f"{words[:160]}…"


def _fold(row: Architecture, model: nn.Module) -> str:
    result = fold(model, _example(row))
    _check_measured(result)
    return _counted(result)


def _to_anynorm(row: Architecture, model: nn.Module) -> str:
    result = convert(model, "anynorm", _example(row))
    _check_measured(result)
    _check_measured(convert(result.model, "torch", _example(row)))
    return _counted(result)


def _to_groups(row: Architecture, model: nn.Module) -> str:
    found = [norm for norm in normalizers(model) if _of_batches(norm) and norm.known]
    groups = math.gcd(*(norm.channels for norm in found), 8)
    result = convert(model, "group", _example(row), groups=groups)
    if not all(bool(y.isfinite().all()) for y in Trial(_example(row)).outputs(result.model)):
        raise WrongError("outputs are not finite")
    return _counted(result)


def _of_batches(norm: Normalizer) -> bool:
    """Whether convert turns the layer into others unless told otherwise."""
    return norm.constant or norm.spec.uses_batch


def _recalibrate(row: Architecture, model: nn.Module) -> str:
    torch.manual_seed(2)
    batch = row.example(6)
    parts = [{key: x[i:j] for key, x in batch.items()} for i, j in ((0, 3), (3, 5), (5, 6))]
    whole, split = recalibrate(model, [batch]), recalibrate(model, parts)
    outputs = [Trial(batch).outputs(result.model) for result in (whole, split)]
    apart = Difference.between(*outputs).relative
    if not apart < 1e-3 and "note" not in split.receipt.facts and not _pads(row):
        raise WrongError(f"statistics depend on the split: outputs {apart:.2g} apart")
    return _counted(whole)


def _pads(row: Architecture) -> bool:
    """Whether samples are padded to the longest of their batch, so that batches do differ."""
    return row.name == "fastspeech2-conformer"


def _prune(row: Architecture, model: nn.Module) -> str:
    example = _example(row)
    result = prune(model, example, ratio=0.3)
    fresh = result.plan.apply(build(row.name))
    fresh.load_state_dict(result.model.state_dict())
    outputs = [Trial(example).outputs(one) for one in (result.model, fresh)]
    if Difference.between(*outputs).absolute > 0:
        raise WrongError("a fresh model cut by the plan computes something else")
    facts = result.receipt.facts
    return f"{facts['cut']} of {facts['channels']} channels"


def _doctor(row: Architecture, model: nn.Module) -> str:
    from anynorm.doctor import doctor

    before = copy.deepcopy(model.state_dict())
    found = doctor(model, [_example(row), _example(row)])
    after = model.state_dict()
    if not all(_same(before[name], after[name]) for name in before):
        raise WrongError("the doctor changed the model")
    return f"{len(found.checks) - len(found.skipped)} checks ran"


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _example(row: Architecture) -> Any:
    torch.manual_seed(1)
    return row.example(SAMPLES)


def _check_measured(result: Result) -> None:
    if result.receipt.rolled_back or result.receipt.difference is None:
        raise WrongError(f"the outputs differ: {result.receipt.difference}")


def _counted(result: Result) -> str:
    changed, refused = len(result.receipt.changed), len(result.receipt.refused)
    return f"{changed} of {changed + refused} layers"


VERBS: dict[str, Verb] = {
    "fold": _fold,
    "to anynorm and back": _to_anynorm,
    "to group norm": _to_groups,
    "recalibrate": _recalibrate,
    "prune": _prune,
    "doctor": _doctor,
}

if __name__ == "__main__":
    main()
