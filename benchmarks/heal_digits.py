"""Normalizers of trained models replaced, with and without healing: accuracy by the share replaced.

    python -m benchmarks.heal_digits [--seeds 5]

A convolutional network with batch norm and a small transformer with layer norm are trained on
scikit-learn's digits.  The normalizers are replaced from the first on: a third, two thirds, all.
Healing has the training inputs, without labels.  Writes benchmarks/results/heal_digits.json and the
table of docs/surgery.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.over_seeds import lost, run
from benchmarks.page import line
from benchmarks.prune_digits import accuracy, network, train

__all__ = ["MODELS", "Rows", "main", "measure", "table"]

SHARES = (1 / 3, 2 / 3, 1.0)
WAYS: dict[str, dict[str, Any] | None] = {
    "replaced": None,
    "healed": {"distill": 0},
    "healed, 300 steps": {"distill": 300},
}


class Rows(nn.Module):
    """A transformer that reads the eight rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(8, 48), nn.Parameter(0.1 * torch.randn(8, 48))
        block = nn.TransformerEncoderLayer(
            48, 4, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 3, nn.LayerNorm(48), enable_nested_tensor=False)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.enter(x[:, 0]) + self.places).mean(1))
        return y


# The model, its family of normalizers, and what replaces them, with options.
MODELS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, dict[str, Any]]]] = {
    "convolutions, batch norm": (
        *(network, "batch"),
        {"group": {"groups": 8}, "layer": {}, "rms": {}, "instance": {}, "dyt": {}, "none": {}},
    ),
    "transformer, layer norm": (Rows, "layer", {"rms": {}, "dyt": {}, "none": {}}),
}


def measure(job: tuple[str, int, int]) -> list[dict[str, Any]]:
    """One model and seed: each way of replacing each share by each kind."""
    from anynorm.study.data import load
    from anynorm.surgery import convert
    from anynorm.surgery.normalizers import normalizers

    name, seed, epochs = job
    make, family, targets = MODELS[name]
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data, model = load("digits"), make()
    train(model, data, epochs)
    batches = list(data.train_x.split(64))
    norms = [norm.name for norm in normalizers(model)]
    found = []
    for to, options in targets.items():
        for share in SHARES:
            layers = norms[: round(share * len(norms))]
            for way, healing in WAYS.items():
                more = {} if healing is None else {"heal": batches, **healing}
                changed = convert(
                    *(model, to, batches[0]), source=family, layers=layers, **more, **options
                )
                row = {"model": name, "seed": seed, "to": to, "share": share, "way": way}
                row |= {"control": accuracy(model, data), "accuracy": accuracy(changed.model, data)}
                found.append(row)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Points of accuracy below the model before, median and worst of the seeds, as Markdown."""
    heads = ["model", "to", "share of the layers", *WAYS]
    lines = [line(heads), "|---" * len(heads) + "|"]
    keys = dict.fromkeys((row["model"], row["to"], row["share"]) for row in rows)
    for key in keys:
        here = [row for row in rows if (row["model"], row["to"], row["share"]) == key]
        cells = [lost([row for row in here if row["way"] == way]) for way in WAYS]
        lines.append(line([*key[:2], f"{key[2]:.0%}", *cells]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    models = MODELS
    run("heal_digits", "surgery.md", __doc__, models, measure, table, 30, arguments)


if __name__ == "__main__":
    main()
