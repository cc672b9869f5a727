"""Settings that differ from the recorded ones, by what they change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import anynorm
from anynorm.spec import Dialect, Learned, Spec
from anynorm.surgery import manifest


def told(one: nn.Module, other: nn.Module) -> dict[str, list[str]]:
    """What differs between two models, by its effect."""
    found: dict[str, list[str]] = {}
    for each in manifest(one).differences(manifest(other)):
        found.setdefault(each.effect, []).append(str(each))
    return found


@pytest.mark.parametrize(
    ("one", "other", "effect", "words"),
    [
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8, eps=1e-3), "outputs", "ε is 1e-05 and was recorded"),
        (nn.RMSNorm(8), nn.RMSNorm(8, eps=1e-6), "outputs", "ε is machine and was recorded as"),
        (nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), "outputs", "with g=2 and was recorded as"),
        (nn.LayerNorm(8), nn.GroupNorm(1, 8), "outputs", "the pattern is '... [c]' and was"),
        (
            nn.BatchNorm2d(8, track_running_stats=False),
            nn.InstanceNorm2d(8, affine=True),
            "outputs",
            "the pattern is '[n] c [...]' and was recorded as 'n c [...]'",
        ),
        (
            anynorm.Norm("... [c]", 8, scale="rms", center=False),
            anynorm.Norm(
                Spec.of("... [c]", scale="rms", center=False, learned=Learned(offset=1.0)), 8
            ),
            "outputs",
            "γ is w and was recorded as 1 + w",
        ),
        (
            anynorm.Norm("... [c]", 8, center=False, scale="norm"),
            anynorm.Norm(
                Spec.of("... [c]", center=False, scale="norm", dialect=Dialect(eps="max")), 8
            ),
            "outputs",
            "σ is √(s² + ε) and was recorded as max(s, ε)",
        ),
        (
            anynorm.Norm("... [c]", 8, bias=False),
            anynorm.Norm("... [c]", 8, center=False),
            "outputs",
            "μ is the mean and was recorded as 0",
        ),
        (
            anynorm.Norm("... [c]", 8),
            anynorm.Norm("... [c]", 8, scale="l1"),
            "outputs",
            "σ is std and was recorded as l1",
        ),
        (
            nn.BatchNorm2d(8, momentum=0.9),
            nn.BatchNorm2d(8),
            "training",
            "momentum is 0.9 (1 − m, the other convention) and was recorded as 0.1",
        ),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8, momentum=None), "training", "recorded as None"),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8).eval(), "none", "the mode is train and was"),
    ],
)
def test_what_differs(one: nn.Module, other: nn.Module, effect: str, words: str) -> None:
    found = told(nn.Sequential(one), nn.Sequential(other))
    assert list(found) == [effect]
    assert len(found[effect]) == 1
    assert words in found[effect][0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.BatchNorm2d(8), anynorm.BatchNorm2d(8, activation="relu")),
        (nn.BatchNorm2d(8), anynorm.SyncBatchNorm(8)),
        (nn.BatchNorm2d(8), anynorm.Norm("[n] c [h w]", 8)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(8, eps=float(torch.tensor(1e-5)))),
        (nn.GroupNorm(4, 8), anynorm.create("group", 8, groups=4)),
        (nn.GroupNorm(4, 8), anynorm.Norm("n (g [c]) [...]", 8, c=2)),
        (nn.LayerNorm(8), anynorm.LayerNorm(8)),
        (nn.LayerNorm(8, elementwise_affine=False), anynorm.Norm("... [c]", 8, affine=False)),
        (nn.LazyBatchNorm2d(), nn.BatchNorm2d(8)),
    ],
)
def test_other_classes_that_compute_the_same(one: nn.Module, other: nn.Module) -> None:
    assert told(one, other) == told(other, one) == {}


def test_layers_that_evaluate_alike_differ_only_in_training() -> None:
    batch, instance = nn.BatchNorm1d(8), nn.InstanceNorm1d(8, affine=True, track_running_stats=True)
    others = [instance, anynorm.create("ghost", 8), anynorm.FrozenBatchNorm(8, trainable=True)]
    x = torch.randn(4, 8, 5)
    for other in others:
        assert list(told(batch, other)) in (["training"], ["training", "none"])
        other.load_state_dict(batch.state_dict(), strict=False)
        assert torch.allclose(other.eval()(x), batch.eval()(x))
        batch.train()
