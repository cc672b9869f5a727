"""Pruning of small trained transformers: MLP units and heads of attention, by a refit.

    python -m benchmarks.prune_transformers [--seeds 3]    # about ten minutes for a seed

A Llama and a GPT-2 of `transformers`, with four layers of 64 channels, are trained on the sources
of Python's standard library, and a ViT of the same size on scikit-learn's digits.  A part
of the MLP units and heads is cut by a refit, with and without 300 steps of distillation behind it;
and a part of the heads alone.  Beside them stands the same cut without new weights.  Writes
benchmarks/results/prune_transformers.json and the table of docs/pruning.md.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anynorm.study.data import load, seeded
from anynorm.study.python_text import ALPHABET
from benchmarks import RESULTS, ROOT
from benchmarks.decoders import batches, build, loss_of, losses
from benchmarks.page import fill, line
from benchmarks.result_files import about, read, write

__all__ = ["FILE", "SUBJECTS", "WAYS", "Subject", "main", "measure", "table"]

FILE = RESULTS / "prune_transformers.json"
# What is cut, by which shares, and the layers that are left out.
CUTS = (("MLP units and heads", (0.1, 0.3, 0.5), ()), ("heads", (0.25, 0.5), ("*.mlp.*",)))
SEEDS, STEPS, BATCH, RATE, WARMUP = 3, 600, 32, 2e-3, 50
CALIBRATION = 24  # batches of text
WAYS = ("cut only", "refit", "refit, 300 steps")
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A model, how it is trained and measured, and inputs without labels."""

    build: Callable[[int], nn.Module]
    data: str
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    inputs: Callable[[], list[Any]]


def _gpt2(seed: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    with seeded(seed):
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(ALPHABET) + 1,
                n_embd=64,
                n_inner=192,
                n_layer=4,
                n_head=4,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=0,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )


def _vit(seed: int) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    with seeded(seed):
        return ViTForImageClassification(
            ViTConfig(
                image_size=8,
                patch_size=2,
                num_channels=1,
                hidden_size=64,
                intermediate_size=192,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_labels=10,
            )
        )


def _image_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images).logits, labels)


@torch.no_grad()
def _errors(model: nn.Module) -> float:
    """The share of held-out images that are not recognized, in percent."""
    data = load("digits")
    wrong = model(data.test_x).logits.argmax(1) != data.test_y
    return 100 * float(wrong.double().mean())


def _text(build: Callable[[int], nn.Module]) -> Subject:
    return Subject(build, "python-text", loss_of, losses, lambda: batches(CALIBRATION))


SUBJECTS: dict[str, Subject] = {
    "Llama, loss": _text(build),
    "GPT-2, loss": _text(_gpt2),
    "ViT, errors (%)": Subject(
        _vit, "digits", _image_loss, _errors, lambda: list(load("digits").train_x.split(64))
    ),
}


def train(subject: Subject, seed: int, steps: int) -> nn.Module:
    """A model trained by AdamW, in eval mode."""
    model, data = subject.build(seed).train(), load(subject.data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP, 1.0, WARMUP),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - WARMUP)),
        ],
        [WARMUP],
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(data.train_x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        subject.loss(model, data.train_x[rows], data.train_y[rows]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def measure(name: str, seed: int, steps: int = STEPS) -> list[Row]:
    """One model: what is left of it at each ratio, by each way."""
    from anynorm.surgery import prune
    from anynorm.surgery.distill import distill

    subject = SUBJECTS[name]
    model, inputs = train(subject, seed, steps), subject.inputs()
    control = subject.score(model)
    found = []
    for what, ratio, ignore in _cuts():
        refitted = prune(model, inputs[0], ratio=ratio, refit=inputs, ignore=ignore)
        distilled = copy.deepcopy(refitted.model)
        distill(distilled, model, inputs, 300)  # as prune(distill=300), without another refit
        models = (refitted.plan.apply(model), refitted.model, distilled)
        facts = refitted.receipt.facts
        for way, small in zip(WAYS, models, strict=True):
            row = {"model": name, "seed": seed, "what": what, "ratio": ratio, "way": way}
            row |= {"control": control}
            row |= {size: _left(facts[size]) for size in ("parameters", "flops")}
            found.append(row | {"score": subject.score(small), "cut": _cut(refitted.plan.cuts)})
            print(found[-1], flush=True)
    return found


def _cuts() -> list[tuple[str, float, tuple[str, ...]]]:
    return [(what, ratio, ignore) for what, ratios, ignore in CUTS for ratio in ratios]


def _left(fact: str) -> float:
    before, after = map(int, fact.split(" -> "))
    return after / before


def _cut(cuts: Any) -> dict[str, int]:
    """How much goes of each weight, along its first axis and its second."""
    return {
        f"{name} {axis}": len(indices)
        for name, axes in cuts.items()
        for axis, indices in axes.items()
        if name.endswith("weight")
    }


def table(rows: Sequence[Row]) -> str:
    """The score of each way, the median of the seeds, as Markdown; less is better."""
    heads = ["model", "cut", "not cut", *WAYS, "parameters", "FLOPs"]
    lines = [line(heads), "|---" * len(heads) + "|"]
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        for what, ratio in dict.fromkeys((row["what"], row["ratio"]) for row in own):
            here = [row for row in own if (row["what"], row["ratio"]) == (what, ratio)]
            scores = [_middle(here, "control")]
            scores += [_middle([r for r in here if r["way"] == way], "score") for way in WAYS]
            sizes = [_middle(here, size) for size in ("parameters", "flops")]
            cells = [*(f"{score:.3g}" for score in scores), *(f"{size:.0%}" for size in sizes)]
            lines.append(line([name, f"{ratio:.0%} of {what}", *cells]))
    return "\n".join(lines)


def _middle(rows: Sequence[Row], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the result and the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args(arguments)
    if not options.table:
        rows: list[Row] = []
        for seed in range(options.seeds):
            for name in SUBJECTS:
                rows += measure(name, seed, options.steps)
                # What is measured so far is kept if it is interrupted.
                write(options.out, {"about": about("default", {}), "rows": rows})
    words = table(read(options.out)["rows"])
    print(words)
    if options.out == FILE:
        fill(ROOT / "docs" / "pruning.md", "transformers", words)


if __name__ == "__main__":
    main()
