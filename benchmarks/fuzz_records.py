"""A fuzz of a study's records, over the whole way from the store to the page and the JSON.

    python -m benchmarks.fuzz_records --cases 1000

Each case is a small study whose records are damaged: fields are absent, empty, not finite, or of a
wrong type; columns are cut short; every run has diverged; one seed, one normalizer or one record
is left. Nothing on the way may raise, and nothing may print a number that is none. Each case has a
seed of its own, which is printed with what went wrong: `--seed S --cases 1` repeats it.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import random
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from anynorm.report import html, terminal
from anynorm.study.cell import Cell
from anynorm.study.evidence import build
from anynorm.study.frame import frame
from anynorm.study.selection import studies
from anynorm.study.sequential import open_comparisons, seeds_to_add
from anynorm.study.store import Store
from anynorm.study.tolerance import refinements

TESTS = Path(__file__).resolve().parents[1] / "tests"
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))

from synthetic_records import BEHAVIOUR, star, strings  # noqa: E402

__all__ = ["case", "failure", "run"]

Record = dict[str, Any]

VALUES: tuple[Any, ...] = (
    None,
    math.nan,
    math.inf,
    -math.inf,
    0,
    -1,
    1e308,
    10**400,
    True,
    "",
    "text",
    [],
    {},
    [None],
    ["text"],
    [[]],
    {"step": [0]},
)
# A number that is none, as Python writes it, where a reader would see it.
NO_NUMBER = re.compile(r"(?<![\w-])(?:nan|inf|None|NaN)(?![\w-])")


def run(seed: int, cases: int, tell: Any = print) -> list[str]:
    """Try so many cases, the first with `seed`; returns what went wrong, a text for each case."""
    found = []
    for number in range(seed, seed + cases):
        if (problem := failure(case(number))) is not None:
            found.append(f"records, seed {number}: {problem}")
            tell(found[-1])
    return found


def case(seed: int) -> list[Record]:
    """Return the damaged records of the case with this seed; the same seed gives the same ones."""
    rng = random.Random(seed)
    records = _study(rng)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        _damage(records, rng)
    return records


def failure(records: Sequence[Record]) -> str | None:
    """Return what goes wrong on the way to the page with these records, or None."""
    try:
        _walk(records)
        with tempfile.TemporaryDirectory() as folder:
            _walk(_through_store(records, Path(folder)))
    except Exception:
        return traceback.format_exc()
    return None


def _study(rng: random.Random) -> list[Record]:
    norms = rng.sample(list(BEHAVIOUR), rng.choice((1, 2, 3)))
    seeds = range(rng.choice((1, 2, 3)))
    fixed: dict[str, Any] = {}
    if rng.random() < 0.3:
        fixed = {"subject": "mlp-sigmoid"}
    records = star(norms, seeds, **fixed)
    task = rng.choice(("classification", "classification", "regression", "language"))
    for record in records:
        record["task"] = task
        _weigh(record["probes"] or {}, rng)
        if record["status"] == "ok" and rng.random() < 0.5:
            right = "".join(rng.choice("01") for _ in range(20))
            losses = [rng.expovariate(1) for _ in range(20)]
            record["items"] = {"test_accuracy": right, "test_loss": losses}
    if rng.random() < 0.3:
        records = rng.sample(records, rng.randint(1, min(6, len(records))))
    elif rng.random() < 0.5:
        records = [record for record in records if rng.random() < 0.7] or records[:1]
    return copy.deepcopy(records)


def _weigh(probes: dict[str, Any], rng: random.Random) -> None:
    """Add how many early steps each row stands for, which some parts have."""
    for part in ("landscape", "shift"):
        if part in probes and rng.random() < 0.5:
            probes[part]["weight"] = [rng.randrange(5) for _ in probes[part]["step"]]


def _damage(records: list[Record], rng: random.Random) -> None:
    kind = rng.choice(("value", "value", "value", "drop", "drop", "cut", "diverged"))
    some = records if rng.random() < 0.5 else rng.sample(records, rng.randint(1, len(records)))
    if kind == "diverged":
        for record in some:
            _diverge(record, rng.choice((0, 1, 40, None)))
        return
    path = _path(rng.choice(records), rng)
    value = rng.choice(VALUES)
    for record in some:
        _change(record, path, kind, value, rng)


def _diverge(record: Record, at: int | None) -> None:
    record["status"], record["diverged_at"] = "diverged", at
    final, curve = record.get("final"), record.get("curve")
    record["final"] = dict.fromkeys(final) if isinstance(final, dict) else {}
    if isinstance(curve, dict) and at is not None:
        record["curve"] = {
            name: values[:at] if isinstance(values, list) else values
            for name, values in curve.items()
        }


def _path(record: Record, rng: random.Random) -> list[Any]:
    """Return the way to a field somewhere below a part of the record that is not its cell."""
    parts = [name for name in record if name not in ("cell", "key", "schema")]
    way: list[Any] = [rng.choice(parts)]
    value = record[way[0]]
    while isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        way.append(rng.choice(list(value) if isinstance(value, dict) else range(len(value))))
        value = value[way[-1]]
    return way


def _change(record: Any, path: list[Any], kind: str, value: Any, rng: random.Random) -> None:
    *way, last = path
    try:
        for name in way:
            record = record[name]
        found = record[last]
    except (KeyError, IndexError, TypeError):
        return
    if kind == "drop":
        del record[last]
    elif kind == "cut" and isinstance(found, list):
        del found[rng.randint(0, len(found)) :]
    else:
        record[last] = copy.deepcopy(value)


def _through_store(records: Sequence[Record], folder: Path) -> list[Record]:
    """Return what a store gives back of the records, whatever it has to set aside."""
    store = Store(folder)
    for record in records:
        key = Cell.from_dict(record["cell"]).key
        text = json.dumps({**record, "key": key})
        store.path(key).write_text(text, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the record .* cannot be read")
        return store.records()


def _walk(records: Sequence[Record]) -> None:
    found = build(records, title="a study", command="anynorm study", planned=len(records) + 1)
    text = json.dumps(found, allow_nan=False)
    if json.loads(text) != found:
        raise AssertionError("the evidence is not plain JSON")
    for sentence in strings(found):
        if NO_NUMBER.search(sentence):
            raise AssertionError(f"a sentence with a number that is none: {sentence!r}")
    html.page(found)
    screen = io.StringIO()
    terminal.show(found, Console(file=screen, width=80))
    if match := NO_NUMBER.search(screen.getvalue()):
        raise AssertionError(f"the terminal shows {match.group()!r}")
    frame(records)
    refinements(records)
    if len(studies(records)) == 1:
        seeds_to_add(records, open_comparisons(records, None, 3), 5)


def main() -> None:
    """Run the cases that the command line asks for; the exit status says whether any failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first case (0)")
    parser.add_argument("--cases", type=int, default=200, help="how many (200)")
    options = parser.parse_args()
    found = run(options.seed, options.cases)
    print(f"{options.cases} cases from seed {options.seed} on, {len(found)} failed")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
