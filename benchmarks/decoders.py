"""A small decoder, trained on text: what the doctor, fold and convert do with norms of its own.

    python -m benchmarks.decoders    # about 10 minutes on two cores

A Llama of `transformers` (its norms are of a class of its own) is trained on the sources of
Python's standard library: in float32; in bfloat16 with float32 master weights; and in bfloat16
alone.  Each is trained with several seeds.  The doctor's checks of transformers are run on all of
them and on copies with planted faults; folded and converted, the held-out loss must stay.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.study.data import seeded
from anynorm.study.python_text import ALPHABET, python_text
from benchmarks import RESULTS, ROOT
from benchmarks.page import fill, line
from benchmarks.result_files import about, read, write

__all__ = [
    "FILE",
    "PRECISIONS",
    "build",
    "faults",
    "found",
    "losses",
    "main",
    "planted",
    "tables",
    "train",
]

FILE = RESULTS / "doctor" / "decoders.json"
PAGE = ROOT / "docs" / "doctor.md"
SEEDS, STEPS, BATCH, RATE = 3, 200, 16, 1e-3
WARMUP = 30
CHECKS = (20, 27, 28, 29, 30, 31)
PRECISIONS = ("float32", "bfloat16 with float32 master weights", "bfloat16 alone")
Batch = dict[str, Tensor]
Row = dict[str, Any]


def build(seed: int = 0) -> nn.Module:
    """A Llama with four layers of 64 channels, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with seeded(seed):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(ALPHABET) + 1,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
            )
        )


def train(precision: str, seed: int, steps: int = STEPS) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Train a decoder by AdamW; returns it in eval mode, with its optimizer."""
    model = build(seed)
    if precision != "float32":
        model = model.bfloat16()
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    own = "master" not in precision
    optimizer = torch.optim.AdamW(list(model.parameters()) if own else masters, lr=RATE)
    inputs, targets = python_text()[0]
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(inputs), (BATCH,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP)
        model.zero_grad()
        loss_of(model, inputs[rows], targets[rows]).backward()
        if not own:
            for parameter, master in zip(model.parameters(), masters, strict=True):
                assert parameter.grad is not None
                master.grad = parameter.grad.float()
        optimizer.step()
        if not own:
            with torch.no_grad():
                for parameter, master in zip(model.parameters(), masters, strict=True):
                    parameter.copy_(master)
    return model.eval(), optimizer


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, in nats for each character."""
    logits = model(input_ids=inputs, use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def losses(model: nn.Module) -> float:
    """The loss on the held-out modules."""
    inputs, targets = python_text()[1]
    parts = [
        loss_of(model, *pair) for pair in zip(inputs.split(64), targets.split(64), strict=True)
    ]
    return float(torch.stack(parts).mean())


def batches(count: int = 4) -> list[Batch]:
    """Batches of training, as the doctor takes them."""
    inputs, _ = python_text()[0]
    return [{"input_ids": part} for part in inputs[: count * BATCH].split(BATCH)]


Fault = Callable[[Any], None]


def _zero_gamma(model: Any) -> None:
    model.model.layers[2].post_attention_layernorm.weight.zero_()


def _large_channel(model: Any) -> None:
    model.model.layers[0].mlp.down_proj.weight[7] *= 1e4


def _growth(model: Any) -> None:
    for depth, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight *= 10.0**depth


def _small_input(model: Any) -> None:
    model.model.embed_tokens.weight *= 1e-3


def _beyond_float16(model: Any) -> None:
    model.model.embed_tokens.weight *= 1e5


# A fault by the check that must find it.
faults: Mapping[int, Fault] = {
    20: _zero_gamma,
    28: _beyond_float16,
    29: _large_channel,
    30: _growth,
    31: _small_input,
}


def planted(model: nn.Module, fault: Fault) -> nn.Module:
    """A copy of a model with a fault."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        fault(model)
    return model


def found(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, str]:
    """The worst severity of each check that found something."""
    diagnosis = anynorm.doctor(model, batches(), optimizer=optimizer, checks=list(CHECKS))
    worst: dict[str, str] = {}
    for one in diagnosis.findings:
        worst.setdefault(str(one.check), one.severity)
    return worst


def measure(precision: str, seed: int) -> Row:
    """Train a decoder; examine it, and copies with faults; fold and convert it."""
    model, optimizer = train(precision, seed)
    tolerance = 1e-4 if precision == "float32" else None
    example = batches(1)[0]
    folded = anynorm.fold(model, example, tolerance=tolerance)
    converted = anynorm.convert(model, "anynorm", example, tolerance=tolerance)
    loss = losses(model)
    row: Row = {
        "precision": precision,
        "seed": seed,
        "loss": loss,
        # Results are written with few digits, so the differences are taken here.
        "change folded": abs(losses(folded.model) - loss),
        "layers folded": len(folded.receipt.changed),
        "change converted": abs(losses(converted.model) - loss),
        "layers converted": len(converted.receipt.changed),
        "found": found(model, optimizer),
        "planted": {},
    }
    for check, fault in faults.items():
        row["planted"][str(check)] = found(planted(model, fault)).get(str(check), "")
    return row


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by the name of their marker."""
    return {"decoders": _by_precision(rows), "faults in decoders": _by_check(rows)}


def _by_precision(rows: Sequence[Row]) -> str:
    head = ("trained in", "loss (seeds)", "largest change: folded", "converted", "27 finds γ stuck")
    lines = [line(head), "|---" * len(head) + "|"]
    for precision in PRECISIONS:
        own = [row for row in rows if row["precision"] == precision]
        values = sorted(row["loss"] for row in own)
        words = f"{values[0]:.3f} to {values[-1]:.3f}" if values else "–"
        moved = [max(row[f"change {verb}"] for row in own) for verb in ("folded", "converted")]
        stuck = sum("27" in row["found"] for row in own)
        cells = (precision, words, *(f"{away:.1e}" for away in moved), f"{stuck} of {len(own)}")
        lines.append(line(cells))
    return "\n".join(lines)


def _by_check(rows: Sequence[Row]) -> str:
    head = ("check", "found in trained decoders", "found where it was planted")
    lines = [line(head), "|---" * len(head) + "|"]
    for check in CHECKS:
        healthy = [r for r in rows if not (check == 27 and "alone" in r["precision"])]
        alarms = sum(str(check) in row["found"] for row in healthy)
        faulty = [row["planted"][str(check)] for row in rows if str(check) in row["planted"]]
        told = f"{sum(map(bool, faulty))} of {len(faulty)}" if faulty else "–"
        if check == 27:
            alone = [r for r in rows if "alone" in r["precision"]]
            told = f"{sum('27' in r['found'] for r in alone)} of {len(alone)}"
        lines.append(line((str(check), f"{alarms} of {len(healthy)}", told)))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the result and the tables of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args(arguments)
    if not options.table:
        rows = []
        for precision in PRECISIONS:
            for seed in range(options.seeds):
                rows.append(measure(precision, seed))
                print(rows[-1], flush=True)
        write(options.out, {"about": about("default", {}), "rows": rows})
    for name, words in tables(read(options.out)["rows"]).items():
        print(words)
        if options.out == FILE:
            fill(PAGE, name, words)


if __name__ == "__main__":
    main()
