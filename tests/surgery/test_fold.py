"""Folding: exact where it is possible, refused by name where it is not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from surgery.models import BatchNormAct2d, Frozen, lived
from torch import Tensor, nn
from torch.nn.utils import parametrize

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Result, fold

IMAGE = (2, 4, 9, 9)


def fold_all(model: nn.Module, *shape: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Fold everything, in float64 unless told otherwise, and compare on input it has not seen."""
    model = lived(model).to(torch.float64 if dtype == torch.float32 else dtype)
    dtype = next(model.parameters()).dtype
    result = fold(model, torch.randn(shape, dtype=dtype), tolerance=1e-10)
    assert not result.receipt.refused
    assert not result.receipt.rolled_back
    assert result.receipt.changed
    x = torch.randn(shape, dtype=dtype)
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-10, atol=1e-10)
    return result.model


def refused(model: nn.Module, *shape: int) -> Result:
    """Fold nothing, and leave every number as it was."""
    model = lived(model)
    x = torch.randn(shape)
    before, state = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    result = fold(model, x)
    assert not result.receipt.changed
    assert torch.equal(result.model(x), before)
    after = result.model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    return result


def reason(model: nn.Module, *shape: int) -> str:
    (note,) = refused(model, *shape).receipt.refused
    return note.text


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_in_front(rank: int, groups: int, kind: str, bias: bool) -> None:
    conv = getattr(nn, f"{kind}{rank}d")(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
    norm = getattr(nn, f"BatchNorm{rank}d")(8)
    folded = fold_all(nn.Sequential(conv, norm, nn.ReLU()), 2, 4, *[7] * rank)
    assert type(folded[1]) is nn.Identity
    assert folded[0].bias.dtype == torch.float64


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_behind(rank: int, groups: int, bias: bool) -> None:
    conv = getattr(nn, f"Conv{rank}d")(4, 8, 3, stride=2, groups=groups, bias=bias)
    norm = getattr(nn, f"BatchNorm{rank}d")(4)
    fold_all(nn.Sequential(nn.ReLU(), norm, conv), 2, 4, *[7] * rank)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_paddings_by_name_where_nothing_is_padded(padding: str) -> None:
    kernel = 3 if padding == "valid" else 1
    fold_all(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, kernel, padding=padding)), *IMAGE)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 8, 3, padding=(0, 1)),
        nn.Conv2d(4, 8, 3, padding="same"),
    ],
)
def test_padding_behind_is_refused(conv: nn.Module) -> None:
    told = reason(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), conv), *IMAGE)
    assert told == (
        "in front: its input comes from relu in '0'; "
        "behind: the convolution '2' pads its input with zeros, which are not normalized"
    )


def test_padding_by_another_operator_is_refused() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular")
    assert "behind: its output goes to pad in '1'" in reason(
        nn.Sequential(nn.BatchNorm2d(4), conv), *IMAGE
    )


def test_transposed_convolutions_behind_are_refused() -> None:
    told = reason(nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 8, 3, stride=2)), *IMAGE)
    assert "behind: the transposed convolution '1' adds up a different number of terms" in told


def test_linear_layers() -> None:
    fold_all(nn.Sequential(nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh()), 6, 3)
    fold_all(nn.Sequential(nn.Tanh(), nn.BatchNorm1d(3), nn.Linear(3, 5)), 6, 3)


class Tokens(nn.Module):
    """A linear layer with batch norm over tokens, written as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 5, bias=False), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        y: Tensor = self.norm(x.flatten(0, 1)).reshape_as(x)
        return y


class Transposed(nn.Module):
    """Batch norm of the features of tokens, between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.first(x).transpose(1, 2)).permute(0, 2, 1)
        return torch.relu(self.second(torch.tanh(y)))


class Between(Transposed):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(torch.tanh(self.first(x)).transpose(1, 2)).permute(0, 2, 1)
        return self.second(y)


@pytest.mark.parametrize("model", [Tokens(), Transposed(), Between()])
def test_views_between_that_keep_the_channels(model: nn.Module) -> None:
    fold_all(model, 2, 7, 3)


def test_the_last_axis_of_linear_is_not_axis_1_of_batch_norm_even_where_sizes_agree() -> None:
    told = reason(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), 2, 5, 3)
    assert "its channels are not those of the linear '0', which are the last axis" in told
    told = reason(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)), 2, 5, 5)
    assert "its channels are not those of the linear '1', which are the last axis" in told


def test_unbatched_convolutions_are_refused() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4))
    assert "axis 1 of a batch" in reason(model, 4, 4)


@pytest.mark.parametrize("name", ["ghost", "l1-batch", "lp-batch", "linf-batch", "batch"])
def test_every_layer_that_evaluates_as_batch_norm(name: str) -> None:
    norm = anynorm.create(name, 8, activation="relu")
    fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), norm), *IMAGE)


@pytest.mark.parametrize(
    "norm",
    [
        nn.SyncBatchNorm(8),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.BatchNorm2d(8, affine=False),
        nn.BatchNorm2d(8, eps=1e-3),
        Frozen(8),
        Frozen(8, eps=0.1),
        anynorm.FrozenBatchNorm(8),
        anynorm.FrozenBatchNorm(8, trainable=True),
        anynorm.BatchNorm2d(8),
        anynorm.InstanceNorm2d(8, track_running_stats=True),
    ],
)
def test_every_fixed_normalizer(norm: nn.Module) -> None:
    folded = fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), norm), *IMAGE)
    assert type(folded[1]) is nn.Identity


@pytest.mark.parametrize(
    ("norm", "told"),
    [
        (nn.BatchNorm2d(8, track_running_stats=False), "takes its statistics from each batch"),
        (nn.InstanceNorm2d(8), "instance norm takes its statistics from each input"),
        (nn.GroupNorm(2, 8), "group norm takes its statistics from each input"),
        (anynorm.create("zca", 8), "zca norm mixes the channels of a group"),
    ],
)
def test_other_normalizers_are_refused(norm: nn.Module, told: str) -> None:
    assert told in reason(nn.Sequential(nn.Conv2d(4, 8, 3), norm), *IMAGE)


def test_subclasses_are_refused_by_name() -> None:
    class Scaled(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return 2 * super().forward(input)

    told = reason(nn.Sequential(nn.Conv2d(4, 8, 3), Scaled(8)), *IMAGE)
    assert told == "a Scaled is a subclass of BatchNorm2d and may do more"


def test_fused_activations_stay() -> None:
    folded = fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), BatchNormAct2d(8)), *IMAGE)
    assert type(folded[1].act) is nn.SiLU
    folded = fold_all(
        nn.Sequential(nn.Conv2d(4, 8, 3), anynorm.BatchNorm2d(8, activation="gelu")), *IMAGE
    )
    assert isinstance(folded[1], anynorm.Activate)
    told = reason(nn.Sequential(BatchNormAct2d(4), nn.Conv2d(4, 8, 3)), *IMAGE)
    assert "behind: an activation or a residual lies between" in told


class Residual(nn.Module):
    """Our batch norm, which adds the residual before its activation."""

    def __init__(self, activation: str | None, *, own: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = anynorm.BatchNorm2d(4, activation=activation)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.norm(y, y if self.own else x)
        return z


@pytest.mark.parametrize("activation", [None, "relu"])
def test_residuals_stay(activation: str | None) -> None:
    assert isinstance(fold_all(Residual(activation), *IMAGE).norm, anynorm.Activate)


def test_the_convolution_itself_as_residual_is_refused() -> None:
    assert "what it normalizes is used by add too" in reason(Residual("relu", own=True), *IMAGE)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class Twice(Block):
    """The convolution is used twice, and normalized once."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(self.norm(self.conv(x))))


class Shared(Block):
    """A convolution normalized by one of two norms: each alone would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)) + self.other(self.conv(x.flip(-1)))
        return y


def test_a_block_applied_twice_is_folded_once() -> None:
    block = Block()
    folded = fold_all(nn.Sequential(block, nn.ReLU(), block, nn.Sequential(block)), *IMAGE)
    assert folded[0] is folded[2] is folded[3][0]
    assert type(folded[0].norm) is nn.Identity


def test_a_convolution_that_is_used_otherwise_too_is_refused() -> None:
    assert "the convolution 'conv' is used elsewhere too" in reason(Twice(), *IMAGE)
    assert len(refused(Shared(), *IMAGE).receipt.refused) == 2


def test_a_norm_that_is_used_with_two_convolutions_is_refused() -> None:
    norm = nn.BatchNorm2d(4)
    convs = [nn.Conv2d(4, 4, 3) for _ in range(2)]
    told = reason(nn.Sequential(convs[0], norm, nn.ReLU(), convs[1], norm), *IMAGE)
    assert "in front: it is used with several layers: '0', '3'" in told


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_tied_parameters_are_refused(name: str) -> None:
    one, other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
    setattr(other, name, getattr(one, name))
    told = reason(nn.Sequential(one, nn.BatchNorm2d(4), nn.ReLU(), other), *IMAGE)
    assert f"the {name} of the convolution '0' is shared with a Conv2d" in told


def test_a_weight_that_something_else_reads_is_refused() -> None:
    class Reads(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.conv.weight.square().sum()

    assert "the convolution 'conv' is used elsewhere too" in reason(Reads(), *IMAGE)


def test_statistics_that_something_else_reads_are_refused() -> None:
    class Reads(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.norm.running_var.sum()

    assert reason(Reads(), *IMAGE) == "its parameters or statistics are read by '' too"


def test_computed_weights_are_refused() -> None:
    conv = anynorm.normalized(nn.Conv2d(4, 8, 3), "weight-standardization")
    told = reason(nn.Sequential(conv, nn.BatchNorm2d(8)), *IMAGE)
    assert "the weight of the convolution '0' is computed (" in told
    plain = nn.Conv2d(4, 8, 3)
    parametrize.register_parametrization(plain, "weight", nn.Identity())
    assert "is computed" in reason(nn.Sequential(plain, nn.BatchNorm2d(8)), *IMAGE)


def test_a_product_with_a_parameter_of_another_class_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 4, 3, 3))
            self.bias = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight, self.bias)

    told = reason(nn.Sequential(Own(), nn.BatchNorm2d(8)), *IMAGE)
    assert "the convolution '0' belongs to an Own, no layer of torch.nn" in told


class Same(nn.Conv2d):
    """Pads by itself, as converted models do; with or without using a bias."""

    def __init__(self, *, biased: bool) -> None:
        super().__init__(4, 8, 3, bias=False)
        self.biased = biased

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        padded = nn.functional.pad(input, (0, 1, 1, 2))
        return nn.functional.conv2d(padded, self.weight, self.bias if self.biased else None)


def test_subclasses_of_convolutions() -> None:
    folded = fold_all(nn.Sequential(Same(biased=True), nn.BatchNorm2d(8)), *IMAGE)
    assert isinstance(folded[0], Same)
    told = reason(nn.Sequential(Same(biased=False), nn.BatchNorm2d(8)), *IMAGE)
    assert "the bias of the convolution '0' is computed (None), not a parameter" in told


def test_what_lies_between_is_named() -> None:
    told = reason(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), *IMAGE)
    assert told == (
        "in front: its input comes from relu in '1'; behind: its output goes to the model's output"
    )
    assert "comes from the model's input" in reason(nn.BatchNorm2d(4), *IMAGE)


def test_layers_that_the_example_does_not_reach_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    model.register_module("spare", nn.ModuleList([nn.BatchNorm2d(4)]))
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign, assignment]
    result = fold(lived(model), torch.randn(IMAGE), inplace=True)
    assert [note.text for note in result.receipt.refused] == ["the example does not reach it"]


class DenseBlock(nn.Module):
    """DenseNet's order, norm, activation, convolution, and its concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        y = torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)
        z: Tensor = self.conv3(self.norm3(y))
        return z


def test_dense_blocks_in_both_directions() -> None:
    model = lived(DenseBlock())
    result = fold(model, torch.randn(IMAGE))
    receipt = result.receipt
    assert [(note.layer, note.text) for note in receipt.changed] == [
        ("norm2", "folded into the convolution 'conv1'"),
        ("norm3", "folded into the convolution 'conv3'"),
    ]
    (left,) = receipt.refused
    assert left.layer == "norm1"
    assert left.text.endswith("behind: its output goes to relu")
    x = torch.randn(IMAGE)
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_norms_on_both_sides_of_one_convolution() -> None:
    layers = [nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)]
    fold_all(nn.Sequential(*layers), *IMAGE)


def test_facts_and_names() -> None:
    norm = nn.BatchNorm2d(8)
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 8, 3, bias=False), norm=norm))
    receipt = fold(lived(model), torch.randn(IMAGE)).receipt
    assert receipt.facts == {
        "parameters before": 4 * 8 * 9 + 16,
        "parameters after": 4 * 8 * 9 + 8,
        "folded": "1 of 1 normalizers",
    }


@pytest.mark.parametrize("which", ["model", "norm"])
def test_train_mode_is_an_error(which: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    (model if which == "model" else model[1]).train()
    with pytest.raises(AnynormError, match=r"Call model\.eval\(\) first"):
        fold(model, torch.randn(IMAGE))


def test_the_given_model_stays_unless_inplace() -> None:
    model = lived(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)))
    weight, norm = model[0].weight.clone(), model[1]
    fold(model, torch.randn(IMAGE))
    assert torch.equal(model[0].weight, weight)
    assert model[1] is norm
    parameter = model[0].weight
    result = fold(model, torch.randn(IMAGE), inplace=True)
    assert result.model is model
    assert model[0].weight is parameter
    assert type(model[1]) is nn.Identity


def test_what_is_off_is_undone() -> None:
    model = lived(nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    result = fold(model, torch.randn(IMAGE), inplace=True, tolerance=0.0)
    assert result.receipt.rolled_back
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert model[0].bias is None


def test_hooks_modes_and_gradients() -> None:
    seen: list[str] = []
    model = lived(nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)))
    model[0].weight.requires_grad_(False)
    model[1].register_forward_hook(lambda *_: seen.append("behind"))
    folded = fold(model, torch.randn(IMAGE)).model
    seen.clear()
    folded(torch.randn(IMAGE))
    assert seen == ["behind"]
    assert not folded[1].training
    assert not folded[0].bias.requires_grad


@pytest.mark.parametrize("place", ["before", "behind"])
def test_hooks_that_change_what_passes(place: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    if place == "before":
        model[1].register_forward_pre_hook(lambda _, args: (args[0] + 1,))
        assert "its input comes from add in '1'" in reason(model, *IMAGE)
    else:
        model[1].register_forward_hook(lambda _, __, y: 2 * y)
        fold_all(model, *IMAGE)
        model = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3))
        model[0].register_forward_hook(lambda _, __, y: 2 * y)
        assert "an activation or a residual lies between" in reason(model, *IMAGE)


def test_dropout_in_eval_mode_lies_in_no_ones_way() -> None:
    fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Dropout2d(0.5), nn.BatchNorm2d(8)), *IMAGE)


def test_complex_weights_are_refused() -> None:
    class Complex(Block):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.view_as_real(self.conv(x + 0j)).flatten(-2))

    model = Complex()
    model.conv = nn.Conv2d(4, 4, 3, dtype=torch.complex64)
    assert "its input comes from view_as_real" in reason(model, *IMAGE)


def test_half_precision_needs_a_tolerance_and_keeps_its_type() -> None:
    model = lived(nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)))
    model, x = model.bfloat16(), torch.randn(IMAGE).bfloat16()
    assert fold(model, x).receipt.rolled_back
    folded = fold(model, x, tolerance=0.05).sure()
    assert {p.dtype for p in folded.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(folded(x), model(x), rtol=0.05, atol=0.05)


def test_weights_that_leave_their_type_are_refused() -> None:
    model = lived(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)))
    model[1].weight.data.fill_(1e30)
    model[0].weight.data.fill_(1e30)
    result = fold(model, torch.randn(IMAGE))
    (note,) = result.receipt.refused
    assert note.text == "the weights of the convolution '0' would not be finite then"


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"x": torch.randn(IMAGE)},
        lambda: (torch.randn(IMAGE), torch.zeros(2)),
    ],
)
def test_examples_may_be_dicts_and_tuples(make: Callable[[], Any]) -> None:
    assert fold(lived(Block()), make()).receipt.changed


def test_models_that_cannot_be_exported_raise() -> None:
    class Branches(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    model = lived(Branches())
    weight = model.conv.weight.clone()
    with pytest.raises(AnynormError, match=r"torch\.export cannot trace Branches"):
        fold(model, torch.randn(IMAGE), inplace=True)
    assert torch.equal(model.conv.weight, weight)


@pytest.mark.parametrize(
    "norm",
    [
        anynorm.create("lp-batch", 8, p=3.0),
        anynorm.create("l1-batch", 8, constant=2.0),
        anynorm.Norm("[n] c [h w]", 8),
        anynorm.Norm("[n] c [...]", 8, scale=None),
        anynorm.Norm("[n] c [...]", 8, scale="rms", center=False),
        anynorm.Norm("[n] (g c) [...]", 8, g=2),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    ],
    ids=str,
)
def test_what_evaluates_as_batch_norm_does_is_folded(norm: nn.Module) -> None:
    fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), norm), *IMAGE)


def test_layers_that_count_no_batches_are_folded() -> None:
    norm = nn.BatchNorm2d(8)
    norm.num_batches_tracked = None
    fold_all(nn.Sequential(nn.Conv2d(4, 8, 3), norm), *IMAGE)


@pytest.mark.parametrize("pattern", ["[n ...] c", "[n l] c"])
def test_channels_on_the_last_axis(pattern: str) -> None:
    fold_all(nn.Sequential(nn.Linear(6, 8), anynorm.Norm(pattern, 8)), 2, 5, 6)
    fold_all(nn.Sequential(anynorm.Norm(pattern, 6), nn.Linear(6, 8)), 2, 5, 6)


class Moving(nn.Module):
    """Layers with a function of their outputs between them."""

    def __init__(self, before: nn.Module, move: Callable[[Tensor], Tensor], behind: nn.Module):
        super().__init__()
        self.before, self.move, self.behind = before, move, behind

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.behind(self.move(self.before(x)))
        return y


@pytest.mark.parametrize(
    ("before", "move", "behind", "shape"),
    [
        (nn.Linear(6, 128), nn.Unflatten(1, (8, 4, 4)), nn.BatchNorm2d(8), (5, 6)),
        (nn.Linear(6, 12), lambda x: x.view(2, 3, 4).transpose(1, 2), nn.BatchNorm1d(4), (2, 6)),
        (nn.Linear(6, 8), lambda x: x.movedim(-1, 1), nn.BatchNorm1d(8), (2, 5, 6)),
        (nn.Linear(6, 8), lambda x: x.flatten(0, 1), nn.BatchNorm1d(8), (2, 5, 6)),
        (nn.Linear(6, 8), lambda x: x.flip(1), nn.BatchNorm1d(8), (2, 6)),
        (
            nn.Linear(6, 12),
            lambda x: x.view(2, 3, 4),
            anynorm.create("batch-per-activation", (3, 4)),
            (2, 6),
        ),
        (nn.Conv2d(4, 16, 3), nn.PixelShuffle(2), nn.BatchNorm2d(4), IMAGE),
        (nn.Conv2d(4, 6, 3), nn.ChannelShuffle(2), nn.BatchNorm2d(6), IMAGE),
        (nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(324, 3), IMAGE),
        (nn.BatchNorm2d(4), nn.PixelUnshuffle(3), nn.Conv2d(36, 3, 3), IMAGE),
        (nn.BatchNorm2d(4), lambda x: x.permute(0, 2, 3, 1), nn.Linear(4, 3), IMAGE),
        (nn.BatchNorm1d(5), lambda x: x.transpose(1, 2), nn.Linear(5, 3), (2, 5, 6)),
    ],
)
def test_values_that_are_moved_on_the_way_are_folded(
    before: nn.Module, move: Callable[[Tensor], Tensor], behind: nn.Module, shape: tuple[int, ...]
) -> None:
    fold_all(Moving(before, move, behind), *shape)


@pytest.mark.parametrize(
    ("before", "move", "behind", "shape"),
    [
        (nn.Linear(6, 8), lambda x: x, nn.BatchNorm1d(8), (2, 8, 6)),
        (nn.Linear(6, 8), lambda x: x.view(2, 4, 2, 8), nn.BatchNorm2d(4), (2, 8, 6)),
        (nn.BatchNorm2d(4), nn.Flatten(2), nn.Linear(81, 3), IMAGE),
        (nn.BatchNorm2d(4), lambda x: x.reshape(2, 9, -1, 9), nn.Conv2d(9, 3, 1), IMAGE),
    ],
)
def test_values_of_several_channels_in_one_place_are_refused(
    before: nn.Module, move: Callable[[Tensor], Tensor], behind: nn.Module, shape: tuple[int, ...]
) -> None:
    told = reason(Moving(before, move, behind), *shape)
    assert "values of several channels come from one of them or go to one" in told


def test_two_uses_that_place_channels_differently_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(6, 12), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            one: Tensor = self.norm(self.linear(x).view(-1, 4, 3))
            other: Tensor = self.norm(self.linear(x + 1).view(-1, 3, 4).transpose(1, 2))
            return one + other

    assert "has its channels in other places from use to use" in reason(Twice(), 2, 6)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused_with_the_way() -> None:
    scripted = torch.jit.trace(nn.Conv2d(4, 8, 3).eval(), torch.zeros(IMAGE))
    with pytest.raises(AnynormError, match=r"layer '0' is in TorchScript.*from which it was made"):
        fold(nn.Sequential(scripted, nn.BatchNorm2d(8)).eval(), torch.zeros(IMAGE))
