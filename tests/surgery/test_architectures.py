"""The verbs on architectures that nobody here wrote: each passes or refuses, and none is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import load_benchmarks  # noqa: F401
import pytest
import torch
from benchmarks.zoo import ARCHITECTURES, Architecture, build, warmed
from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery import Receipt, convert, fold, freeze, fuse, recalibrate
from anynorm.surgery.batches import call, tensors_of
from anynorm.surgery.modes import evaluating
from anynorm.surgery.normalizers import normalizers
from anynorm.surgery.recognized import find_on

pytest.importorskip("transformers")

FAST = ("resnet-basic", "levit", "detr", "mobilevit-v2")
SAMPLES = 2
# What these compute depends on values of their input, and in one case on the rest of the batch.
NOT_EXPORTED = ("slanet", "fastspeech2-conformer")
PADS_TO_THE_LONGEST = ("fastspeech2-conformer",)


def rows() -> Iterable[Any]:
    for row in ARCHITECTURES:
        marks = () if row.name in FAST else (pytest.mark.slow,)
        yield pytest.param(row, id=row.name, marks=marks)


@pytest.fixture(params=rows())
def row(request: pytest.FixtureRequest) -> Architecture:
    found: Architecture = request.param
    return found


@pytest.fixture
def model(row: Architecture) -> nn.Module:
    return warmed(build(row.name), row.example)


@pytest.fixture
def example(row: Architecture) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return row.example(SAMPLES)


def outputs(model: nn.Module, batch: Any) -> list[torch.Tensor]:
    with evaluating(model):
        return tensors_of(call(model, batch))


def check(receipt: Receipt, names: set[str]) -> None:
    """Everything was done or refused with a reason, and the outputs stayed."""
    assert not receipt.rolled_back
    assert {note.layer for note in (*receipt.changed, *receipt.refused)} == names
    assert all(note.text for note in receipt.refused)


def test_fold(row: Architecture, model: nn.Module, example: Any) -> None:
    if row.name in NOT_EXPORTED:
        with pytest.raises(AnynormError, match=r"torch\.export cannot trace"):
            fold(model, example)
        return
    found = find_on(model, example)
    result = fold(model, example)
    check(result.receipt, {norm.name for norm in found.norms} | set(found.unmatched))
    left = {norm.name for norm in normalizers(result.model) if norm.fixed}
    assert left <= {note.layer for note in result.receipt.refused}


def test_fuse(row: Architecture, model: nn.Module, example: Any) -> None:
    found = find_on(model, example)
    result = fuse(model, example)
    check(result.receipt, {norm.name for norm in found.norms} | set(found.unmatched))
    assert list(result.model.state_dict()) == list(model.state_dict())
    fused = {"resnet-basic": 7, "levit": 3, "detr": 13, "mobilevit-v2": 16}
    assert len(result.receipt.changed) >= fused.get(row.name, 0)


def test_freeze(model: nn.Module, example: Any) -> None:
    names = {norm.name for norm in normalizers(model) if norm.fixed and norm.tracks}
    check(freeze(model, example).receipt, names)


def test_convert_to_anynorm_and_back(model: nn.Module, example: Any) -> None:
    names = {norm.name for norm in normalizers(model)}
    ours = convert(model, "anynorm", example)
    check(ours.receipt, names)
    back = convert(ours.model, "torch", example)
    assert not back.receipt.rolled_back
    assert {type(norm.module) for norm in normalizers(back.model) if norm.family == "batch"} <= {
        type(norm.module) for norm in normalizers(model)
    }


def test_convert_to_groups(model: nn.Module, example: Any) -> None:
    found = [norm for norm in normalizers(model) if norm.constant or norm.spec.uses_batch]
    groups = math.gcd(*(norm.channels for norm in found if norm.known), 8)
    result = convert(model, "group", example, groups=groups)
    check(result.receipt, {norm.name for norm in found})
    assert all(torch.isfinite(y).all() for y in outputs(result.model, example))


def test_recalibrate(model: nn.Module, row: Architecture) -> None:
    """Statistics of all batches, and not of how they are split."""
    torch.manual_seed(2)
    batch = row.example(6)
    parts = [{k: v[i:j] for k, v in batch.items()} for i, j in ((0, 3), (3, 5), (5, 6))]
    whole, split = (recalibrate(model, given).model for given in ([batch], parts))
    tracked = {norm.name: norm for norm in normalizers(whole) if norm.tracks}
    for norm in normalizers(split):
        if norm.tracks:
            one, other = norm.module, tracked[norm.name].module
            distance = (one.running_mean - other.running_mean).abs() / other.running_var.sqrt()
            assert distance.max() < 1e-4 or row.name in PADS_TO_THE_LONGEST
