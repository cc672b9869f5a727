"""Every verb on networks that others trained, with real inputs: ``python -m benchmarks.trained``.

    python -m benchmarks.trained [NAME ...] [--speed]

Each network of `trained_networks` gets inputs in its own preprocessing.  A verb changes it with one
half of them, and its outputs are compared with the original's on the other half.  What the doctor
says is checked again without its code, where that can be done.  Of all networks the results and the
tables of docs/trained.md are written.  A network whose package is not installed is skipped, and the
reason is kept.  `--speed` also times the folded networks; do that on an idle machine.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Gammas, Slim, load_into, save_state
from anynorm.surgery.call_info import observe
from anynorm.surgery.normalizers import Normalizer, normalizers
from benchmarks import RESULTS, ROOT
from benchmarks.attempt import WrongError, attempted, quiet
from benchmarks.page import fill, line, quartiles
from benchmarks.pretrained import Network
from benchmarks.result_files import about, read, write
from benchmarks.shipped_files import files_table, shipped
from benchmarks.trained_claims import confirmed
from benchmarks.trained_networks import TRAINED

__all__ = ["FILE", "VERBS", "Subject", "main", "moved", "table", "tried"]

FILE = RESULTS / "trained.json"
BATCH = 8
RATIO = 0.1
EXACT = 1e-4  # relative, of the largest output: float32 after some fifty layers
DECAY = 0.1
Row = dict[str, Any]


class Subject:
    """A network, the inputs for calibration in batches, and those for the comparison."""

    def __init__(self, network: Network) -> None:
        self.network, self.model = network, network.build()
        x, labels = network.read()
        x = network.prepare(x)
        # Pairs are alternately for calibration and for the comparison: the lines of text
        # alternate in their direction.
        place = torch.arange(len(x)) // 2 % 2
        self.batches = list(x[place == 0].split(BATCH))
        self.held_out, self.labels = x[place == 1], labels[place == 1]

    @cached_property
    def outputs(self) -> Tensor:
        """The outputs of the network as it is."""
        return outputs(self.model, self.held_out)

    @property
    def norms(self) -> list[Normalizer]:
        """The normalizers of the network."""
        return normalizers(self.model)


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(BATCH)])


def moved(subject: Subject, model: nn.Module) -> Row:
    """How far the outputs of a changed model are from the original's.

    The largest difference, relative to the largest value; the size of the difference, relative to
    that of the outputs; and the cosine of the angle between the two, the mean over the samples.
    Where there are labels, the share that is right, before and after.
    """
    old, new = subject.outputs.flatten(1).double(), outputs(model, subject.held_out).flatten(1)
    apart = new.double() - old
    found: Row = {
        "largest": float(apart.abs().max() / old.abs().max()),
        "relative": float(apart.norm() / old.norm()),
        "cosine": float(F.cosine_similarity(new.double(), old).mean()),
    }
    right = subject.network.right
    if right is not None:
        pair = (subject.outputs, new.view_as(subject.outputs))
        found["right"] = [float(right(one, subject.labels).float().mean()) for one in pair]
    return found


def _equal(subject: Subject, model: nn.Module) -> Row:
    """The same, for a change that may only round."""
    found = moved(subject, model)
    if not found["largest"] <= EXACT:
        raise WrongError(f"the outputs differ by {found['largest']:.2g}")
    return found


def _fold(subject: Subject) -> Row:
    result = anynorm.fold(subject.model, subject.batches[0])
    of = len(subject.norms)
    left = {note.layer: note.text for note in result.receipt.refused}
    return {"folded": of - len(left), "of": of, "left": left, **_equal(subject, result.sure())}


def _convert(subject: Subject) -> Row:
    example = subject.batches[0]
    there = anynorm.convert(subject.model, "anynorm", example).sure()
    back = anynorm.convert(there, "torch", example).sure()
    kinds = [type(norm.module) for norm in normalizers(back)]
    if kinds != [type(norm.module) for norm in subject.norms]:
        raise WrongError("the classes are not those of the original")
    return {"there": _equal(subject, there)["largest"], **_equal(subject, back)}


def _recalibrate(subject: Subject) -> Row:
    result = anynorm.recalibrate(subject.model, subject.batches)
    samples = sum(map(len, subject.batches))
    facts = result.receipt.facts
    if not facts["passes"]:
        raise AnynormError("no running statistics")
    return {"samples": samples, "passes": facts["passes"], **moved(subject, result.model)}


def _prune(subject: Subject, **options: Any) -> Row:
    example = subject.batches[0]
    result = anynorm.prune(subject.model, example, ratio=RATIO, **options)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (subject.model, result.model))
    return {"parameters": after / before, **moved(subject, result.model)}


def _prune_recalibrated(subject: Subject) -> Row:
    return _prune(subject, recalibrate=subject.batches)


def _recognize(subject: Subject) -> Row:
    """Whether outputs alone show what the normalizers without running statistics compute."""
    known = {norm.module: norm for norm in subject.norms if not norm.keeps}
    calls = observe(subject.model, set(known), subject.batches[0])
    reached = {known[module]: seen.single for module, seen in calls.items() if seen.ranks}
    found = {
        norm: anynorm.recognize(norm.module, x) for norm, x in reached.items() if x is not None
    }
    wrong = [norm.name for norm, one in found.items() if one.spec and not _alike(one.spec, norm)]
    if wrong:
        raise WrongError(f"other specifications for {wrong}")
    right = sum(one.spec is not None for one in found.values())
    return {"recognized": right, "of": len(reached)}


def _alike(spec: anynorm.Spec, norm: Normalizer) -> bool:
    return (spec.center, spec.scale) == (norm.spec.center, norm.spec.scale)


def _gap(subject: Subject) -> Row:
    gammas = Gammas.of(subject.model)
    penalty = float(Slim(subject.model, 1.0).loss().detach())
    expected = sum(value for layer in gammas.values.values() for value in layer)
    if not math.isclose(penalty, expected, rel_tol=1e-4):
        raise WrongError(f"the penalty is {penalty}, and Σ|γ| is {expected}")
    return {"gap": gammas.gap, "below": gammas.below}


def _groups(subject: Subject) -> Row:
    groups = anynorm.parameter_groups(subject.model, DECAY)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    affine = [p for norm in subject.norms for p in norm.module.parameters(recurse=False)]
    if any(id(p) in decayed for p in affine):
        raise WrongError("γ or β has weight decay")
    return {
        "decayed": len(decayed),
        "not": sum(len(group["params"]) for group in groups) - len(decayed),
    }


def _manifest(subject: Subject) -> Row:
    """Write weights and manifest, and load them into another copy; then into one with another ε."""
    recorded = anynorm.manifest(subject.model, subject.batches[0])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net.safetensors")
        save_state(subject.model, file, manifest=recorded)
        other = copy.deepcopy(subject.model)
        load_into(other, file)
        found = _equal(subject, other)
        vars(normalizers(other)[0].module)["eps"] = 0.5
        try:
            load_into(other, file)
        except AnynormError:
            return {"layers": len(recorded.layers), **found}
    raise WrongError("another ε was not seen")


def _doctor(subject: Subject) -> Row:
    """What the doctor says without labels, and which of it holds by a calculation of its own."""
    diagnosis = anynorm.doctor(subject.model, subject.batches)
    counts = Counter(f"{one.check} {one.severity}" for one in diagnosis.findings)
    checked = {
        check: dict(Counter(str(confirmed(one, subject.model, subject.batches)) for one in those))
        for check in sorted({one.check for one in diagnosis.findings})
        if (those := [one for one in diagnosis.findings if one.check == check])
    }
    return {
        "status": diagnosis.status,
        "findings": dict(counts),
        "causes": [
            f"{one.name} ({one.sure}{'; the data' if one.data else ''})"
            for one in diagnosis.causes
            if one.severity != "info"
        ],
        "confirmed": {str(check): told for check, told in checked.items()},
    }


def _audit(subject: Subject) -> Row:
    """Audit the network and what fold makes of it, exported, against the network's weights."""
    example = subject.batches[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net.safetensors")
        save_state(subject.model, file)
        folded = anynorm.fold(subject.model, example).sure()
        before, after = (
            anynorm.audit(torch.export.export(model, (example,)), file)
            for model in (subject.model, folded)
        )
    return {
        "before": dict(Counter(f"{f.check} {f.severity}" for f in before.findings)),
        "folded": dict(Counter(f"{f.check} {f.severity}" for f in after.findings)),
        "status": [before.status, after.status],
    }


def _onnx(subject: Subject) -> Row:
    """Export what fold returns to ONNX, run it in onnxruntime, and audit the file."""
    import onnxruntime  # type: ignore[import-untyped]

    example = subject.batches[0]
    folded = anynorm.fold(subject.model, example).sure()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net.onnx")
        torch.onnx.export(folded, (example,), file, dynamo=True, verbose=False, external_data=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        [name] = [one.name for one in session.get_inputs()]
        [found] = session.run(None, {name: example.numpy()})
        status = anynorm.audit(file).status
    expected = outputs(subject.model, example)
    apart = float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())
    if not apart <= EXACT:
        raise WrongError(f"the outputs of onnxruntime differ by {apart:.2g}")
    return {"largest": apart, "status": status}


VERBS: Mapping[str, Callable[[Subject], Row]] = {
    "fold": _fold,
    "convert": _convert,
    "recalibrate": _recalibrate,
    "prune": _prune,
    "prune, recalibrated": _prune_recalibrated,
    "recognize": _recognize,
    "gap": _gap,
    "groups": _groups,
    "manifest": _manifest,
    "doctor": _doctor,
    "audit": _audit,
    "onnx": _onnx,
}


def tried(network: Network) -> Row:
    """Try every verb on a network; none may change the network itself."""
    subject = Subject(network)
    before = copy.deepcopy(subject.model.state_dict())
    found: Row = {
        "name": network.name,
        "source": network.source,
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "families": dict(Counter(norm.family for norm in subject.norms)),
        "held out": len(subject.held_out),
        "verbs": {},
    }
    for name, verb in VERBS.items():
        kept: list[Row] = []
        state, words = attempted(lambda verb=verb, kept=kept: str(kept.append(verb(subject))))  # type: ignore[misc]
        found["verbs"][name] = {"state": state, **(kept[0] if kept else {"words": words})}
        print(f"{network.name}: {name}: {state}: {kept[0] if kept else words}"[:300], flush=True)
    after = subject.model.state_dict()
    if not all(torch.equal(after[key], value) for key, value in before.items()):
        raise WrongError(f"{network.name} was changed itself")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--speed", action="store_true", help="also time the folded networks")
    options = parser.parse_args(arguments)
    quiet()
    described = about("default", {"batch": BATCH, "ratio": RATIO})
    rows, skipped = [], {}
    for network in TRAINED:
        if options.names and network.name not in options.names:
            continue
        try:
            rows.append(tried(network))
            if options.speed:
                from benchmarks.trained_speed import speed

                rows[-1]["speed"] = speed(network)
        except AnynormError as error:
            skipped[network.name] = str(error)
    result = {
        "about": described,
        "networks": rows,
        "skipped": skipped,
        "files": shipped(),
    }
    print(table(result))
    if not options.names:
        write(FILE, result)
        fill_page(read(FILE))


def fill_page(result: Row) -> None:
    """Write the tables of the documentation."""
    page = ROOT / "docs" / "trained.md"
    fill(page, "trained", table(result))
    fill(page, "shipped", files_table(result["files"]))


# --- the table --------------------------------------------------------------------------------


def _said(row: Row, verb: str, words: Callable[[Row], str]) -> str:
    found = row["verbs"][verb]
    if found["state"] == "passed":
        return words(found)
    return f"{found['state']}: {re.split('[:.;]', found['words'])[0]}"


def _changed(found: Row) -> str:
    words = f"{found['cosine']:.3f}"
    if "right" in found:
        before, after = (f"{100 * share:.0f}" for share in found["right"])
        words += f", {before} → {after}%"
    return words


COLUMNS: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "folded": ("fold", lambda f: f"{f['folded']} of {f['of']}, {f['largest']:.1g}"),
    "to anynorm and back": ("convert", lambda f: f"{f['there']:.1g}, {f['largest']:.1g}"),
    "recalibrated": ("recalibrate", lambda f: f"{_changed(f)}, {f['samples']} samples"),
    "pruned": ("prune", lambda f: f"{_changed(f)}, {f['parameters']:.0%} left"),
    "pruned, recalibrated": ("prune, recalibrated", _changed),
    "recognized": ("recognize", lambda f: f"{f['recognized']} of {f['of']}" if f["of"] else "–"),
    "gap": ("gap", lambda f: "none" if f["gap"] is None else f"{f['below']:.1%} below"),
    "groups": ("groups", lambda f: f"{f['decayed']} + {f['not']}"),
    "onnxruntime": ("onnx", lambda f: f"{f['largest']:.1g}, audit {f['status']}"),
}


def table(result: Row) -> str:
    """A row for each network, then what the doctor and the audit said, then what was skipped."""
    lines = [line(["network", "normalizers", *COLUMNS]), "|---" * (2 + len(COLUMNS)) + "|"]
    for row in result["networks"]:
        families = ", ".join(f"{n} {name}" for name, n in row["families"].items())
        cells = [_said(row, verb, words) for verb, words in COLUMNS.values()]
        lines.append(line([row["name"], families, *cells]))
    for verb, columns, words in (
        ("doctor", ["doctor", "confirmed", "cause"], _evidence),
        ("audit", ["audit", "audit, folded"], _audits),
    ):
        lines += ["", line(["network", *columns]), "|---" * (1 + len(columns)) + "|"]
        lines += [line([row["name"], *words(row["verbs"][verb])]) for row in result["networks"]]
    if timed := [row for row in result["networks"] if "speed" in row]:
        lines += ["", line(["network", "time of the original over the folded one's"]), "|---|---|"]
        for row in timed:
            low, median, high = (row["speed"][name] for name in ("low", "median", "high"))
            lines.append(line([row["name"], quartiles(low, median, high)]))
    lines += ["", *(f"- not measured: {n}: {why}" for n, why in result["skipped"].items())]
    return "\n".join(lines).rstrip()


def _evidence(doctor: Row) -> list[str]:
    if doctor["state"] != "passed":
        return [doctor["words"], "–", "–"]
    told = ", ".join(f"{n} × {key}" for key, n in doctor["findings"].items()) or "nothing"
    held = [
        f"{check}: {counts.get('True', 0)} of {counts.get('True', 0) + counts.get('False', 0)}"
        for check, counts in doctor["confirmed"].items()
        if counts.keys() & {"True", "False"}
    ]
    return [
        f"{doctor['status']}: {told}",
        "; ".join(held) or "–",
        "; ".join(doctor["causes"]) or "–",
    ]


def _audits(audit: Row) -> list[str]:
    if audit["state"] != "passed":
        return [audit["words"], "–"]
    return [
        f"{status}: {', '.join(f'{n} × {key}' for key, n in audit[name].items()) or 'nothing'}"
        for name, status in zip(("before", "folded"), audit["status"], strict=True)
    ]


if __name__ == "__main__":
    main()
