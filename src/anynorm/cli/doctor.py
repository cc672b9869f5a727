"""``anynorm doctor``: what is wrong with a model's normalization."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from anynorm.cli.edit import OURS, add_files, check_files, finish
from anynorm.cli.outcome import add_outcome, check_outcome, write_outcome
from anynorm.cli.status import NOT_ALL
from anynorm.cli.subject import NAMES, Subject, add_options, opened
from anynorm.errors import AnynormError
from anynorm.report.text import visible

if TYPE_CHECKING:
    from anynorm.doctor import Diagnosis
    from anynorm.surgery import Manifest

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    doctor = commands.add_parser(
        "doctor",
        help="say what is wrong with a model's normalization",
        description="Exit status 0: examined and healthy; 1: there are errors or warnings, "
        "repaired or not; 2: the doctor could not run; 3: layers were not examined, or there were "
        "too few data. Defaults are in parentheses.",
        epilog="Example: anynorm doctor --model my_models:net --weights net.safetensors "
        "--data my_data:batches --html diagnosis.html",
    )
    doctor.set_defaults(call=_doctor)
    add_options(doctor, data=False)
    _add_evidence(doctor)
    _add_outcome(doctor)


def _add_evidence(doctor: argparse.ArgumentParser) -> None:
    add, path = doctor.add_argument, "package.module:function"
    loss = "(output, batch) to a number (by the targets: cross entropy or squared error)"
    optimizer = "makes the optimizer of the training from the model (none)"
    source = "makes the model before its conversion (none)"
    checks = "only the checks with these numbers (all)"
    add("--target", metavar="DATA", help="batches of another domain, named as --data are (none)")
    add("--loss", metavar=path, help=loss)
    add("--optimizer", metavar=path, help=optimizer)
    add("--averaged", metavar="FILE", help="averaged weights (EMA, SWA) of the same model (none)")
    add("--source", metavar="package.module:factory", help=source)
    add("--source-weights", metavar="FILE", help="its weights (as the factory makes it)")
    add("--accumulation", type=int, metavar="N", default=OURS, help="batches per training step (1)")
    add("--steps", type=int, metavar="N", default=OURS, help="training steps so far (unknown)")
    axis = "the axis of the input with the samples (0, unless the labels show that it is 1)"
    add("--batch-axis", type=int, metavar="AXIS", default=OURS, help=axis)
    add(
        "--checks",
        nargs="+",
        type=int,
        default=OURS,
        metavar="N",
        help=checks,
    )


def _add_outcome(doctor: argparse.ArgumentParser) -> None:
    add = doctor.add_argument
    fix = "apply the safe repairs, and print the receipt (no)"
    add_outcome(doctor, "diagnosis")
    add("--fix", action="store_true", help=fix)
    accept = "with --fix: recompute statistics even if the data may be wrong, not the model (no)"
    add("--accept-data", action="store_true", help=accept)
    add_files(doctor)


def _doctor(
    *,
    html: str | None,
    json: str | None,
    fix: bool,
    accept_data: bool,
    out: str | None,
    receipt: str | None,
    **options: Any,
) -> int:
    if not fix and (out or receipt):
        raise AnynormError("--out and --receipt are only written by repairs; add --fix.")
    if accept_data and not fix:
        raise AnynormError("--accept-data only works with --fix; add --fix.")
    check_files(out, receipt)
    check_outcome(html, json)
    named = {name: options.pop(name) for name in NAMES}
    # Weights that are not finite, or of other normalizers, are a finding, not an error.
    with opened(**{**named, "allow_non_finite": True, "ignore_manifest": True}) as subject:
        diagnosis = _diagnosis(subject, named, **options)
        write_outcome(diagnosis, html, json)
        if not fix:
            return diagnosis.status
        repaired = diagnosis.fix(inplace=True, accept_data=accept_data)
        rolled_back = finish(subject, repaired, out, receipt)
        return NOT_ALL if rolled_back else diagnosis.status


def _diagnosis(
    subject: Subject,
    named: dict[str, Any],
    *,
    target: str | None,
    loss: str | None,
    optimizer: str | None,
    averaged: str | None,
    source: str | None,
    source_weights: str | None,
    **options: Any,
) -> Diagnosis:
    from anynorm import lookup
    from anynorm.cli.sources import batches_from, function_from, model_from
    from anynorm.doctor import doctor

    model, plan = subject.model, named["pruned_by"]
    again = {
        "finite": False,
        "unpacked": named["unpacked"],
        "manifest": not named["ignore_manifest"],
    }
    return doctor(
        model,
        subject.batches,
        target=None if target is None else batches_from(target),
        loss=function_from(loss, "loss"),
        manifest=None if named["ignore_manifest"] else _manifest(named["weights"]),
        optimizer=None if optimizer is None else lookup.called(optimizer, "optimizer", model),
        averaged=None
        if averaged is None
        else model_from(named["model"], averaged, plan=plan, **again),
        source=None if source is None else model_from(source, source_weights, **again),
        forward=subject.forward,
        origin=" ".join(filter(None, (named["weights"], named["weights_key"]))),
        **options,
    )


def _manifest(weights: str | None) -> Manifest | None:
    """The manifest in the file of the weights; why it cannot be read is said."""
    from anynorm.surgery.weights.manifest import recorded

    try:
        return None if weights is None else recorded(weights)
    except AnynormError as error:
        print(f"anynorm: {visible(str(error))}", file=sys.stderr)
        return None
