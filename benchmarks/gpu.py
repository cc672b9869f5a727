"""A GPU in one command: first whether the kernels are right, then all figures, in a given time.

    python -m benchmarks.gpu [--minutes 9] [--out FOLDER]

It needs torch, triton, pytest and a compiler for Triton's launcher, and no network.  Packages to
compare with are used if they are installed, or if their pure-Python wheels lie in .wheels/.

The stages are run in the order of their importance.  Each ends when its share of the time is over;
what one does not need is left to those after it.  Results are written as they come, so what breaks
off loses nothing but the case it was at: see summary.md and speed.svg beside them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anynorm.bench import resolve
from benchmarks import RESULTS, ROOT, script
from benchmarks.child import command, within
from benchmarks.gpu_correctness import correctness
from benchmarks.gpu_page import summarize
from benchmarks.speed.grids import grid
from benchmarks.speed.run import bench
from benchmarks.speed.show import line, opening

__all__ = ["STAGES", "Stage", "main", "run"]


@dataclass(frozen=True)
class Stage:
    """The tests, a grid of cases or a model, and the share of all the time at whose end it stops.

    `peers`: all that are installed, if there are none.
    """

    name: str
    end: float
    grid: str | None = None
    peers: tuple[str, ...] | None = None
    model: str | None = None


EAGER = ("eager",)
STAGES = (
    Stage("correctness", 0.27),
    Stage("rows", 0.45, grid="rows", peers=EAGER),
    Stage("images", 0.58, grid="images", peers=EAGER),
    Stage("group-silu", 0.62, grid="group-silu", peers=EAGER),
    Stage("launch", 0.69, grid="launch", peers=EAGER),
    Stage("peers", 0.80, grid="peers"),
    Stage("transformer", 0.87, model="transformer"),
    Stage("resnet50", 0.93, model="resnet50"),
    Stage("cache", 0.98, grid="cache", peers=EAGER),
)
WHEELS = ROOT / ".wheels"  # ignored by git
COMPILED = 120.0  # seconds from which on a model is compiled, too


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.device, options.out = resolve(options.device), options.out.resolve()
    begun = time.monotonic()
    print(f"{options.device}: {options.minutes:g} minutes for", *options.stages, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _unpack(WHEELS, folder)
        _run_all(options, begun)


def _run_all(options: argparse.Namespace, begun: float) -> None:
    for stage in (stage for stage in STAGES if stage.name in options.stages):
        left = begun + stage.end * options.minutes * 60 - time.monotonic()
        print(f"\n{stage.name}: {left / 60:.1f} minutes", flush=True)
        if left > 0:
            run(stage, options.device, options.out, left)
        print(summarize(options.out), flush=True)
    taken = (time.monotonic() - begun) / 60
    print(f"\n{taken:.1f} minutes; all of it: {options.out / 'summary.md'}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [stage.name for stage in STAGES]
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--stages", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", help="a folder")
    return parser.parse_args(arguments)


def run(stage: Stage, device: str, out: Path, seconds: float) -> None:
    """Run one stage in at most so many seconds, plus those of the case it is at."""
    if stage.model is stage.grid is None:
        return correctness(out, seconds)
    if stage.model is not None:
        return _train(stage.model, device, out, seconds)
    assert stage.grid is not None
    bench(
        grid(stage.grid),
        device=device,
        peers=stage.peers,
        out=out / f"{stage.name}.json",
        until=time.monotonic() + seconds,
        tell=_tell,
    )
    return None


def _tell(found: Any) -> None:
    print(*([line(found)] if "name" in found else opening(found)), sep="\n", flush=True)


def _train(model: str, device: str, out: Path, seconds: float) -> None:
    """Train a model in a process of its own, which is ended with its children in time."""
    words = ["--model", model, "--device", device, "--dtype", "bf16", "--results", str(out)]
    words += ["--compile"] if seconds >= COMPILED else []
    if within(seconds, command("benchmarks.resnet", *words)) is None:
        print(f"{model}: not finished in time", flush=True)


def _unpack(wheels: Path, folder: str) -> None:
    """Unpack wheels, as Triton reads its kernels from files, for all processes of this one."""
    found = sorted(wheels.glob("*.whl"))
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    if found:
        print("from wheels:", *(wheel.name for wheel in found), flush=True)
        sys.path.append(folder)
        paths = [os.environ.get("PYTHONPATH", ""), folder]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


if __name__ == "__main__":
    script(main)
