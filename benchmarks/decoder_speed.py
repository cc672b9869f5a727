"""The time of a decoder with anynorm's norms over that with its own: a step, and one token.

    python -m benchmarks.decoder_speed    # two minutes; nothing else should run

The two models are timed in turns, in one process with one thread; the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import anynorm
from benchmarks import RESULTS, ROOT
from benchmarks.page import fill, line, quartiles
from benchmarks.result_files import about, read, write

__all__ = ["FILE", "main", "measure", "table"]

FILE = RESULTS / "decoder-speed.json"
PAGE = ROOT / "docs" / "families.md"
WIDTH, LAYERS, BATCH, LENGTH, VOCABULARY = 512, 4, 4, 64, 1000
ROUNDS = 11
Row = dict[str, Any]


def build(dtype: torch.dtype) -> Any:
    """A Llama of 4 layers with 512 channels."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    return LlamaForCausalLM(config).to(dtype)


def step(model: nn.Module) -> Callable[[], object]:
    """Forward and backward of a batch."""
    ids = torch.randint(VOCABULARY, (BATCH, LENGTH))

    def run() -> None:
        model.zero_grad()
        model(input_ids=ids, use_cache=False).logits.float().square().mean().backward()

    return run


def token(model: nn.Module) -> Callable[[], object]:
    """Inference of one token of one sequence."""
    ids = torch.randint(VOCABULARY, (1, 1))

    @torch.no_grad()
    def run() -> object:
        return model(input_ids=ids, use_cache=False).logits

    return run


TASKS = {"step": step, "one token": token}


def measure(task: str, dtype: torch.dtype, compiled: bool, rounds: int = ROUNDS) -> Row:
    """The ratios of the times, own norms over anynorm's, in turns."""
    original = build(dtype)
    converted = anynorm.convert(original, "anynorm", {"input_ids": torch.zeros(1, 4).long()})
    runs = []
    for model in (copy.deepcopy(original), converted.model):
        made: Any = torch.compile(model) if compiled else model
        runs.append(TASKS[task](made))
    for _ in range(3):
        for run in runs:
            run()
    times: list[list[float]] = [[], []]
    repeat = 1 if task == "step" else 10
    for number in range(rounds):
        for place in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter()
            for _ in range(repeat):
                runs[place]()
            times[place].append((time.perf_counter() - started) / repeat)
    ratios = sorted(own / ours for own, ours in zip(*times, strict=True))
    return {
        "task": task,
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": compiled,
        "milliseconds": [1e3 * statistics.median(one) for one in times],
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "layers": len(converted.receipt.changed),
    }


def table(rows: Sequence[Row]) -> str:
    """A row for each task."""
    head = ("", "type", "mode", "own norms, ms", "anynorm's, ms", "ratio (quartiles)")
    lines = [line(head), "|---" * len(head) + "|"]
    for row in rows:
        low, high = row["quartiles"]
        words = quartiles(low, row["ratio"], high)
        mode = "compiled" if row["compiled"] else "eager"
        own, ours = (f"{one:.1f}" for one in row["milliseconds"])
        lines.append(line((row["task"], row["dtype"], mode, own, ours, words)))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the result and the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not options.table:
        rows = []
        # A step in bfloat16 takes processors without such instructions far longer than in float32.
        for task, dtype in (
            *((task, torch.float32) for task in TASKS),
            ("one token", torch.bfloat16),
        ):
            for compiled in (False, True):
                torch._dynamo.reset()
                rows.append(measure(task, dtype, compiled))
                print(rows[-1], flush=True)
        write(options.out, {"about": about("default", {}), "rows": rows})
    words = table(read(options.out)["rows"])
    print(words)
    if options.out == FILE:
        fill(PAGE, "decoder speed", words)


if __name__ == "__main__":
    main()
