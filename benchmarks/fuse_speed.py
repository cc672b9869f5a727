"""Time and memory of networks as they are, with anynorm's layers, and with what `fuse` makes of it.

    python -m benchmarks.fuse_speed    # five minutes; nothing else should run

The three are timed in turns, in one process with one thread, first in one order and then in the
other; the median of the ratios counts.  The memory is that of all tensors that autograd keeps for
the backward pass, each storage once, without the parameters.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import anynorm
from anynorm.bench.timing import Budget, alternate, ratios
from anynorm.surgery.batches import Batch, call, tensors_of
from benchmarks import RESULTS, ROOT, decoder_speed
from benchmarks.network import NORMS, Bottleneck, Network
from benchmarks.page import fill, line, quartiles, surroundings
from benchmarks.result_files import about, read, write
from benchmarks.zoo_parts import Config, config, pretrained

__all__ = ["FILE", "NETWORKS", "kept", "main", "measure", "table"]

FILE = RESULTS / "fuse_speed.json"
PAGE = ROOT / "docs" / "speed.md"
ROUNDS = 7
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """How a network is built, and the batch that it is timed on."""

    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]


def _images(samples: int, side: int, keyword: str = "pixel_values") -> Callable[[], Batch]:
    def batch() -> Batch:
        x = torch.randn(samples, 3, side, side)
        return {keyword: x}

    return batch


def _network(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: Network(NORMS["eager"], 64, **settings)


def _classifier(family: str, **settings: Any) -> Callable[[], nn.Module]:
    found: Config = config(f"{family}Config", num_labels=10, **settings)
    return pretrained(f"{family}ForImageClassification", found)


def _decoder() -> nn.Module:
    model: nn.Module = decoder_speed.build(torch.float32)
    return model


def _tokens() -> Batch:
    ids = torch.randint(decoder_speed.VOCABULARY, (decoder_speed.BATCH, decoder_speed.LENGTH))
    return {"input_ids": ids, "use_cache": False}


NETWORKS = {
    "ResNet-18": Case(_network(), _images(16, 64, "x")),
    "ResNet-50": Case(
        _network(block=Bottleneck, depths=(3, 4, 6, 3), pool=True), _images(8, 128, "x")
    ),
    "RegNet-Y": Case(
        _classifier(
            "RegNet",
            embedding_size=32,
            hidden_sizes=(48, 104, 208, 440),
            depths=(1, 3, 6, 6),
            groups_width=8,
        ),
        _images(8, 128),
    ),
    "MobileNetV2": Case(_classifier("MobileNetV2"), _images(8, 128)),
    "PP-LCNet": Case(_classifier("PPLCNet"), _images(8, 128)),
    "EfficientNet-B0": Case(
        _classifier("EfficientNet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280),
        _images(8, 128),
    ),
    "Llama": Case(_decoder, _tokens),
}


def step(model: nn.Module, batch: Batch) -> None:
    """Forward and backward of a batch."""
    model.zero_grad()
    loss: Tensor = sum(y.float().square().mean() for y in tensors_of(call(model, batch)))  # type: ignore[assignment]
    loss.backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def inference(model: nn.Module, batch: Batch) -> None:
    """Forward of a batch in eval mode."""
    call(model, batch)


def kept(model: nn.Module, batch: Batch) -> int:
    """The bytes that a forward keeps for the backward, without the model's own tensors."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor  # which keeps it, so that no other has its place

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        output = tensors_of(call(model, batch))
    assert output
    return sum(sizes.values())


def measure(name: str, rounds: int = ROUNDS) -> Row:
    """The ratios of the times, and the memory, of one network."""
    torch.manual_seed(0)
    case = NETWORKS[name]
    model, batch = case.build().train(), case.batch()
    fused = anynorm.fuse(model, batch)
    contestants = {
        "own": model,
        "ours": anynorm.convert(model, "anynorm", batch).sure(),
        "fused": fused.sure(),
    }
    row: Row = {
        "network": name,
        "fused": fused.receipt.facts["fused"],
        "megabytes": {who: kept(m, batch) / 1e6 for who, m in contestants.items()},
    }
    for task, run in {"step": step, "inference": inference}.items():
        for one in contestants.values():
            one.train(task == "step")
            run(one, batch)
        runs = {who: partial(run, one, batch) for who, one in contestants.items()}
        # One call of each in a round, and so many rounds, however long they take.
        times = alternate(runs, Budget(math.inf, 2 * rounds, 2 * rounds, per_round=0.0))
        row[task] = {
            "milliseconds": {who: 1e3 * statistics.median(found) for who, found in times.items()},
            **{w: statistics.quantiles(ratios(times, "own", w), n=4) for w in ("ours", "fused")},
        }
    return row


def table(result: Mapping[str, Any]) -> str:
    """What was measured on what, and a row for each network."""
    head = (
        *("network", "norms fused", "a step, ms", "converted", "fused"),
        *("inference, ms", "converted", "fused", "kept for backward, MB", "kept, fused"),
    )
    lines = [surroundings([result["about"]]), "", line(head), "|---" * len(head) + "|"]
    for row in result["rows"]:
        cells = [row["network"], row["fused"].removesuffix(" normalizers")]
        for task in ("step", "inference"):
            found = row[task]
            cells += [f"{found['milliseconds']['own']:.0f}"]
            cells += [quartiles(*found[who]) for who in ("ours", "fused")]
        megabytes = row["megabytes"]
        cells += [f"{megabytes['own']:.0f}", f"{megabytes['fused']:.0f}"]
        lines.append(line(cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the result and the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not options.table:
        rows = []
        for name in options.networks:
            rows.append(measure(name, options.rounds))
            print(rows[-1], flush=True)
        write(options.out, {"about": about("default", {"rounds": options.rounds}), "rows": rows})
    words = table(read(options.out))
    print(words)
    if options.out == FILE:
        fill(PAGE, "fuse speed", words)


if __name__ == "__main__":
    main()
