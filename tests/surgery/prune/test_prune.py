"""Pruning by γ."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from networks import NETWORKS, Residual, conv, network
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Gammas, Plan, Pruned, prune

# A gate scales the constant by what differs from sample to sample; a block that is called twice
# sees two constants; the phases of a transposed convolution's stride see different taps.
VARYING = {"gated", "twice", "transposed"}
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def silenced(model: nn.Module, plan: Plan, *, beta: bool) -> nn.Module:
    """The model with γ = 0 (and, if asked, β = 0) for the channels that a plan cuts."""
    model = copy.deepcopy(model)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            gone = list(plan.cuts.get(f"{name}.weight", {}).get(0, ()))
            layer.weight[gone] = 0
            if beta:
                layer.bias[gone] = 0
    return model


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max())


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_alone_leaves_out_those_channels(name: str, ratio: float) -> None:
    model, x = network(name)
    result = prune(model, x, ratio=ratio, absorb=False)
    assert result.receipt.facts["cut"] > 0
    assert close(result.model(x), silenced(model, result.plan, beta=True)(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_absorbed_constants_are_exact_where_no_padding_is(name: str) -> None:
    model, x = network(name)
    plan = prune(model, x, ratio=0.5, absorb=False).plan
    without = silenced(model, plan, beta=False)  # γ = 0 already: only constants go
    result = prune(without, x, ratio=0.5)
    assert result.plan.cuts == plan.cuts
    assert result.receipt.difference is not None
    if name in VARYING:
        assert result.receipt.difference.relative < 0.2
        assert "varies" in result.receipt.facts["absorbed"]
    else:
        assert close(result.model(x), without(x))
        assert "varies" not in result.receipt.facts["absorbed"]


def test_absorption_at_borders_is_said() -> None:
    model = nn.Sequential(conv(3, 6, 1), nn.Conv2d(6, 2, 3, padding=1))
    nn.init.ones_(model[0][1].bias)  # type: ignore[index, arg-type]
    model[0][1].weight.data[:3] = 0  # type: ignore[index]
    facts = prune(model, X, ratio=0.5).receipt.facts
    assert "except at zero-padded borders: 1" in facts["absorbed"]


def test_absorption_is_exact_away_from_zero_padded_borders() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    model: Any = nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1))
    nn.init.constant_(norm.bias, 0.7)
    norm.weight.data[[1, 4]] = 0
    result = prune(model.eval(), X, gap=True)
    found, expected = result.model(X), model(X)
    assert close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert not close(found[..., 0, :], expected[..., 0, :])


def test_residual_channels_go_only_where_every_norm_lets_them() -> None:
    model: Any = Residual()
    model.stem[1].weight.data = torch.tensor([0.0, 1, 0, 1, 1, 1, 1, 1])
    model.two[1].weight.data = torch.tensor([0.0, 0, 1, 1, 1, 1, 1, 1])
    plan = prune(model, X, ratio=2 / 24, absorb=False).plan
    assert plan.cuts["stem.1.weight"] == {0: (0,)}
    assert plan.cuts["two.1.weight"] == {0: (0,)}


def test_least_and_multiple_hold_for_each_of_the_norms_of_a_sum() -> None:
    least: Any = prune(Residual(), X, ratio=0.9, least=3).model
    assert (len(least.stem[1].weight), len(least.one[1].weight)) == (3, 3)
    multiple: Any = prune(Residual(), X, ratio=0.6, multiple=4).model
    assert (len(multiple.stem[1].weight), len(multiple.one[1].weight)) == (4, 4)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.8])
def test_ratio_is_the_share_of_all_channels(ratio: float) -> None:
    model, x = network("rows")
    facts = prune(model, x, ratio=ratio).receipt.facts
    assert (facts["channels"], facts["cut"]) == (16, int(16 * ratio))


def test_what_a_layer_keeps_is_made_up_for_elsewhere() -> None:
    model = nn.Sequential(conv(3, 8, 1), conv(8, 16, 1), nn.Conv2d(16, 2, 1))  # all γ are 1
    assert prune(model, X, ratio=0.5).receipt.facts["cut"] == 12


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def flops(model: nn.Module, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["concatenated", "flattened", "rows"])
def test_budgets_are_met_and_not_undercut(name: str) -> None:
    model, x = network(name)
    by_size = prune(model, x, parameters=0.5, absorb=False)
    assert parameters(by_size.model) <= 0.5 * parameters(model)
    assert parameters(_one_less(model, x, by_size)) > 0.5 * parameters(model)
    by_cost = prune(model, x, flops=0.5, absorb=False)
    assert flops(by_cost.model, x) <= 0.5 * flops(model, x)
    assert flops(_one_less(model, x, by_cost), x) > 0.5 * flops(model, x)


def _one_less(model: nn.Module, x: Tensor, result: Pruned) -> nn.Module:
    """The model that is cut by one channel less."""
    facts = result.receipt.facts
    ratio = (facts["cut"] - 1) / facts["channels"]
    less = prune(model, x, ratio=ratio, absorb=False)
    assert less.receipt.facts["cut"] == facts["cut"] - 1
    return less.model


def test_receipts_count_what_is_left() -> None:
    model, x = network("concatenated")
    result = prune(model, x, ratio=0.5, absorb=False)
    before, after = map(int, result.receipt.facts["parameters"].split(" -> "))
    assert (before, after) == (parameters(model), parameters(result.model))
    before, after = map(int, result.receipt.facts["flops"].split(" -> "))
    assert (before, after) == (flops(model, x), flops(result.model, x))


@pytest.mark.parametrize(("least", "multiple"), [(1, 1), (3, 1), (1, 4), (5, 4)])
def test_every_layer_keeps_its_least_number_and_multiple(least: int, multiple: int) -> None:
    model = nn.Sequential(conv(3, 16, 1), conv(16, 8, 1), nn.Conv2d(8, 2, 1))
    model[0][1].weight.data *= 0.01  # type: ignore[index]
    result = prune(model, X, ratio=0.9, least=least, multiple=multiple)
    for block in result.model[:2]:  # type: ignore[index]
        channels = block[0].out_channels
        assert channels >= least
        assert channels % multiple == 0


def test_the_natural_gap_is_found() -> None:
    model, x = network("rows")
    small: Any = model[2]
    small.weight.data[:4] *= 1e-3
    result = prune(model, x, gap=True)
    assert result.receipt.facts["cut"] == 4
    assert 0 < result.receipt.facts["threshold"] < 0.01
    with pytest.raises(AnynormError, match="has no gap"):
        prune(network("rows")[0], x, gap=True)


def test_a_plan_cuts_a_fresh_model_and_its_state(tmp_path: Any) -> None:
    for name in NETWORKS:
        model, x = network(name)
        result = prune(model, x, ratio=0.5, recalibrate=[x])
        result.plan.write(tmp_path / "plan.json")
        plan = Plan.read(tmp_path / "plan.json")
        assert plan == result.plan
        fresh = plan.apply(NETWORKS[name][0]()).eval()
        fresh.load_state_dict(result.model.state_dict())
        assert torch.equal(fresh(x), result.model(x))
        cut = plan.apply_to_state(model.state_dict())
        found = {key: tensor.shape for key, tensor in result.model.state_dict().items()}
        assert {key: tensor.shape for key, tensor in cut.items()}.items() <= found.items()


def test_tied_parameters_are_cut_once_under_every_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = conv(3, 6, 1), conv(6, 6, 1), conv(6, 6, 1)
            self.three[0].weight = self.two[0].weight
            self.head = nn.Conv2d(6, 2, 1)
            for block in (self.one, self.two, self.three):
                nn.init.uniform_(block[1].weight)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.three(self.two(self.one(x))))
            return y

    model = Tied().eval()
    result: Any = prune(model, X, ratio=0.5, absorb=False)
    assert result.model.three[0].weight is result.model.two[0].weight
    assert len(result.model.two[0].weight) < 6
    assert close(result.model(X), silenced(model, result.plan, beta=True)(X))
    cut = result.plan.apply_to_state(model.state_dict())
    found = {name: tensor.shape for name, tensor in result.model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in cut.items()} == found


def test_plans_of_other_models_and_other_files_are_refused(tmp_path: Any) -> None:
    model, x = network("rows")
    plan = prune(model, x, ratio=0.5).plan
    with pytest.raises(AnynormError, match=r"made for another model: '1\.weight' is missing"):
        plan.apply(nn.Linear(2, 2))
    with pytest.raises(AnynormError, match="has shape"):
        plan.apply(plan.apply(model))
    for text in ("{", "[]", '{"format": "other"}', '{"format": "anynorm-plan-1", "cuts": 5}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(AnynormError, match="is not a plan of pruning"):
            Plan.read(tmp_path / "plan.json")
    with pytest.raises(AnynormError, match="is not a plan of pruning: No such file or directory"):
        Plan.read(tmp_path / "none.json")


def test_statistics_are_recomputed() -> None:
    model, x = network("residual")
    result: Any = prune(model, x, ratio=0.5, recalibrate=list(x.split(2)))
    assert result.receipt.facts["recalibrated"] == 3
    inputs = result.model.stem[0](x)
    torch.testing.assert_close(result.model.stem[1].running_mean, inputs.mean((0, 2, 3)))


def test_modes_types_ties_and_what_is_trained_stay() -> None:
    model: Any = nn.Sequential(conv(3, 6, 1), conv(6, 6, 1), nn.Conv2d(6, 2, 1)).double()
    model[0][1].weight.data[3:] = 0.1
    model[1][1].weight.data[:3] = 0.1
    model[1][0].weight.requires_grad_(False)
    model.train()
    model[0].eval()
    result: Any = prune(model, X.double(), ratio=0.5, inplace=True)
    assert result.model is model
    assert [layer.training for layer in model] == [False, True, True]
    assert not model[1][0].weight.requires_grad
    assert model[2].weight.dtype == torch.float64
    assert model[2].in_channels == model[1][0].out_channels == len(model[1][1].weight) == 3


def test_our_layers_and_fused_activations() -> None:
    norm = anynorm.BatchNorm2d(6, activation="relu")
    general: Any = anynorm.create("batch", 4)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), norm, nn.Conv2d(6, 4, 1), general, nn.Conv2d(4, 2, 1))
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(general.weight)
    result: Any = prune(model, X, ratio=0.5)
    left = len(result.model[1].weight), len(result.model[3].weight)
    assert sum(left) == 5
    assert (result.model[1].num_features, result.model[3].channels) == (left[0], (left[1],))
    assert result.model.train()(X).shape == (4, 2, 8, 8)


class Arithmetic(nn.Module):
    """Frozen batch norm as detection models write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        shaped = {name: b.reshape(1, -1, 1, 1) for name, b in self.named_buffers()}
        scale = shaped["weight"] * (shaped["running_var"] + 1e-5).rsqrt()
        return x * scale + (shaped["bias"] - shaped["running_mean"] * scale)


@pytest.mark.parametrize("written", ["operator", "arithmetic"])
def test_frozen_batch_norms(written: str) -> None:
    model: Any = nn.Sequential(conv(3, 6), nn.Conv2d(6, 2, 1)).eval()
    if written == "operator":
        nn.init.normal_(model[0][1].bias)
        model = anynorm.freeze(model).model
    else:
        model[0][1] = Arithmetic(6)
    model[0][1].weight.copy_(torch.tensor([0.0, 0, 0, 0, 1, 1]))
    result: Any = prune(model, X, gap=True)
    assert result.model[0][0].out_channels == len(result.model[0][1].running_var) == 2
    assert close(result.model(X), model(X))


def test_layers_to_ignore() -> None:
    model = nn.Sequential(conv(3, 6, 1), conv(6, 6, 1), nn.Conv2d(6, 2, 1))
    result: Any = prune(model, X, ratio=0.5, ignore=["1."])
    assert len(result.model[0][1].weight) == 3
    assert len(result.model[1][1].weight) == 6
    assert "it is ignored" in str(result.receipt)


class Numbered(nn.Module):
    """Code that holds the number of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 6, 1), conv(6, 6, 1), nn.Linear(6, 2)
        for block in (self.one, self.two):
            nn.init.uniform_(block[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x))
        y: Tensor = self.head(x.reshape(len(x), 6, -1).mean(-1))
        return y


def test_code_with_sizes_as_numbers_is_refused_by_name() -> None:
    result: Any = prune(Numbered(), X, ratio=0.4)  # of the six channels that can be cut
    assert len(result.model.two[1].weight) == 6
    assert len(result.model.one[1].weight) == 4
    (note,) = result.receipt.refused
    assert note.layer == "two.1"
    assert "its code holds sizes as numbers" in note.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "by exactly one of"),
        ({"ratio": 0.5, "gap": True}, "by exactly one of"),
        ({"ratio": 1.0}, "0 <= ratio < 1"),
        ({"parameters": 0.0}, "more than 0"),
        ({"parameters": 0.001}, "cannot be reached"),
        ({"ratio": 0.5, "least": 0}, "1 or more"),
    ],
)
def test_goals_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    model, x = network("rows")
    with pytest.raises(AnynormError, match=message):
        prune(model, x, **options)


@pytest.mark.parametrize(
    "layers",
    [[nn.Conv2d(3, 2, 1)], [nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)]],
    ids=["no norm", "output"],
)
def test_models_without_a_channel_to_cut(layers: Sequence[nn.Module]) -> None:
    with pytest.raises(AnynormError, match="has no channel that can be cut"):
        prune(nn.Sequential(*layers), X, ratio=0.5)


def test_a_difference_beyond_the_tolerance_is_rolled_back() -> None:
    model, x = network("residual")
    result = prune(model, x, ratio=0.5, tolerance=1e-6)
    assert result.receipt.rolled_back
    assert torch.equal(result.model(x), model(x))


@pytest.mark.parametrize(
    "shape", [[1e-4, 1e-3, 0.1, 0.9], [0.3, 1.0, 1e-3, 0.4], [0.0, 0.2, 0.0, 0.7]], ids=str
)
def test_the_gap_that_is_shown_is_the_gap_that_is_cut_at(shape: list[float]) -> None:
    """Also where layers cannot be cut, are ignored, or share their channels."""
    model: Any = Residual()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data = torch.tensor((shape * 8)[: len(norm.weight)])
        shape = shape[1:] + shape[:1]
    gap = Gammas.of(model).gap
    assert gap is not None
    result: Any = prune(model, X, gap=True)
    assert result.receipt.facts["gap"] == f"|γ| from {gap[0]:.3g} to {gap[1]:.3g}, of all layers"
    assert result.receipt.facts["threshold"] < gap[1]
    # What is left of a channel that could go has a γ above the gap.
    labels = prune(model, X, gap=True, ignore="two").receipt.facts
    assert labels["gap"] == result.receipt.facts["gap"]


def test_what_varied_in_cut_channels_is_not_called_nothing() -> None:
    model = nn.Sequential(conv(3, 6, 1), nn.Conv2d(6, 2, 1))
    model[0][1].weight.data = torch.linspace(0.85, 1.1, 6)  # type: ignore[index]
    facts = prune(model.eval(), X, ratio=0.5).receipt.facts
    # β is 0, so that φ(β) is too; the channels were not.
    assert (
        facts["absorbed"] == "nothing: no layer gets a constant other than 0 from the cut channels"
    )
    assert facts["lost"] == "what varied in channels of |γ| up to 0.95"
    model[0][1].weight.data[:3] = 0  # type: ignore[index]
    assert "lost" not in prune(model, X, ratio=0.5).receipt.facts


class Generator(nn.Module):
    """A linear layer whose outputs become channels with positions, as in image generators."""

    def __init__(self, *view: int) -> None:
        super().__init__()
        self.view = view
        self.linear, self.norm = nn.Linear(6, 8 * 16), nn.BatchNorm2d(8)
        self.up, self.last = nn.Conv2d(8, 12, 3), nn.BatchNorm2d(3)
        self.shuffle, self.head = nn.PixelShuffle(2), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.linear(x).view(len(x), *self.view)))
        y: Tensor = self.head(torch.relu(self.last(self.shuffle(self.up(x)))))
        return y


def test_channels_behind_views_and_shuffles_are_cut_with_all_their_values() -> None:
    torch.manual_seed(0)
    model = Generator(-1, 4, 4).eval()
    for norm, gone in ((model.norm, [1, 4, 6]), (model.last, [0])):
        nn.init.normal_(norm.bias)
        norm.weight.data[gone] = 0
    x = torch.randn(5, 6)
    result: Any = prune(model, x, gap=True)
    assert result.receipt.facts["cut"] == 4
    assert (result.model.linear.out_features, result.model.up.out_channels) == (80, 8)
    assert close(result.model(x), model(x))


def test_views_with_channels_as_numbers_are_refused_by_name() -> None:
    model = Generator(8, 4, 4).eval()
    model.norm.weight.data[:3] = 0
    model.last.weight.data[0] = 0
    result: Any = prune(model, torch.randn(5, 6), gap=True)
    assert len(result.model.last.weight) == 2
    [note] = result.receipt.refused
    assert note.layer == "norm"
    assert "its code holds sizes as numbers" in note.text


def test_a_gap_below_which_nothing_can_be_cut_is_said() -> None:
    model = nn.Sequential(conv(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    model[2].weight.data = torch.tensor([1e-4, 1e-4, 1.0, 1.0])  # type: ignore[assignment]
    receipt = prune(model, X, gap=True).receipt
    assert not receipt.changed
    assert receipt.facts["nothing matched"] == "no channel below the gap can be cut"
    assert "absorbed" not in receipt.facts
    assert [note.layer for note in receipt.refused] == ["2"]


class Shortcut(nn.Module):
    """A pre-activation block whose projection reads the values in front of the batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.a = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.proj, self.bn2, self.head = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.stem(x)
        inner = self.a(torch.relu(self.bn(s))) + self.proj(s)
        y: torch.Tensor = self.head(torch.relu(self.bn2(inner)))
        return y


def test_channels_that_are_also_read_in_front_of_the_norm_are_kept() -> None:
    torch.manual_seed(0)
    model = Shortcut().eval()
    model.bn.weight.data[:5] = 0
    model.bn2.weight.data = torch.linspace(0.5, 1, 8)
    x = torch.randn(4, 3, 9, 9)
    kept = prune(model, x, ratio=5 / 16)
    assert kept.receipt.facts["cut"] == 0
    assert torch.equal(kept.model(x), model(x))
    [note] = kept.receipt.refused
    assert note.layer == "bn"
    assert "also reads it in front of the normalizer" in note.text
    more = prune(model, x, ratio=8 / 16)
    assert [(one.layer, one.text) for one in more.receipt.changed] == [
        ("bn2", "3 of 8 channels cut")
    ]
    assert more.model.stem.out_channels == 8
