"""The audit against a checkpoint: other weights, lost settings, batch norms folded twice."""

import copy
from dataclasses import replace

import pytest
import torch
from programs import numbers, settled
from torch import nn

import anynorm
from anynorm.spec import Learned
from anynorm.surgery import save_state

X = torch.randn(2, 3, 6, 6)


def net():
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 2, groups=2),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            nn.Linear(150, 4),
            nn.BatchNorm1d(4),
            nn.LayerNorm(4),
        )
    )


def checked(model, checkpoint, tmp_path, x=X):
    save_state(checkpoint, tmp_path / "net.safetensors")
    return anynorm.audit(torch.export.export(model, (x,)), tmp_path / "net.safetensors")


def test_the_same_weights_are_healthy_but_for_folding(tmp_path):
    found = checked(net(), net(), tmp_path)
    assert numbers(found) == {102}
    assert found.not_examined == {}
    assert found.facts["weights compared"] == 3


def test_folded_weights_belong_to_the_checkpoint(tmp_path):
    found = checked(anynorm.fold(net(), X).model, net(), tmp_path)
    assert found.findings == ()
    assert found.status == 0


@pytest.mark.parametrize("name", ["1.running_mean", "1.running_var", "4.weight", "7.bias"])
def test_other_tensors_of_a_normalizer_are_an_error(tmp_path, name):
    model = net()
    with torch.no_grad():
        model.state_dict()[name].mul_(1.01)
    found = checked(model, net(), tmp_path)
    [one] = [f for f in found.findings if f.severity == "error"]
    assert (one.check, one.layer) == (103, name[0])
    assert one.numbers["tensor"] == name.partition(".")[2]


@pytest.mark.parametrize("folded", [False, True])
def test_another_weight_is_an_error(tmp_path, folded):
    model = anynorm.fold(net(), X).model if folded else net()
    with torch.no_grad():
        model[0].weight[0, 0] += 0.1
    found = checked(model, net(), tmp_path)
    assert {(one.check, one.layer) for one in found.findings if one.severity == "error"} == {
        (103, "0")
    }


def test_another_bias_of_a_folded_weight_is_an_error(tmp_path):
    model = anynorm.fold(net(), X).model
    with torch.no_grad():
        model[6].bias[0] += 0.1
    [one] = checked(model, net(), tmp_path).findings
    assert one.message.endswith("with '7' folded in, but the bias is not")


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_takes_batch_norms_on_both_sides(tmp_path, groups):
    """With a group for each channel both sides have the same factors, and the bias decides."""

    def both():
        torch.manual_seed(0)
        first, last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        return settled(nn.Sequential(first, nn.Conv2d(4, 4, 3, groups=groups), nn.ReLU(), last))

    def between():
        torch.manual_seed(0)
        conv = nn.Conv2d(4, 8, 1, groups=groups)
        return settled(nn.Sequential(nn.BatchNorm2d(4), conv, nn.BatchNorm2d(8)))

    x = torch.randn(2, 4, 5, 5)
    for make, left in ((both, 1), (between, 0)):
        folded = anynorm.fold(make(), x).model
        assert len([one for one in folded if isinstance(one, nn.BatchNorm2d)]) == left
        found = checked(folded, make(), tmp_path, x)
        assert [one for one in found.findings if one.check > 102] == []


def gains():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.LayerNorm(6), nn.Linear(6, 6), nn.Tanh(), nn.RMSNorm(6), nn.Linear(6, 2)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.5, 1.5)
    return model.eval()


ROWS = torch.randn(3, 6)


def test_folded_gains_belong_to_the_checkpoint(tmp_path):
    folded = anynorm.fold(gains(), ROWS).model
    assert checked(folded, gains(), tmp_path, ROWS).findings == ()
    with torch.no_grad():
        folded[1].bias[0] += 0.1
    [one] = checked(folded, gains(), tmp_path, ROWS).findings
    assert one.message.endswith("with '0' folded in, but the bias is not")


def test_weights_with_the_inputs_first_are_compared_too(tmp_path):
    """GPT-2 has them so."""

    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(6, 6)), nn.Parameter(torch.rand(6))

        def forward(self, x):
            return torch.addmm(self.bias, x, self.weight)

    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(6), Transposed()).eval()
    nn.init.uniform_(model[0].weight)
    nn.init.uniform_(model[0].bias)
    folded = anynorm.fold(model, ROWS).model
    assert not torch.equal(folded[1].weight, model[1].weight)
    assert checked(folded, model, tmp_path, ROWS).findings == ()


def test_a_gain_in_front_of_its_folded_weight_is_applied_twice(tmp_path):
    model = gains()
    model[4] = anynorm.fold(gains(), ROWS).model[4]
    found = checked(model, gains(), tmp_path, ROWS)
    assert [(one.check, one.layer) for one in found.findings] == [(104, "3")]


def test_a_batch_norm_that_is_lost_is_a_warning(tmp_path):
    model = net()
    model[4] = nn.Identity()
    found = checked(model, net(), tmp_path)
    assert [(one.check, one.layer) for one in found.findings if "neither" in one.message] == [
        (103, "4")
    ]


def test_a_head_that_was_left_out_is_not_lost(tmp_path):
    whole = nn.ModuleDict({"body": net(), "auxiliary": settled(nn.Sequential(nn.BatchNorm2d(3)))})
    model = nn.Module()
    model.body = net()
    model.forward = lambda x: model.body(x)
    assert numbers(checked(model.eval(), whole, tmp_path)) == {102}


@pytest.mark.parametrize(("layer", "norm"), [(0, 1), (3, 4), (6, 7)])
def test_a_batch_norm_behind_its_folded_weight_is_applied_twice(tmp_path, layer, norm):
    model = net()
    folded = anynorm.fold(copy.deepcopy(model), X).model
    model[layer] = folded[layer]
    found = checked(model, net(), tmp_path)
    assert (104, str(norm)) in {(one.check, one.layer) for one in found.findings}


def test_a_weight_that_was_folded_twice_is_found(tmp_path):
    model, folded = net(), anynorm.fold(net(), X).model
    factor = folded[0].weight / model[0].weight
    with torch.no_grad():
        folded[0].weight.mul_(factor)
    found = checked(folded, net(), tmp_path)
    [one] = [f for f in found.findings if f.check == 104]
    assert "folded twice" in one.message


def test_a_lost_epsilon_is_an_error(tmp_path):
    model = net()
    model[1].eps = 1e-3
    model[8].eps = 1e-3
    found = checked(model, net(), tmp_path)
    assert 32 in numbers(found, "error")


def test_the_one_of_a_stored_gain_may_be_computed_but_not_lost(tmp_path):
    """Exporters add 1 to the constant w; a layer without it computes something else."""
    spec = replace(anynorm.catalogue["rms"].spec, learned=Learned(offset=1.0, bias=False))
    stored = anynorm.Norm(spec, 3)
    with torch.no_grad():
        stored.weight.uniform_(-0.5, 0.5)
    computed, lost = nn.RMSNorm(3, eps=1e-5), nn.RMSNorm(3, eps=1e-5)
    with torch.no_grad():
        computed.weight.copy_(1 + stored.weight)
        lost.weight.copy_(stored.weight)
    x = torch.randn(2, 3)
    healthy, broken = (
        checked(nn.Sequential(one), nn.Sequential(stored), tmp_path, x) for one in (computed, lost)
    )
    assert healthy.findings == ()
    assert numbers(broken, "error") == {32, 103}


def test_weights_that_an_exporter_renamed_are_found_by_their_values(tmp_path):
    class Renamed(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts(x)

    save_state(net(), tmp_path / "net.safetensors")
    model = Renamed(anynorm.fold(net(), X).model).eval()
    found = anynorm.audit(torch.export.export(model, (X,)), tmp_path / "net.safetensors")
    assert found.facts["weights compared"] == 3
    assert [one for one in found.findings if one.check == 103] == []


def test_a_function_inside_a_linear_layer_is_not_compared_with_its_weights(tmp_path):
    class Normalized(nn.Linear):
        def __init__(self):
            super().__init__(3, 4)
            self.gain = nn.Parameter(torch.rand(4))

        def forward(self, x):
            return nn.functional.layer_norm(super().forward(x), (4,), self.gain, self.bias)

    model = nn.Sequential(Normalized())
    assert checked(model, model, tmp_path, torch.randn(2, 3)).findings == ()


def test_half_precision_is_no_difference(tmp_path):
    found = checked(net().half(), net(), tmp_path, X.half())
    assert 103 not in numbers(found)


def test_layers_of_other_names_are_not_examined(tmp_path):
    found = checked(nn.Sequential(net()), net(), tmp_path)
    assert set(found.not_examined) >= {"0.1", "0.4", "0.7", "0.8"}
    assert found.status == 1  # folding
