"""`anynorm.doctor`: measure a model on its own data, test, and advise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from anynorm.doctor.case import Case, Loader
from anynorm.doctor.causes.table import explained
from anynorm.doctor.causes.ward import Ward
from anynorm.doctor.check import Check, run_checks
from anynorm.doctor.diagnosis import Diagnosis
from anynorm.doctor.examined import tally
from anynorm.doctor.finding import arranged
from anynorm.doctor.kept import Kept
from anynorm.doctor.losses import Loss
from anynorm.doctor.overruled import judged
from anynorm.doctor.repair import Patient
from anynorm.doctor.survey import Survey, Wanted, records_on, survey
from anynorm.doctor.table import chosen
from anynorm.doctor.undecided import Undecided
from anynorm.errors import AnynormError
from anynorm.surgery.batches import Batch, Forward, once
from anynorm.surgery.model import check_model, need_values
from anynorm.surgery.modes import without_gradients
from anynorm.surgery.snapshot import preserved
from anynorm.surgery.unmatched import contents
from anynorm.surgery.weights import Manifest

__all__ = ["doctor"]

_LOSS, _DROPOUT = {3}, {1, 2, 17}


def doctor(
    model: nn.Module,
    batches: Iterable[Batch] | None = None,
    *,
    target: Iterable[Batch] | None = None,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    forward: Forward | None = None,
    averaged: nn.Module | None = None,
    source: nn.Module | None = None,
    manifest: Manifest | None = None,
    accumulation: int = 1,
    steps: int | None = None,
    loader: DataLoader[Any] | None = None,
    checks: Sequence[int] | None = None,
    group: dist.ProcessGroup | None = None,
    batch_axis: int | None = None,
    origin: str = "",
) -> Diagnosis:
    """Find what is wrong with a trained model's normalization, by evidence from its own data.

    `Diagnosis.causes` has the causes of the findings; their repairs are tried on a copy, with the
    first batches.  The model, its gradients, its modes and all random states are not changed.

    Args:
        model: the trained model, in any mode.
        batches: the batches of training, as the loader gives them (see
            :mod:`anynorm.surgery.batches`).  They are iterated once.  Without batches only the
            checks run that need only the modules.
        target: batches of the data on which the model will be used.
        optimizer: the optimizer of the training; its parameter groups are examined.
        loss: a function of the output and the batch.  By default cross entropy for integer
            targets, otherwise the mean squared error; the target is the second item of a tuple, or
            the key "labels" of a dict.
        forward: a function of the model and a batch, if the model is called in another way.
        averaged: the model with averaged weights.
        source: the model that this one was converted from.
        manifest: what was recorded when the weights were written (:func:`anynorm.manifest`).
        accumulation: the number of batches per step of the optimizer.
        steps: how many steps were trained.
        loader: the DataLoader, which says how large the last batch is, if `batches` is not one.
        checks: the numbers of the checks to run, all by default; see :mod:`anynorm.doctor.table`.
        group: the process group over which moments are pooled.
        batch_axis: the axis of the input that has the samples.  By default 0, unless the labels or
            the outputs show that it is 1.
        origin: where the weights come from, such as the name of their file and the key in it: a
            word such as "ema" or "swa" is evidence of averaged weights.

    Returns:
        The diagnosis: causes, findings, what was examined and what was not.

    Raises:
        AnynormError: The model cannot be called on the batches, there are no batches, or lazy
            layers have seen no input.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)).eval()
        >>> [(f.check, f.severity, f.layer) for f in doctor(model).findings]
        [(4, 'error', '1')]
    """
    check_model("doctor", model)
    for name, other in (("averaged", averaged), ("source", source)):
        if other is not None:
            check_model("doctor", other, name)
    table = chosen(checks)
    _check_arguments(model, batches, target, accumulation, steps)
    how: dict[str, Any] = {"forward": forward, "group": group}
    wanted = Wanted(_runs(table, _LOSS), _runs(table, _DROPOUT))
    kept = Kept(batches) if isinstance(batches, Iterable) else None
    with _kept(model, averaged, source), without_gradients(model, averaged, source):
        seen = None
        if batches is not None:
            through = batches if kept is None else kept
            options: dict[str, Any] = {"averaged": averaged, "loss": loss, "wanted": wanted}
            seen = survey(model, through, batch_axis=batch_axis, **options, **how)
        axis = batch_axis if seen is None else seen.axis
        case = Case(
            model,
            seen,
            target=None if target is None else records_on(model, target, batch_axis=axis, **how),
            source=source,
            manifest=manifest,
            optimizer=optimizer,
            loader=_cut(loader if loader is not None else batches),
            accumulation=accumulation,
            steps=steps,
            axis=axis,
            origin=origin,
            **how,
        )
        findings, skipped = run_checks(table, case)
        undecided = _undecided(table, case)
        ran = {check.number for check in table} - {one.check for one in skipped}
        ward = Ward(case, findings, [] if kept is None else kept.batches, loss)
        ward.findings = list(arranged(judged(findings, case, ward, ran)))
        findings, causes = explained(ward)
    examined, not_examined, hidden = tally(case, undecided)
    return Diagnosis(
        tuple(findings),
        tuple(skipped),
        _facts(case, seen),
        table,
        tuple(causes),
        examined,
        not_examined,
        undecided,
        hidden=hidden,
        patient=Patient(model, batches, None if seen is None else seen.example, forward, group),
    )


@contextmanager
def _kept(*models: nn.Module | None) -> Iterator[None]:
    """Restore the models and the random states at the end of the block."""
    with ExitStack() as stack:
        for model in models:
            if model is not None:
                stack.enter_context(preserved(model))
        yield


def _runs(table: Sequence[Check], numbers: set[int]) -> bool:
    return any(check.number in numbers for check in table)


def _undecided(table: Sequence[Check], case: Case) -> tuple[Undecided, ...]:
    names = {check.number: check.name for check in table}
    return tuple(
        replace(one, name=names[one.check]) for one in case.undecided if one.check in names
    )


def _check_arguments(
    model: nn.Module,
    batches: Iterable[Batch] | None,
    target: Iterable[Batch] | None,
    accumulation: int,
    steps: int | None,
) -> None:
    lazy = [
        name
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))
    ]
    if lazy:
        raise AnynormError(
            f"{lazy[0]!r} and {len(lazy) - 1} more have no shape yet: lazy layers get their shape "
            "from the first input. Call the model once, model(x), then examine it."
        )
    if batches is not None:
        need_values(model)
    if accumulation < 1 or (steps is not None and steps < 1):
        raise AnynormError(f"accumulation={accumulation}, steps={steps}; give 1 or more.")
    if batches is not None and target is batches and once(batches):
        raise AnynormError("batches and target are the same iterator; give two iterators.")


def _cut(batches: object) -> Loader | None:
    """How a DataLoader splits samples into batches; None for other iterables."""
    if not isinstance(batches, DataLoader) or batches.batch_size is None:
        return None
    try:
        return Loader(len(batches.sampler), batches.batch_size, batches.drop_last)  # type: ignore[arg-type]
    except TypeError:  # of a stream
        return None


def _facts(case: Case, seen: Survey | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": type(case.model).__name__,
        "parameters": sum(p.numel() for p in case.model.parameters()),
        "normalization layers": len(case.norms),
        "families": dict(Counter(norm.family for norm in case.norms)),
        "torch": torch.__version__,
    }
    if seen is not None:
        facts |= {"batches": len(seen.sizes), "samples": sum(seen.sizes)}
    if not case.norms:
        facts["note"] = f"nothing was examined: {contents(case.model)}"
    return facts
