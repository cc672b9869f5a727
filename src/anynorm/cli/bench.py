"""``anynorm bench``: time the layers, compared with torch.nn's."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from anynorm.cli.status import DONE, NOT_ALL
from anynorm.cli.written import say_written
from anynorm.errors import AnynormError
from anynorm.report.files import check_target, write_json

if TYPE_CHECKING:
    from anynorm.bench import Case
    from anynorm.bench.comparison import Row

__all__ = ["add"]

TITLES = {"eager": "torch.nn / ours", "compile": "torch.compile / ours"}
LINE = "{:57} {:>10} {:>8} {:>6} {:>12} {:>21} {:>21}"
ABOUT = ("cpu", "gpu", "torch", "kernels", "threads", "allocator", "load")
HEADINGS = LINE.format("case", "µs", "copies", "GB/s", "kept", *TITLES.values())


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    bench = commands.add_parser(
        "bench",
        help="time the layers, compared with torch.nn's, on this processor or a GPU",
        description="Ratios are torch's time divided by ours. Exit status 1: a case failed; 2: bad "
        "input.",
    )
    bench.set_defaults(call=_bench)
    add = bench.add_argument
    add("--only", default="", metavar="REGEX", help="only cases whose name matches (all)")
    add("--list", action="store_true", help="print the names of the cases, and exit (no)")
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (auto: a GPU if there is one)")
    add("--compile", action="store_true", help="also time torch.nn under torch.compile (no)")
    add("--tune-allocator", action="store_true", help="keep freed memory: faster for both (no)")
    add("--threads", type=int, help="threads of torch (its own default)")
    add("--seconds", type=float, help="seconds to time a case (0.4; 0.25 on a GPU)")
    add("--out", metavar="FILE.json", help="write the results (no)")


def _bench(*, only: str, list: bool, out: str | None, **options: Any) -> int:  # noqa: A002
    from anynorm.bench import CASES

    try:
        cases = [case for case in CASES if re.search(only, case.name)]
    except re.error as error:
        raise AnynormError(f"--only {only!r} is not a regular expression: {error}.") from error
    if not cases:
        raise AnynormError(f"--only {only!r} matches no case; --list prints all names.")
    if list:
        print(*(case.name for case in cases), sep="\n")
        return DONE
    if out is not None:
        check_target(out, "result")
    return _measure(cases, out, **options)


def _measure(cases: Sequence[Case], out: str | None, **options: Any) -> int:
    import torch

    import anynorm
    from anynorm import kernels
    from anynorm.bench import measure, resolve
    from anynorm.bench.timing import BUDGETS

    device = resolve(options["device"])
    if device != "cpu":
        torch.cuda.set_device(device)
        if kernels.cuda.available():
            kernels.cuda.enable()
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    if options["tune_allocator"]:
        anynorm.tune_allocator()
    budget = BUDGETS[device.partition(":")[0]]
    if options["seconds"] is not None:
        budget = replace(budget, seconds=options["seconds"])
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    about = {"date": date, "device": device, "load": load, "budget": asdict(budget)}
    about |= asdict(anynorm.info())
    print(*(f"{name}: {about[name]}" for name in ABOUT), HEADINGS, sep="\n", flush=True)
    rows: list[Row] = []
    try:
        for row in measure(cases, budget, device, options["compile"]):
            print(_line(row), flush=True)
            rows.append(row)
    finally:  # interrupted, too
        if out is not None:
            write_json(out, {"about": about, "cases": rows})
            say_written({"results": out})
    print(*_summary(rows), sep="\n")
    return NOT_ALL if any("failed" in row for row in rows) else DONE


def _line(row: Row) -> str:
    if "failed" in row:
        return f"{row['name']:57} failed: {row['failed']}"
    kept = [f"{memory['bytes'] / row['input_bytes']:.2f}" for memory in row["kept"].values()]
    ratios = (row["ratio"].get(name) for name in TITLES)
    return LINE.format(
        row["name"],
        f"{row['us']['ours']['median']:.1f}",
        f"{row['copies']['ours']['median']:.2f}",
        f"{row['gb_per_s']['ours']:.1f}",
        f"{kept[0]} ({kept[1]})" if kept else "–",
        *("{median:.2f} [{low:.2f}, {high:.2f}]".format_map(one) if one else "–" for one in ratios),
    )


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    for name, title in TITLES.items():
        found = [row["ratio"][name]["median"] for row in rows if name in row.get("ratio", ())]
        if found:
            lost = f"below 1 in {sum(ratio < 1 for ratio in found)} of {len(found)} cases"
            yield f"{title}: median {statistics.median(found):.2f}, {lost}"
