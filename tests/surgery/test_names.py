"""What users write for layers means the same in every verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery.names import matching

NAMES = ["encoder.0.norm", "encoder.1.norm", "encoder2.norm", "head"]


@pytest.mark.parametrize(
    ("layers", "meant"),
    [
        (None, NAMES),
        ("", NAMES),
        ("encoder", NAMES[:2]),
        (["encoder"], NAMES[:2]),
        ("encoder.1", NAMES[1:2]),
        ("encoder*", NAMES[:3]),
        ("*.norm", NAMES[:3]),
        ("encoder.?.norm", NAMES[:2]),
        (("head", "encoder2"), NAMES[2:]),
        ([], []),
    ],
)
def test_names_modules_and_patterns(layers: Any, meant: list[str]) -> None:
    assert matching(NAMES, layers, "normalize") == set(meant)


def test_what_means_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(AnynormError, match=r"\['haed'\] do not normalize.*Did you mean.*head"):
        matching(NAMES, ["head", "haed"], "normalize")
    with pytest.raises(AnynormError, match="a BatchNorm1d; give names"):
        matching(NAMES, [nn.BatchNorm1d(3)], "normalize")  # type: ignore[list-item]


def model() -> nn.Sequential:
    found = nn.Sequential()
    found.add_module("encoder", nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    found.add_module("encoder2", nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    found.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    return found


def frozen(found: nn.Module) -> list[str]:
    named = found.named_modules()
    return [name for name, module in named if isinstance(module, anynorm.FrozenBatchNorm)]


def recalibrated(layers: Any) -> list[str]:
    batches = [torch.randn(8, 3, 4, 4) + 1 for _ in range(3)]
    result = anynorm.surgery.recalibrate(model(), batches, layers=layers)
    return [note.layer for note in result.receipt.changed]


VERBS: dict[str, Callable[[Any], list[str]]] = {
    "freeze": lambda layers: frozen(anynorm.freeze(model(), layers=layers).model),
    "recalibrate": recalibrated,
    "gammas": lambda layers: list(anynorm.surgery.Gammas.of(model(), layers).values),
    "slim": lambda layers: list(anynorm.surgery.Slim(model(), 0.1, layers=layers).scales),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("layers", ["encoder", "encoder.1", ["encoder.*"]])
def test_every_verb_alike(verb: str, layers: Any) -> None:
    assert VERBS[verb](layers) == ["encoder.1"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_what_means_nothing(verb: str) -> None:
    with pytest.raises(AnynormError, match=r"layers \['decoder'\] do not"):
        VERBS[verb]("decoder")


def test_prune_ignores_what_is_meant() -> None:
    example = torch.randn(2, 3, 4, 4)
    for ignore, kept in (("encoder", (4, 2)), ("encoder*", None), ((), (2, 2))):
        net = model()
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.data = torch.tensor([1.0, 1e-6, 1.0, 1e-6])
        if kept is None:
            with pytest.raises(AnynormError):
                anynorm.prune(net, example, gap=True, ignore=ignore)
            continue
        cut = anynorm.prune(net, example, gap=True, ignore=ignore).model
        sizes = (cut.get_submodule("encoder.1"), cut.get_submodule("encoder2.1"))
        assert tuple(layer.weight.numel() for layer in sizes) == kept
