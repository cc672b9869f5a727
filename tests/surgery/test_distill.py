"""Training towards another model's outputs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from anynorm.errors import AnynormError
from anynorm.surgery import prune
from anynorm.surgery.distill import distill


def pair() -> tuple[nn.Module, nn.Module, list[torch.Tensor]]:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 3))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[3].weight.mul_(0.5)  # type: ignore[operator, union-attr]
    return student, teacher, [torch.randn(32, 6) for _ in range(10)]


def test_the_outputs_come_nearer_and_modes_and_statistics_stay() -> None:
    student, teacher, batches = pair()
    student.train()
    student[0].weight.requires_grad_(False)
    before, was = copy.deepcopy(dict(student.named_buffers())), copy.deepcopy(teacher.state_dict())
    words = distill(student, teacher, batches, 60)
    first, last = (float(words.split(f" {mark} ")[1].split()[0]) for mark in ("from", "to"))
    assert last < first / 10
    assert all(value.equal(before[name]) for name, value in student.named_buffers())
    assert all(value.equal(was[name]) for name, value in teacher.state_dict().items())
    assert student.training
    assert [p.requires_grad for p in student.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in student.parameters())


def test_a_state_that_is_worse_is_not_kept() -> None:
    _, teacher, batches = pair()
    student = copy.deepcopy(teacher)  # nothing can be better
    before = copy.deepcopy(student.state_dict())
    distill(student, teacher, batches, 5)
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())


def test_one_batch_is_not_enough() -> None:
    student, teacher, batches = pair()
    with pytest.raises(AnynormError, match="at least two batches"):
        distill(student, teacher, batches[:1], 5)


def test_prune_distils_behind_a_refit() -> None:
    _, model, batches = pair()
    model.eval()
    options = {"ratio": 0.6, "refit": batches}
    plain = prune(model, batches[0], **options)  # type: ignore[arg-type]
    result = prune(model, batches[0], distill=60, **options)  # type: ignore[arg-type]
    assert result.receipt.difference is not None
    assert plain.receipt.difference is not None
    assert "60 steps" in result.receipt.facts["distilled"]
    assert result.plan.cuts == plain.plan.cuts
    with torch.no_grad():
        apart = [(m.model(batches[1]) - model(batches[1])).square().mean() for m in (plain, result)]
    assert apart[1] <= apart[0]


@pytest.mark.parametrize(
    ("steps", "words"),
    [(-1, "a number of steps"), (0.5, "a number of steps"), (3, "refit=batches")],
)
def test_bad_steps_are_refused(steps: int, words: str) -> None:
    with pytest.raises(AnynormError, match=words):
        prune(nn.Linear(2, 2), torch.randn(3, 2), ratio=0.5, distill=steps)
