"""What a verb says that found nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Gammas, Receipt, Result, slim
from anynorm.surgery.unmatched import not_understood

X = torch.zeros(4, 3, 5, 5)
Verb = Callable[[nn.Module], Result]
VERBS: dict[str, Verb] = {
    "convert": lambda model: anynorm.convert(model, "anynorm"),
    "freeze": anynorm.freeze,
    "recalibrate": lambda model: anynorm.recalibrate(model, [X]),
    "fold": lambda model: anynorm.fold(model.eval(), X),
}


class OwnNorm(nn.Module):
    """A normalization layer that nobody else knows, with statistics."""

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean[:, None, None]) * self.weight[:, None, None]


def said(receipt: Receipt) -> str:
    assert not receipt.changed
    text = str(receipt.facts["nothing matched"])
    assert text in str(receipt)
    return text


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_without_normalizers(verb: str) -> None:
    receipt = VERBS[verb](nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())).receipt
    assert not receipt.refused
    assert "there is no layer of torch.nn or anynorm that normalizes" in said(receipt)
    assert "1 Conv2d, 1 ReLU" in said(receipt)


@pytest.mark.parametrize("verb", VERBS)
def test_layers_of_unknown_classes_are_refused_by_name(verb: str) -> None:
    receipt = VERBS[verb](nn.Sequential(nn.Conv2d(3, 3, 1), OwnNorm(3))).receipt
    assert [note.layer for note in receipt.refused] == ["1"]
    assert "an OwnNorm looks like a normalization layer of an unknown class" in str(receipt)
    said(receipt)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("verb", ["convert", "freeze", "recalibrate"])
def test_torchscript_is_refused_with_the_way(verb: str) -> None:
    model = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval())
    receipt = VERBS[verb](model).receipt
    assert [note.layer for note in receipt.refused] == ["1"]
    assert "BatchNorm2d in TorchScript; give the model that it was made from" in str(receipt)


def test_other_families_are_named_with_the_way() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    text = said(anynorm.convert(model, "rms").receipt)
    assert "1 LayerNorm ('1'): give source='layer' to convert" in text
    assert "1 GroupNorm ('2'): give source='group' to convert" in text
    changed = anynorm.convert(model, "rms", source="layer").receipt
    assert [note.layer for note in changed.changed] == ["1"]
    assert "nothing matched" not in changed.facts
    text = said(anynorm.convert(model, "rms", source=["batch", "instance"]).receipt)
    assert text.startswith("looked for layers of the families 'batch', 'instance'")


def test_what_is_there_already_is_said() -> None:
    assert "torch already" in said(anynorm.convert(nn.BatchNorm2d(3), "torch").receipt)
    layer = anynorm.LayerNorm(3)
    assert "layer already" in said(anynorm.convert(layer, "layer", source="layer").receipt)
    assert "frozen already" in said(anynorm.freeze(anynorm.FrozenBatchNorm(3)).receipt)


def test_synchronised_batch_norm_to_torch_names_the_way_that_works() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    [refused] = anynorm.convert(synced, "torch", X).receipt.refused
    assert 'convert(model, "batch", example)' in refused.text
    single = anynorm.convert(anynorm.convert(synced, "batch", X).model, "torch", X).model
    assert type(single[1]) is nn.BatchNorm2d
    torch.testing.assert_close(single(X), model(X))


def test_why_nothing_is_frozen_or_recalibrated() -> None:
    layers = [
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.BatchNorm2d(3, track_running_stats=False),
        anynorm.create("zca", 3),
    ]
    text = said(anynorm.freeze(nn.Sequential(*layers)).receipt)
    for part in ("('0'): each sample has", "('1'): no running statistics", "('2'): a covariance"):
        assert part in text
    text = said(anynorm.recalibrate(nn.GroupNorm(1, 3), [X]).receipt)
    assert "1 GroupNorm (''): it has no running statistics" in text


def test_layers_that_are_not_meant_are_not_refused() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), OwnNorm(3))
    assert not anynorm.freeze(model, layers="0").receipt.refused
    assert len(anynorm.freeze(model).receipt.refused) == 1
    # γ alone is no statistic.
    model[1]._buffers.clear()
    assert not anynorm.freeze(model).receipt.refused


@pytest.mark.parametrize(
    "verb",
    [
        lambda model: anynorm.prune(model, X, gap=True),
        lambda model: slim(model, torch.optim.SGD(model.parameters(), 0.1)),
    ],
)
def test_models_without_a_gamma_for_each_channel(verb: Callable[[nn.Module], Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, affine=False))
    with pytest.raises(AnynormError) as error:
        verb(model.eval())
    assert "looked for layers with a γ for each channel" in str(error.value)
    assert "1 GroupNorm ('1'): statistics are taken over channels" in str(error.value)
    assert "1 BatchNorm2d ('2'): no γ" in str(error.value)
    assert not Gammas.of(model).values


def test_what_normalizes_weights_is_no_unknown_layer() -> None:
    standardized = anynorm.normalized(nn.Conv2d(3, 4, 3), "weight-standardization")
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4))
    assert list(not_understood(nn.Sequential(standardized, spectral))) == []
