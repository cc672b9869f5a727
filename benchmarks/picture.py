"""Draw docs/images/speed.svg and write the tables of docs/speed.md, from the results at hand.

    python -m benchmarks.picture [RESULT.json …]

Without files: the latest results in benchmarks/results and those of the same machine; of a GPU,
those in benchmarks/results/gpu.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from anynorm.report.files import write_whole
from benchmarks import RESULTS, ROOT, gpu_page, page, resnet_table
from benchmarks.process import SETTINGS
from benchmarks.result_files import read
from benchmarks.speed.dots import draw

__all__ = ["latest", "main"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "speed.svg")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "speed.md")
    parser.add_argument("--gpu", type=Path, default=RESULTS / "gpu", help="a folder of results")
    options = parser.parse_args(arguments)
    layers, networks = latest(options.files or sorted(RESULTS.glob("*.json")))
    if layers:
        write_whole(options.picture, draw(layers))
        page.fill(options.page, "summary", page.summary(layers))
        page.fill(options.page, "cases", page.cases_table(layers))
    if networks:
        page.fill(options.page, "network", resnet_table.table(networks))
    if gpu := gpu_page.collected(options.gpu):
        write_whole(options.picture.with_name("speed-gpu.svg"), draw(gpu_page.layers(gpu)))
        shown = "![Time of torch.nn over anynorm's on a GPU](images/speed-gpu.svg)"
        page.fill(options.page, "gpu", f"{shown}\n\n{gpu_page.words(gpu)}")


def latest(files: Iterable[Path]) -> tuple[list[Any], list[Any]]:
    """The layers' and the network's results of the machine measured last, by setting."""
    found = [result for result in map(read, files) if not result["about"].get("gpu")]
    layers = [result for result in found if "cases" in result]
    networks = [result for result in found if "network" in result and _is_small(result)]
    return _of_one_machine(layers), _of_one_machine(networks)


def _is_small(result: Any) -> bool:
    """Whether it is of the model in the page's table."""
    return result["about"]["settings"].get("model", "resnet") == "resnet"


def _of_one_machine(results: Sequence[Any]) -> list[Any]:
    if not results:
        return []
    last = _machine(max(results, key=lambda result: result["about"]["date"]))
    kept = [result for result in results if _machine(result) == last]
    return sorted(kept, key=lambda result: SETTINGS.index(result["about"]["allocator"]))


def _machine(result: Any) -> tuple[str, int]:
    return result["about"]["cpu"], result["about"]["threads"]


if __name__ == "__main__":
    main()
