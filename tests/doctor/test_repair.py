"""What is safe is repaired, what is not is refused with the advice, and one receipt says so."""

import copy

import pytest
import torch
from patients import MODEL, batches, convolutional, dense, edited, settled
from torch import nn
from torch.utils.checkpoint import checkpoint

import anynorm
from anynorm.doctor import doctor


def numbers(found):
    return {f.check for f in found.findings}


def fixed(model, **options):
    """The diagnosis before, the receipt, and the diagnosis after."""
    before = doctor(model, batches(), **options)
    result = before.fix()
    return before, result, doctor(result.model, batches(), **options)


def test_statistics_are_recomputed():
    def edit(model):
        model.bn1.running_mean += 2
        model.bn2.running_var *= 9

    model = edited(edit)
    before, result, after = fixed(model)
    assert {1, 2, 3} <= numbers(before)
    assert after.healthy
    assert {note.layer for note in result.receipt.changed} == {"bn1", "bn2"}
    assert result.receipt.difference.relative > 0
    assert not torch.equal(result.model.bn1.running_mean, model.bn1.running_mean)


def test_in_place_or_on_a_copy():
    model = edited(lambda m: m.bn1.running_mean.add_(2))
    found = doctor(model, batches())
    before = model.bn1.running_mean.clone()
    assert found.fix().model is not model
    assert torch.equal(model.bn1.running_mean, before)
    assert found.fix(inplace=True).model is model
    assert not torch.equal(model.bn1.running_mean, before)


def test_statistics_that_are_not_finite_are_reset_and_recomputed():
    before, result, after = fixed(edited(lambda m: m.bn1.running_var.fill_(torch.nan)))
    assert 9 in numbers(before)
    assert after.healthy
    assert bool(result.model.bn1.running_var.isfinite().all())


def test_weights_that_are_not_finite_are_refused():
    _, result, _ = fixed(edited(lambda m: m.conv2.weight.fill_(torch.inf)))
    assert [note.layer for note in result.receipt.refused if "9" in note.text] == ["conv2"]
    assert result.receipt.changed == ()


def test_the_momentum_is_turned_round():
    model = edited(lambda m: setattr(m.bn2, "momentum", 0.99))
    _, result, after = fixed(model)
    assert result.model.bn2.momentum == pytest.approx(0.01)
    assert 7 not in numbers(after)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = convolutional()

    def forward(self, x):
        return self.net[3:](checkpoint(self.net[:3], x, use_reentrant=False))


def test_the_momentum_of_what_is_counted_twice_has_the_effect_that_was_meant():
    result = doctor(Checkpointed(), batches(), checks=[12]).fix()
    momentum = result.model.net.bn1.momentum
    assert (1 - momentum) ** 2 == pytest.approx(0.9, rel=1e-3)
    assert result.model.net.bn2.momentum == 0.1


def test_frozen_layers_are_frozen_for_good():
    model = edited(lambda m: m.bn2.requires_grad_(False) and m.train())
    before, result, after = fixed(model)
    assert 8 in numbers(before)
    assert isinstance(result.model.bn2, anynorm.FrozenBatchNorm)
    assert 8 not in numbers(after)


@pytest.mark.parametrize(
    "model",
    [
        settled(convolutional(conv1=nn.Conv2d(3, 8, 3), conv2=nn.Conv2d(8, 8, 3))),
        settled(dense(linear=nn.Linear(108, 16))),
    ],
    ids=["convolutions", "linear"],
)
def test_idle_biases_move_into_the_running_mean(model):
    _, result, after = fixed(model)
    assert 16 not in numbers(after)
    assert result.receipt.difference.relative < 1e-5
    assert result.model.state_dict().keys() == model.state_dict().keys()
    assert not any(
        result.model.get_parameter(f"{note.layer}.bias").any() for note in result.receipt.changed
    )
    x = batches()[0][0]
    torch.testing.assert_close(result.model.train()(x), copy.deepcopy(model).train()(x))


def test_what_is_unsafe_is_refused_with_the_advice():
    def edit(model):
        model.bn1.weight[0] = 0
        model.bn2.weight.zero_()

    model = edited(edit)
    result = doctor(model, batches(), target=batches(shift=3), checks=[19, 20, 23]).fix()
    refused = {int(note.text.split()[0]) for note in result.receipt.refused}
    assert {19, 20, 23} <= refused
    assert any("AdaBN" in note.text for note in result.receipt.refused)
    for name, value in model.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value)


def test_batches_that_are_gone_cannot_repair():
    model = edited(lambda m: m.bn1.running_mean.add_(2))
    result = doctor(model, iter(batches())).fix()
    assert result.receipt.changed == ()
    assert any("only once" in note.text for note in result.receipt.refused)


def test_without_batches_only_the_modules_are_repaired():
    def edit(model):
        model.bn1.reset_running_stats()
        model.bn2.momentum = 0.9

    result = doctor(edited(edit)).fix()
    assert [note.layer for note in result.receipt.changed] == ["bn2"]
    assert any("no batches" in note.text for note in result.receipt.refused)


def test_a_healthy_model_is_left_alone():
    result = doctor(MODEL, batches()).fix()
    assert result.receipt.changed == result.receipt.refused == ()
    assert result.receipt.difference.relative == 0
