"""Whether studies agree with themselves, and with far larger ones.

    python -m benchmarks.agreement --store /tmp/agreement    # many hours on two cores
    python -m benchmarks.agreement --store /tmp/agreement --models mlp-relu mlp-sigmoid   # 1 hour
    python -m benchmarks.agreement --store /tmp/agreement --models cnn --no-large    # 15 minutes

Each built-in model is studied ten times with other seeds, and once with ten times the steps and
twenty seeds. All runs are kept in the store, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anynorm
from anynorm.study.subjects import SUBJECTS
from benchmarks import RESULTS, ROOT
from benchmarks.page import fill, line
from benchmarks.result_files import about, read, write

__all__ = ["FILE", "main", "table"]

FILE = RESULTS / "agreement.json"
REPEATS, SEEDS = 10, 3
LARGE_SEEDS, LARGE_STEPS = 20, 10
NORMS = ("none", "batch", "layer")
OTHER_NORMS = {"char-transformer": ("none", "layer", "rms")}
RATES = {
    "mlp-relu": (0.03, 0.1, 0.3, 1.0),
    "mlp-sigmoid": (0.1, 1.0, 3.0, 10.0),
    "cnn": (0.1, 0.3, 1.0),
    "deep-linear": (0.003, 0.01, 0.03),
    "rnn": (0.01, 0.03, 0.1),
    "char-transformer": (0.003, 0.01, 0.03),
}


_UNDECIDED = "cannot tell"


def study(model: str, store: Path, **changes: Any) -> dict[str, Any]:
    """Return the verdict of one study of learning rates."""
    found = anynorm.study(
        model,
        norms=OTHER_NORMS.get(model, NORMS),
        lrs=RATES[model],
        inits=[],
        batches=[],
        placements=SUBJECTS[model].settings.placements[:1],
        experiments=False,
        probes=False,
        refine=0,
        store=store / model,
        **changes,
    )
    keys = ("kind", "recommended", "recommendation")
    return {key: found.verdict[key] for key in keys} | {
        "answers": {
            f"{c['a']} against {c['b']}": [c["answer"], c["difference"], c["low"], c["high"]]
            for c in found.verdict["comparisons"]
        }
    }


def measure(model: str, store: Path, with_large: bool) -> dict[str, Any]:
    """Study a model ten times, and once at length."""
    firsts = [1000 * number for number in range(REPEATS)]
    small = [study(model, store, seeds=SEEDS, first_seed=first) for first in firsts]
    if not with_large:
        return {"model": model, "small": small, "large": None}
    steps = LARGE_STEPS * SUBJECTS[model].settings.steps
    large = study(model, store, seeds=LARGE_SEEDS, steps=steps, first_seed=1000 * REPEATS)
    return {"model": model, "small": small, "large": large}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """How often the small studies agree with the most frequent one of them, and with the large."""
    head = ("model", "recommended by ten small studies", "by the large one", "they agree in")
    lines = [line(head), "|---" * len(head) + "|"]
    for row in rows:
        counts = Counter(one["recommended"] for one in row["small"])
        said = ", ".join(f"{name or _UNDECIDED} {count}" for name, count in counts.most_common())
        large, agree = "not run", "not known"
        if row["large"] is not None:
            name = row["large"]["recommended"]
            large, agree = name or _UNDECIDED, f"{counts[name]} of {len(row['small'])}"
        lines.append(line((row["model"], said, large, agree)))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Study each model, and write what the studies say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, help="folder of the records")
    parser.add_argument("--models", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    parser.add_argument("--no-large", action="store_true", help="only the ten small studies")
    parser.add_argument("--out", type=Path, default=FILE, help=f"the result ({FILE})")
    options = parser.parse_args(arguments)
    kept = read(options.out)["rows"] if options.out.exists() else []
    rows = {row["model"]: row for row in kept}
    if options.store is None and not options.table:
        parser.error("give --store=FOLDER for the records")
    for model in () if options.table else options.models:
        rows[model] = measure(model, options.store, not options.no_large)
        write(options.out, {"about": about("default", {}), "rows": list(rows.values())})
    words = table(list(rows.values()))
    print(words)
    if options.out == FILE:
        fill(ROOT / "docs" / "study.md", "agreement", words)


if __name__ == "__main__":
    main()
