"""`anynorm.audit`: what is wrong with normalization in a file that is about to be shipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anynorm.audit.compared import differs
from anynorm.audit.file_norm import FileNorm
from anynorm.audit.norms import found_norms
from anynorm.audit.onnx_file import is_onnx, read_onnx
from anynorm.audit.program import Program
from anynorm.audit.pt2_file import read_pt2
from anynorm.audit.rebuilt import rebuilt
from anynorm.audit.result import Audit
from anynorm.audit.shipped import Shipped, offset_of
from anynorm.audit.table import CHECKS
from anynorm.doctor.case import CannotRunError
from anynorm.doctor.check import run_checks
from anynorm.doctor.finding import Finding, arranged
from anynorm.errors import AnynormError, type_of
from anynorm.surgery.streaming_stats import double
from anynorm.surgery.weights import Manifest, load_state
from anynorm.surgery.weights.manifest import recorded

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["audit"]

_MANIFEST = 32
# Norms of vectors and of weights, which normalize nothing.
_OTHER_NORMS = ("norm", "linalg_vector_norm", "linalg_norm", "renorm", "ReduceL2", "vector_norm")


def audit(
    program: str | os.PathLike[str] | torch.export.ExportedProgram | ModelProto,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    key: str | None = None,
) -> Audit:
    """Find what is wrong with normalization in an exported program, without running it.

    Neither the program nor the checkpoint is unpickled or run.

    Args:
        program: the file, ``.onnx`` or ``.pt2``; or the program in memory, an
            ``onnx.ModelProto`` or what `torch.export.export` returns.
        checkpoint: the weights that the program should have, as
            :func:`anynorm.surgery.load_state` reads them.  If the file has a manifest, the settings
            of normalizers are compared with it too.
        key: which state dict of the checkpoint to read.

    Returns:
        The audit: findings, what was examined and what was not.

    Raises:
        AnynormError: A file cannot be read, or only by running code from it; or the extra ``onnx``
            is not installed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> _ = model[1].running_var.uniform_(1, 2)
        >>> print(audit(torch.export.export(model, (torch.randn(2, 3, 9, 9),))))
        exported program: not healthy
          warning 102 '1': it can be folded into the convolution '0', which saves an operator
          skipped 32 (not as recorded) needs manifest=
          skipped 103 (not the checkpoint's) needs checkpoint=
          skipped 104 (folded twice) needs checkpoint=
    """
    read = _read(program)
    state = None if checkpoint is None else load_state(checkpoint, key=key)
    manifest = None if checkpoint is None else recorded(checkpoint)
    norms = [_with_offset(norm, state, manifest) for norm in found_norms(read)]
    model, layers = rebuilt(norms)
    case = Shipped(
        model,
        manifest=None if manifest is None else _only(manifest, {one.name for one in layers}),
        program=read,
        in_file=norms,
        rebuilt=layers,
        checkpoint=state,
    )
    found, skipped = run_checks(CHECKS, case)
    not_examined, hidden = _not_examined(case)
    return Audit(
        arranged(one for one in found if _matters(one)),
        tuple(skipped),
        _facts(_title(program), case, state),
        CHECKS,
        (),
        tuple(norm.layer for norm in norms if norm.layer not in not_examined),
        not_examined,
        hidden=hidden,
    )


def _read(program: Any) -> Program:
    if isinstance(program, (str, os.PathLike)) and not Path(program).is_file():
        found = "is a folder" if Path(program).is_dir() else "does not exist"
        raise AnynormError(f"the program {str(program)!r} {found} (seen from {os.getcwd()}).")
    if is_onnx(program):
        return read_onnx(program)
    if isinstance(program, torch.export.ExportedProgram) or _ends_with(program, ".pt2"):
        return read_pt2(program)
    given = repr(str(program)) if isinstance(program, (str, os.PathLike)) else type_of(program)
    raise AnynormError(
        f"the program is {given}; give a file whose name ends in .onnx or .pt2, an "
        "onnx.ModelProto, or what torch.export.export returns."
    )


def _ends_with(program: Any, ending: str) -> bool:
    return isinstance(program, (str, os.PathLike)) and Path(program).suffix == ending


def _title(program: Any) -> str:
    if isinstance(program, (str, os.PathLike)):
        return Path(program).name
    return "ONNX model" if is_onnx(program) else "exported program"


def _only(manifest: Manifest, layers: set[str]) -> Manifest:
    """The manifest of the normalizers that are in both, because the others cannot be compared."""
    kept = {name: one for name, one in manifest.layers.items() if name in layers}
    return Manifest(kept, (*manifest.unknown, *(layers - kept.keys())))


def _with_offset(
    norm: FileNorm, state: Mapping[str, Tensor] | None, manifest: Manifest | None
) -> FileNorm:
    """Say that γ is stored as 1 + w where an exporter has computed the sum, by the values."""
    recorded_offset = offset_of(manifest, norm.layer)
    stored = None if state is None else state.get(f"{norm.layer}.weight")
    if not recorded_offset or norm.offset or stored is None or norm.gain is None:
        return norm
    wrong = differs(norm.gain.flatten(), double(stored).flatten() + recorded_offset)
    return norm if wrong is None or bool(wrong.any()) else replace(norm, offset=recorded_offset)


def _matters(finding: Finding) -> bool:
    """Whether a finding says something of a program that is not trained further."""
    return finding.check != _MANIFEST or finding.severity != "info"


def _not_examined(case: Shipped) -> tuple[dict[str, str], bool]:
    """Name what could not be examined; the bool says whether that may hide a fault."""
    left = {
        op.layer or op.name: f"{op.kind} is no normalizer that is known here"
        for op in case.program.ops
        if "norm" in op.kind.lower() and op.kind not in _OTHER_NORMS
        if op.kind != op.kind.lower() or not op.kind.startswith("_weight_norm")
        if op not in {one for norm in case.in_file for one in norm.ops}
    }
    try:
        _, products = case.products
    except CannotRunError:
        return left, bool(left)
    named = {name.rpartition(".")[0] for name in case.stored}
    for norm in case.in_file:
        if norm.gain is not None and norm.layer not in named:
            left[norm.layer] = "the checkpoint has no layer of this name"
    for op in products:
        left[op.layer or op.name] = "its weight is quantized, or not in the checkpoint by its name"
    return left, bool(left)


def _facts(title: str, case: Shipped, state: Mapping[str, Tensor] | None) -> dict[str, Any]:
    norms = case.in_file
    facts: dict[str, Any] = {
        "model": title,
        "format": case.program.format,
        "operators": len(case.program.ops),
        "normalization layers": len(norms),
        "families": dict(Counter(norm.family for norm in norms)),
    }
    if state is not None:
        facts["weights compared"] = len(case.products[0])
        facts["weights not compared"] = len(case.products[1])
    if not norms:
        facts["note"] = "the file has no normalizers: they were folded, or there were none"
    return facts
