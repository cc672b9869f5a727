"""All figures of a GPU in one command, in about as many minutes as it is given.

    python -m benchmarks.gpu [--minutes 25] [--out FOLDER]

The stages are run in the order of their importance.  Each ends when its share of the time is over;
what one does not need is left to those after it.  Results are written as they come, so what breaks
off loses nothing but the case it was at: see summary.md and speed.svg beside them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anynorm.bench import resolve
from benchmarks import RESULTS, ROOT, script
from benchmarks.child import command
from benchmarks.gpu_page import summarize
from benchmarks.speed.grids import grid
from benchmarks.speed.run import bench
from benchmarks.speed.show import line, opening

__all__ = ["STAGES", "Stage", "main", "run"]


@dataclass(frozen=True)
class Stage:
    """A grid of cases or a model, and the share of all the time at whose end it stops.

    `peers`: all that are installed, if there are none.
    """

    name: str
    end: float
    grid: str | None = None
    peers: tuple[str, ...] | None = None
    model: str | None = None


STAGES = (
    Stage("rows", 0.40, grid="rows"),
    Stage("images", 0.55, grid="images", peers=("eager",)),
    Stage("launch", 0.62, grid="launch", peers=("eager",)),
    Stage("transformer", 0.70, model="transformer"),
    Stage("resnet50", 0.85, model="resnet50"),
    Stage("images-compiled", 0.98, grid="images", peers=("compile",)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.device, options.out = resolve(options.device), options.out.resolve()
    begun = time.monotonic()
    print(f"{options.device}: {options.minutes:g} minutes for", *options.stages, flush=True)
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
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--stages", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu", help="a folder")
    return parser.parse_args(arguments)


def run(stage: Stage, device: str, out: Path, seconds: float) -> None:
    """Measure one stage in at most so many seconds, plus those of the case it is at."""
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
    words = ("--model", model, "--device", device, "--dtype", "bf16", "--compile")
    call = command("benchmarks.resnet", *words, "--results", str(out))
    with subprocess.Popen(call, cwd=ROOT, start_new_session=True) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            print(f"{model}: not finished in time", flush=True)
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    script(main)
