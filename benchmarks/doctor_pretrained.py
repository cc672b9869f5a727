"""The doctor on networks that others trained: ``python -m benchmarks.doctor_pretrained``.

Each network of `pretrained` gets data that are not those of its training, in its own preprocessing,
with labels and without; then a fault is planted in its input or its layers.  Kept are the causes
that the doctor names, and the loss on right data before and after `Diagnosis.fix`.  Nothing is
downloaded: a network whose package is not installed is skipped, and the reason is kept.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.errors import AnynormError
from anynorm.study.data import seeded
from benchmarks import RESULTS
from benchmarks.page import line
from benchmarks.planted_causes import tracking
from benchmarks.pretrained import NETWORKS, Network
from benchmarks.result_files import about, read, write
from benchmarks.zoo_digits import one_thread

__all__ = ["FAULTS", "FILE", "Fault", "examine", "main", "table"]

FILE = RESULTS / "doctor" / "pretrained.json"
BATCH = 32
HARM = (0.01, 0.05)  # a loss is another one beyond this difference, and this share of it

Prepare = Callable[[Tensor], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A fault, the names of causes that are right, and how it is planted: in the input or layers.

    `feed` is given what is read and the network's preprocessing.
    """

    name: str
    right: tuple[str, ...]
    feed: Callable[[Tensor, Prepare], Tensor] = lambda x, prepare: prepare(x)
    edit: Callable[[nn.Module, list[Tensor]], None] | None = None
    cut: int = BATCH
    labels: bool = True
    colours: bool = False  # only where channels are colours
    scaled: bool = False  # only where the preprocessing keeps the scale


def _raw(x: Tensor, _: Prepare) -> Tensor:
    return x


def _last_batches(momentum: float, count: int) -> Callable[[nn.Module, list[Tensor]], None]:
    """Statistics of some batches after a reset, by a momentum."""

    def edit(model: nn.Module, batches: list[Tensor]) -> None:
        for norm in tracking(model):
            norm.module.reset_running_stats()
            norm.module.momentum = momentum
        model.train()
        for index in range(count):
            model(batches[index % len(batches)])
        model.eval()

    return edit


def _lost(model: nn.Module, _: list[Tensor]) -> None:
    for norm in tracking(model):
        norm.module.reset_running_stats()


def _epsilon(model: nn.Module, _: list[Tensor]) -> None:
    for norm in tracking(model):
        norm.module.eps = 0.1


def _scrambled(model: nn.Module, _: list[Tensor]) -> None:
    """The statistics of one layer in another order of its channels."""
    norms = tracking(model)
    layer = norms[len(norms) // 2].module
    order = torch.randperm(len(layer.running_mean), generator=torch.Generator().manual_seed(0))
    layer.running_mean.copy_(layer.running_mean[order])
    layer.running_var.copy_(layer.running_var[order])


def _older(model: nn.Module, _: list[Tensor]) -> None:
    """Statistics of other weights: every mean moved and every variance scaled at random."""
    generator = torch.Generator().manual_seed(0)
    for norm in tracking(model):
        mean, variance = norm.module.running_mean, norm.module.running_var
        mean += 0.5 * torch.randn(len(mean), generator=generator) * variance.sqrt()
        variance *= (0.5 * torch.randn(len(mean), generator=generator)).exp()


INPUT, YOUNG, LAG = (
    ("input preprocessing",),
    ("too few batches", "momentum lost"),  # torchcrepe's layers have momentum 0
    ("running statistics that lag behind the weights",),
)
FAULTS: tuple[Fault, ...] = (
    Fault("nothing", ()),
    Fault("nothing, in one batch", (), cut=10**6),
    Fault("nothing, in batches of 16", (), cut=16),
    Fault("nothing, no labels", (), labels=False),
    Fault("0 to 255 for 0 to 1", INPUT, lambda x, prepare: prepare(255 * x), scaled=True),
    Fault("0 to 255, no labels", INPUT, lambda x, p: p(255 * x), labels=False, scaled=True),
    Fault("no mean and deviation", INPUT, _raw),
    Fault("no mean and deviation, no labels", INPUT, _raw, labels=False),
    Fault("mean and deviation twice", INPUT, lambda x, p: p(p(x)), scaled=True),
    Fault("channels in reverse order", INPUT, lambda x, p: p(x.flip(1)), colours=True),
    Fault("ε 0.1", ("ε changed",), edit=_epsilon),
    Fault("statistics not loaded", YOUNG, edit=_lost),
    Fault("statistics of 4 batches", YOUNG, edit=_last_batches(0.1, 4)),
    Fault("momentum 0.99", ("momentum in the other convention",), edit=_last_batches(0.99, 4)),
    Fault("statistics of one layer scrambled", ("statistics of",), edit=_scrambled),
    Fault("statistics of other weights", LAG, edit=_older),
)


def examine(network: Network, fault: Fault) -> Row:
    """What the doctor says of a network with a fault, and what its repair does to the loss."""
    x, labels = network.read()
    right = [
        (network.prepare(a), b) for a, b in zip(x.split(BATCH), labels.split(BATCH), strict=True)
    ]
    model = copy.deepcopy(network.build())
    with torch.no_grad(), seeded(0):
        if fault.edit is not None:
            fault.edit(model, [batch[0] for batch in right])
        fed = fault.feed(x, network.prepare)
    parts = zip(fed.split(fault.cut), labels.split(fault.cut), strict=True)
    batches = [(a, b) if fault.labels else a for a, b in parts]
    started = time.process_time()
    with seeded(0):
        found = anynorm.doctor(model, batches)
        seconds = time.process_time() - started
        fixed = found.fix().model
    named = [any(cause.name.startswith(r) for r in fault.right) for cause in found.causes]
    return {
        "fault": fault.name,
        "status": found.status,
        "findings": dict(Counter(f"{f.check} {f.severity}" for f in found.findings)),
        "undecided": len(found.undecided),
        "causes": [cause.to_dict(found.findings) for cause in found.causes],
        "first": bool(named) and named[0],
        "named": any(named) or any(r in c.sure for c in found.causes for r in fault.right),
        "seconds": seconds,
        "before": _measured(model, right),
        "after": _measured(fixed, right),
    }


@torch.no_grad()
def _measured(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Loss and share of right predictions on right data, in eval mode."""
    scores = torch.cat([model.eval()(x) for x, _ in batches])
    labels = torch.cat([y for _, y in batches])
    right = float((scores.argmax(1) == labels).float().mean())
    return {"loss": float(F.cross_entropy(scores, labels)), "right": right}


def harmed(row: Row) -> bool:
    """Whether the repair raised the loss on right data."""
    before, after = row["before"]["loss"], row["after"]["loss"]
    return not after - before <= HARM[0] + HARM[1] * abs(before)


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a line for each network and fault."""
    lines = [
        "| network | fault | status | first cause | loss, right data | after `fix()` | right, % |",
        "|---|---|---|---|---|---|---|",
    ]
    every = []
    for network in result["networks"]:
        for row in network["rows"]:
            every.append(row)
            lines.append(line(_cells(network["name"], row)))
    planted = [row for row in every if not row["fault"].startswith("nothing")]
    whole = [row for row in every if row["fault"].startswith("nothing")]
    labelled = [row for row in whole if "no labels" not in row["fault"]]
    errors = sum(any("error" in key for key in row["findings"]) for row in labelled)
    words = [
        f"The planted fault is the first cause in {sum(r['first'] for r in planted)} of "
        f"{len(planted)} cases, and named at all in {sum(r['named'] for r in planted)}.",
        f"Without a fault and with labels {errors} of {len(labelled)} diagnoses have errors. "
        f"`fix()` raised the loss on right data in {sum(map(harmed, every))} of {len(every)}.",
    ]
    sources = [
        f"- {n['name']}, from the package `{n['source']}`: {n['samples']} samples, labels: "
        f"{n['labels']}."
        for n in result["networks"]
    ]
    skipped = [f"- not measured: {name}: {why}." for name, why in result["skipped"].items()]
    return "\n".join([*lines, "", *words, "", *sources, *skipped])


def _cells(name: str, row: Row) -> Iterator[str]:
    first = row["causes"][0]["name"] if row["causes"] else "none"
    mark = "" if row["first"] or row["fault"].startswith("nothing") else " (not the planted one)"
    yield from (name, row["fault"], str(row["status"]), first + mark)
    yield from (f"{row[key]['loss']:.3g}" for key in ("before", "after"))
    yield f"{100 * row['before']['right']:.0f} → {100 * row['after']['right']:.0f}"


def main() -> None:
    """Examine the networks that are installed, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--only", default="", help="faults with this in their names")
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args()
    if not options.table:
        for result in _results(options.networks, options.only):
            write(options.out, result)
    print(table(read(options.out)))


def _results(names: Sequence[str] | None, only: str) -> Iterator[dict[str, Any]]:
    """The results so far, after each diagnosis."""
    skipped: dict[str, str] = {}
    networks: list[dict[str, Any]] = []
    with one_thread():
        described = about("default", {"batch": BATCH})
        for network in NETWORKS:
            if names and network.name not in names:
                continue
            try:
                samples = len(network.read()[0])
                network.build()
            except AnynormError as error:
                skipped[network.name] = str(error)
                print(f"{network.name} is skipped: {error}", flush=True)
                continue
            print(network.name, flush=True)
            facts = {"name": network.name, "source": network.source, "labels": network.labels}
            networks.append({**facts, "samples": samples, "rows": []})
            for fault in FAULTS:
                if only in fault.name and _applies(network, fault):
                    networks[-1]["rows"].append(examine(network, fault))
                    print(_said(networks[-1]["rows"][-1]), flush=True)
                    yield {"about": described, "networks": networks, "skipped": skipped}


def _applies(network: Network, fault: Fault) -> bool:
    return (network.colours or not fault.colours) and (network.scaled or not fault.scaled)


def _said(row: Row) -> str:
    mark = "+" if row["first"] else "-"
    losses = f"{row['before']['loss']:.3g} → {row['after']['loss']:.3g}"
    causes = [f"{c['name']} [{c['sure']}] {c['effect']} {c['refused']}" for c in row["causes"][:2]]
    return (
        f"  {mark} {row['fault']}: {row['status']} {row['findings']} {causes} {losses} "
        f"{row['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
