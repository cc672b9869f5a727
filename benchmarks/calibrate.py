"""How often the doctor alarms on healthy models: ``python -m benchmarks.calibrate``.

Classifiers of the zoo are trained on digits; those that classify 90% of the held-out images are
healthy.  The doctor sees the batches of their training, the held-out images as its target, and
their labels for the losses.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import anynorm
from anynorm.doctor import CHECKS
from benchmarks import RESULTS
from benchmarks.page import line
from benchmarks.result_files import about, read, write
from benchmarks.zoo import digits_batches, find
from benchmarks.zoo_digits import BATCH, one_thread
from benchmarks.zoo_digits import accuracy as accuracy_of
from benchmarks.zoo_trained import held_out, trained

__all__ = ["FILE", "HEALTHY", "MODELS", "alarms", "examine", "main", "table"]

FILE = RESULTS / "doctor" / "false-alarms.json"
HEALTHY = 0.9  # of the held-out images
RATE = 0.01  # weight decay of the training
ACCUMULATED = 4
BATCH_NORMALIZED = (
    *("resnet-basic", "resnet-bottleneck", "regnet-x", "regnet-y", "mobilenet-v1", "mobilenet-v2"),
    *("efficientnet", "hgnet-v2", "hgnet-v2-affine", "textnet", "pp-lcnet", "pp-lcnet-v3"),
    *("pp-lcnet-v4", "rt-detr-resnet", "align-vision", "uvdoc-backbone", "levit", "levit-teacher"),
    *("mobilevit", "mobilevit-v2", "swiftformer", "cvt", "perceiver-conv"),
)
OTHERS = (
    *("bit-preactivation", "bit-bottleneck", "convnext", "dinov3-convnext", "pvt", "poolformer"),
    *("vit", "pvt-v2", "segformer"),
)
MODELS = (*BATCH_NORMALIZED, *OTHERS)
# Checks of models without batch norm: 22 is of the other normalizers.
EVERYWHERE = (9, 18, 19, 21, 24)
OTHER_NORMALIZERS = 22
RANKS = 14
MEASURED_ELSEWHERE = range(26, 32)  # on decoders: `benchmarks.decoders`

Row = dict[str, Any]


def examine(name: str, model: nn.Module) -> Row:
    """What the doctor says of a trained model: for each check its worst severity, and its words."""
    started = time.perf_counter()
    found = [_on_training(name, model), _on_held_out(model), _converted(model)]
    findings = [finding for diagnosis in found for finding in diagnosis.findings]
    findings.sort(key=lambda finding: ("error", "warning", "info").index(finding.severity))
    ran = {check.number for diagnosis in found for check in diagnosis.checks}
    skipped = {s.check: s.needs for diagnosis in found for s in diagnosis.skipped}
    worst = {finding.check: finding for finding in reversed(findings)}
    return {
        "name": name,
        "families": found[0].facts["families"],
        "seconds": time.perf_counter() - started,
        "skipped": {str(number): skipped[number] for number in sorted(skipped)},
        "checks": {str(n): worst[n].severity if n in worst else "" for n in sorted(ran)},
        "layers": {str(n): c for n, c in sorted(Counter(f.check for f in findings).items())},
        "words": {str(n): f"{f.layer}: {f.message}" for n, f in sorted(worst.items())},
    }


def _on_training(name: str, model: nn.Module) -> anynorm.Diagnosis:
    """Everything but the losses, which are small on what was learned by heart, and a conversion."""
    batches = digits_batches(BATCH)
    steps = find(name).epochs * sum(len(b["pixel_values"]) == BATCH for b in batches)
    return anynorm.doctor(
        model,
        batches,
        target=[{"pixel_values": x} for x, _ in held_out(BATCH)],
        optimizer=torch.optim.AdamW(model.parameters(), weight_decay=RATE),
        averaged=copy.deepcopy(model),
        accumulation=ACCUMULATED,
        steps=max(steps // ACCUMULATED, 1),
        checks=[check.number for check in CHECKS if check.number not in (3, 24)],
    )


def _on_held_out(model: nn.Module) -> anynorm.Diagnosis:
    return anynorm.doctor(
        model,
        held_out(BATCH),
        forward=lambda model, batch: model(pixel_values=batch[0]),
        checks=[3],
    )


def _converted(model: nn.Module) -> anynorm.Diagnosis:
    """The same model with our layers in place of torch's, which compute the same."""
    ours = anynorm.surgery.convert(model, "anynorm").model
    return anynorm.doctor(ours, digits_batches(BATCH)[:1], source=model, checks=[24])


def _recalibrated(model: nn.Module) -> float:
    """The accuracy with statistics of the batches of training, in eval mode."""
    return accuracy_of(anynorm.surgery.recalibrate(model, digits_batches(BATCH)).model)


def applies(row: Row, number: int) -> bool:
    """Whether a model has what a check looks at, and it ran."""
    families = set(row["families"])
    if str(number) in row["skipped"]:
        return False
    if number == OTHER_NORMALIZERS:
        return bool(families - {"batch", "frozen"})
    return number in EVERYWHERE or "batch" in families


def table(result: Mapping[str, Any]) -> str:
    """The false alarms as Markdown: a line for each check."""
    rows = [row for row in result["models"] if row["accuracy"] >= HEALTHY]
    lines = [
        "| check | healthy models | with a warning or an error | with information |",
        "|---|---|---|---|",
    ]
    for check in (one for one in CHECKS if one.number not in MEASURED_ELSEWHERE):
        # A check that is newer than the measurement has no rate.
        ran = [row for row in rows if str(check.number) in row["checks"]]
        states = [row["checks"][str(check.number)] for row in ran if applies(row, check.number)]
        lines.append(line((f"{check.number} {check.name}", *_counted(states))))
    return "\n".join(lines)


def _counted(states: Sequence[str]) -> Iterable[str]:
    if not states:
        return ("–", "–", "–")
    alarms = sum(state in ("error", "warning") for state in states)
    share = f"{alarms} ({100 * alarms / len(states):.0f}%)"
    return (str(len(states)), share, str(states.count("info")))


def alarms(result: Mapping[str, Any]) -> str:
    """Every alarm on a healthy model, and what was found in those that are not healthy."""
    healthy = [row for row in result["models"] if row["accuracy"] >= HEALTHY]
    others = [row for row in result["models"] if row["accuracy"] < HEALTHY]
    lines = [f"- {row['name']}, check {n}: {row['words'][n]}." for row, n in _alarming(healthy)]
    lines += [_gained(row) for row in healthy if "recalibrated" in row]
    if not others:
        return "\n".join(lines)
    lines.append("\nNot counted, since they classify less than 90% of the held-out images:\n")
    for row in others:
        words = [f"check {n}: {row['words'][n]}" for _, n in _alarming([row])] or ["nothing found"]
        lines.append(f"- {row['name']} ({100 * row['accuracy']:.0f}%): {'; '.join(words)}.")
    return "\n".join(lines)


def _gained(row: Row) -> str:
    before, after = (100 * row[key] for key in ("accuracy", "recalibrated"))
    return f"- {row['name']}, recalibrated: {after:.1f}% of the held-out images, not {before:.1f}%."


def _alarming(rows: Iterable[Row]) -> Iterable[tuple[Row, str]]:
    for row in rows:
        for number, state in row["checks"].items():
            if state in ("error", "warning"):
                yield row, number


def main() -> None:
    """Train or load the models, examine them, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/zoo"), help="trained weights")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--table", action="store_true", help="only show what was measured")
    options = parser.parse_args()
    if not options.table:
        write(options.out, _measured(options.models, options.cache))
    print(table(read(options.out)))


def _measured(names: Sequence[str], cache: Path) -> dict[str, Any]:
    models: list[Row] = []
    with one_thread():
        described = about("default", {"healthy": HEALTHY, "accumulation": ACCUMULATED})
        for name in names:
            model, accuracy = trained(name, cache)
            row = {**examine(name, model), "accuracy": accuracy}
            if any(_alarming([row])):
                row["recalibrated"] = _recalibrated(model)
            models.append(row)
            print(_said(models[-1]), flush=True)
    return {"about": described, "models": models}


def _said(row: Row) -> str:
    words = "".join(f"\n    {n} {row['words'][n]}" for _, n in _alarming([row]))
    return f"{row['name']}: accuracy {row['accuracy']:.3f}, {row['seconds']:.1f} s{words}"


if __name__ == "__main__":
    main()
