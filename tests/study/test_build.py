"""From a cell to its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anynorm.errors import AnynormError
from anynorm.nn import Norm
from anynorm.study.build import build
from anynorm.study.cell import Cell
from anynorm.study.data import load
from anynorm.study.noise import DistributionNoise

SOURCE = """
import types
import torch
from torch import nn

def given(*, norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), norm(6), nn.ReLU(), nn.Linear(6, 10))

def placed(norm, placement):
    order = [norm(6), nn.ReLU()] if placement == "before" else [nn.ReLU(), norm(6)]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), *order, nn.Linear(6, 10))

def existing():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 10))

class Rms(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

def own_class():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), Rms(6), nn.Linear(6, 10))

def neither():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def unused(norm):
    return neither()

def broken():
    raise RuntimeError("no weights file")

def nothing():
    return 5

def collection(norm):
    assert type(norm) is types.FunctionType
    layer = norm(6, eps=0.5, momentum=0.1, affine=True, device=None)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), layer, nn.Linear(6, 10))

class Heads(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.query_norm = norm(64), norm(16, qk=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        queries = self.query_norm(self.norm(x.flatten(1)).view(-1, 4, 16))
        return self.head(queries.flatten(1))

class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.norm(x.flatten(1)))
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "build_models.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


def make(subject: str = "mlp-relu", norm: str = "batch", **changes: Any) -> nn.Module:
    cell = Cell(subject=subject, data="digits", norm=norm, lr=0.1, steps=1, seed=0)
    return build(Cell(**{**vars(cell), **changes}), load("digits"))


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]


def test_seed_decides_the_weights_and_the_normalizer_does_not() -> None:
    batch, layer, other = make(), make(norm="layer"), make(seed=1)
    assert all(map(torch.equal, weights(batch), weights(layer)))
    assert not torch.equal(weights(batch)[0], weights(other)[0])


def test_building_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    make()
    assert torch.equal(state, torch.get_rng_state())


def test_init_multiplies_weights_and_nothing_else() -> None:
    one, scaled = make(), make(init=3.0)
    for (name, before), after in zip(one.named_parameters(), scaled.parameters(), strict=True):
        factor = 3 if before.ndim >= 2 else 1
        assert torch.equal(before * factor, after), name


def test_init_multiplies_recurrent_and_convolutional_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = __import__("build_models")
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(3, 3))
    monkeypatch.setattr(models, "existing", lambda: net)
    before = [parameter.clone() for parameter in net.parameters()]
    make("build_models:existing", init=2.0)
    pairs = zip(before, net.parameters(), strict=True)
    ratios = [int((new / old).mean().round()) for old, new in pairs if old.ndim >= 2]
    assert ratios == [2, 2, 2]


@pytest.mark.parametrize("name", ["weight", "weight-standardization", "cosine"])
def test_weight_normalizers_go_on_every_layer_but_the_head(name: str) -> None:
    plain, model = make(norm="none"), make(norm=name)
    assert isinstance(model[-1], nn.Linear)
    assert torch.equal(model[-1].weight, plain[-1].weight)
    assert not hasattr(model[-1], "parametrizations")
    layers = [layer for layer in model[:-1] if hasattr(layer, "weight")]
    assert len(layers) == 8
    assert all(type(layer) is not nn.Linear for layer in layers)
    assert model(torch.randn(4, 1, 8, 8)).shape == (4, 10)


def test_noise_follows_every_normalizer_each_with_its_own_seed() -> None:
    noises = [m for m in make(noise=True).modules() if isinstance(m, DistributionNoise)]
    assert len({noise.seed for noise in noises}) == 8
    other = [m for m in make(noise=True, seed=1).modules() if isinstance(m, DistributionNoise)]
    assert {noise.seed for noise in noises}.isdisjoint(noise.seed for noise in other)


@pytest.mark.parametrize("name", ["given", "existing", "placed", "Net"])
def test_users_models_get_the_normalizer(name: str) -> None:
    model = make(f"build_models:{name}", norm="group", norm_options=(("groups", 2),))
    assert any(getattr(module, "spec", None) is not None for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    assert model(torch.randn(4, 1, 8, 8)).shape == (4, 10)


def test_norms_of_classes_of_their_own_are_replaced() -> None:
    model = make("build_models:own_class", "batch")
    assert [type(layer).__name__ for layer in model] == ["Flatten", "Linear", "Rows", "Linear"]


def test_placement_is_passed_to_factories_that_take_it() -> None:
    assert isinstance(make("build_models:placed", placement="after")[2], nn.ReLU)
    with pytest.raises(AnynormError, match="takes no placement= argument"):
        make("build_models:existing", placement="after")


def test_a_model_collection_gets_a_function_that_takes_what_torchs_layers_take() -> None:
    model = make("build_models:collection")
    [norm] = [module for module in model.modules() if isinstance(module, Norm)]
    assert (norm.eps, norm.momentum) == (0.5, 0.1)


def test_the_normalizers_own_eps_is_the_one_that_counts() -> None:
    model = make("build_models:collection", norm_options=(("eps", 0.25),))
    [norm] = [module for module in model.modules() if isinstance(module, Norm)]
    assert norm.eps == 0.25


@pytest.mark.parametrize("subject", ["mlp-relu", "build_models:existing"])
@pytest.mark.parametrize("name", ["batch", "layer", "weight", "cosine"])
def test_without_affine_gamma_and_beta_stay(subject: str, name: str) -> None:
    def trained(norm: str = name, **changes: Any) -> int:
        model = make(subject, norm=norm, **changes)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    weights_alone = trained(norm="none")
    assert trained(affine=False) == weights_alone < trained()


@pytest.mark.parametrize(("qk", "places"), [(False, 1), (True, 2)])
def test_queries_are_normalized_where_the_option_asks(qk: bool, places: int) -> None:
    model = make("build_models:Heads", norm="layer", norm_options=(("qk", qk),))
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    assert len(norms) == places
    assert model(torch.randn(4, 1, 8, 8)).shape == (4, 10)


@pytest.mark.parametrize("subject", ["mlp-relu", "build_models:existing", "build_models:given"])
def test_models_without_normalizers_of_queries_are_refused(subject: str) -> None:
    with pytest.raises(AnynormError, match=r"qk=true: .* norm\(width, qk=True\)"):
        make(subject, norm="rms", norm_options=(("qk", True),))


def test_a_placement_that_a_built_in_model_does_not_have() -> None:
    with pytest.raises(
        AnynormError, match=r"'mlp-relu' has no such place\. Choose 'before' or 'after'"
    ):
        make(placement="pre")


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("build_models:neither", r"Either give its factory an argument norm=.*or return a model"),
        ("build_models:unused", "has no place for a normalizer"),
        ("build_models:broken", r"with no arguments raised RuntimeError\('no weights file'\)"),
        ("build_models:nothing", "returned an int; the factory must return"),
        ("own.models.net", "Write your own factory after a colon: own.models:net"),
        ("mlp-rulu", "no model named 'mlp-rulu'. Did you mean \"mlp-relu\""),
    ],
)
def test_models_that_cannot_be_used(subject: str, words: str) -> None:
    with pytest.raises(AnynormError, match=words):
        make(subject)


def test_unknown_normalizer_suggests_the_nearest() -> None:
    with pytest.raises(AnynormError, match='Did you mean "batch"'):
        make(norm="bacth")


def test_fixed_gamma_and_beta_stay_out_of_training() -> None:
    model = make(affine=False)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in make(norm="none").named_parameters()}
