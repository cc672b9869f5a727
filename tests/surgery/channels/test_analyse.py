"""Which channels belong together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import Concatenated, Gated, Residual, Scaled, Shuffled, Twice, conv
from networks import flattened as flattened_network
from networks import transposed as transposed_network
from torch import Tensor, nn

from anynorm.surgery.channels import Channels, analyse
from anynorm.surgery.graph import capture

X = torch.randn(2, 3, 8, 8)


def found(model: nn.Module) -> Channels:
    return analyse(capture(model, X))


def same(channels: Channels, *sites: tuple[str, int]) -> bool:
    first, *others = (channels.sites[site] for site in sites)
    return all(torch.equal(first, other) for other in others)


def test_residual_sums_have_the_same_channels() -> None:
    channels = found(Residual())
    assert same(channels, ("stem.1.weight", 0), ("two.0.weight", 0), ("two.1.running_var", 0))
    assert same(channels, ("stem.0.weight", 0), ("one.0.weight", 1), ("head.weight", 1))
    assert len(channels.prunable) == 16


def test_concatenated_channels_lie_one_after_the_other() -> None:
    channels = found(Concatenated())
    parts = [channels.sites["one.1.weight", 0], channels.sites["two.1.weight", 0]]
    assert torch.equal(channels.sites["head.0.weight", 1], torch.cat(parts))
    assert len(channels.prunable) == 15


def test_gates_and_depthwise_convolutions_keep_channels() -> None:
    channels = found(Gated())
    names = ("stem.0.weight", "depthwise.0.weight", "depthwise.1.bias", "up.weight", "up.bias")
    assert same(channels, *((name, 0) for name in names), ("down.weight", 1), ("head.weight", 1))
    assert ("depthwise.0.weight", 1) not in channels.sites


def test_groups_shuffles_and_halves_lose_the_same_places() -> None:
    channels = found(Shuffled())
    stem = channels.sites["stem.1.weight", 0]
    assert torch.equal(stem[:4], stem[4:])
    assert torch.equal(channels.sites["one.0.weight", 1], stem[:4])
    one = channels.sites["one.1.weight", 0]
    assert torch.equal(one[:4], one[4:])  # in groups
    # Shuffled, the channels are 0 4 1 5 | 2 6 3 7: the halves lose the same places.
    assert torch.equal(one[:2], one[2:4])


def test_flattened_channels_take_several_places() -> None:
    channels = found(flattened_network())
    assert torch.equal(
        channels.sites["3.weight", 1], channels.sites["0.1.weight", 0].repeat_interleave(4)
    )


def test_transposed_convolutions_have_their_axes_the_other_way_round() -> None:
    channels = found(transposed_network())
    assert same(channels, ("0.1.weight", 0), ("1.weight", 0))
    assert same(channels, ("1.weight", 1), ("2.weight", 0), ("4.weight", 0))
    assert channels.sites["4.weight", 1].tolist() == channels.sites["5.weight", 0][:2].tolist()


def test_parameters_along_the_channels_go_with_them() -> None:
    channels = found(Scaled())
    assert same(channels, ("factor", 0), ("slopes.weight", 0), ("stem.1.weight", 0))


def test_a_block_called_twice_keeps_what_comes_in_and_goes_out() -> None:
    channels = found(Twice())
    assert same(channels, ("block.0.weight", 0), ("block.0.weight", 1), ("stem.1.weight", 0))


class Behind(nn.Module):
    """A stem with batch norm, something in question, and a head."""

    def __init__(self, middle: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.middle, self.layers = conv(3, 6), middle, nn.ModuleList(layers)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.head(x)
        return y


class Standardized(nn.Conv2d):
    """A convolution whose weight is computed."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "unknown operator": (Behind(lambda x: x.cumsum(1)), "cumsum has no rule"),
    "softmax over channels": (Behind(lambda x: x.softmax(1)), "softmax over channels"),
    "mean over channels": (Behind(lambda x: x - x.mean(1, keepdim=True)), "mean over channels"),
    "numbered places": (Behind(lambda x: torch.cat([x[:, 3:], x[:, :3]], 1)), "given by numbers"),
    "sizes of parts": (Behind(lambda x: torch.cat(x.split(3, 1), 1)), "given by numbers"),
    "group norm": (Behind(lambda x: x, nn.GroupNorm(2, 6)), "group_norm takes statistics over"),
    "layer norm": (Behind(lambda x: x, nn.LayerNorm([6, 6, 6])), "layer_norm takes statistics"),
    "weight that is computed": (Behind(lambda x: x, Standardized(6, 6, 1)), "that is computed"),
    "sum with a constant": (Behind(lambda x: x + torch.ones(6, 1, 1)), "values that are not cut"),
    "shapes that depend on values": (
        Behind(lambda x: x + torch.masked_select(x, torch.ones(6, 6) > 0).sum()),
        "depends on values",
    ),
    "output": (conv(3, 6), "part of the output"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_with_the_reason(name: str) -> None:
    model, reason = REFUSED[name]
    channels = found(model)
    norm = "1.weight" if name == "output" else "stem.1.weight"
    labels = channels.sites[norm, 0]
    assert not set(channels.prunable) & set(labels.tolist())
    assert any(reason in why for why in channels.reasons(labels)), channels.reasons(labels)


ALLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax over positions": lambda x: x.flatten(2).softmax(2).view(x.shape),
    "mean over positions": lambda x: x - x.mean((2, 3), keepdim=True),
    "maximum": lambda x: torch.maximum(x, 2 * x),
    "pooled and resized": lambda x: nn.functional.interpolate(
        nn.functional.max_pool2d(x, 2), size=6
    ),
    "padded": lambda x: nn.functional.pad(x, (1, 1, 0, 0)),
    "channels last": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "rows side by side": lambda x: torch.cat([x, x.flip(2)], 2),
    "number added": lambda x: x + 1,
    "clamped": lambda x: x.clamp(0, 6) / 6,
}


@pytest.mark.parametrize("name", ALLOWED)
def test_operators_that_keep_channels(name: str) -> None:
    channels = found(Behind(ALLOWED[name]))
    assert same(channels, ("stem.1.weight", 0), ("head.weight", 1))
    assert len(channels.prunable) == 6


def test_costs_are_those_of_torchs_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for model in (Shuffled(), Gated(), transposed_network(), flattened_network()):
        state = dict(model.named_parameters())
        uses = found(model).uses
        with FlopCounterMode(display=False) as counter:
            model.eval()(X)
        assert sum(2 * u.positions * state[u.weight].numel() for u in uses) == (
            counter.get_total_flops()
        )


def behind(move: Callable[[Tensor], Tensor], before: nn.Module, channels: int) -> nn.Module:
    """A layer whose outputs are moved before a batch norm takes them, and a head."""

    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.norm = before, nn.BatchNorm2d(channels)
            self.head = nn.Conv2d(channels, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.norm(move(self.before(x))))
            return y

    return Moved()


@pytest.mark.parametrize(
    ("move", "expected"),
    [
        (lambda y: y.view(len(y), -1, 4, 4), torch.arange(3).repeat_interleave(16)),
        (lambda y: y.view(len(y), 4, 4, -1).permute(0, 3, 1, 2), torch.arange(3).repeat(16)),
    ],
    ids=["in front", "at the end"],
)
def test_values_of_one_channel_go_together(
    move: Callable[[Tensor], Tensor], expected: Tensor
) -> None:
    model = behind(move, nn.Linear(5, 48), 3)
    channels = analyse(capture(model, torch.zeros(2, 5)))
    outputs, gamma = channels.sites["before.weight", 0], channels.sites["norm.weight", 0]
    assert torch.equal(outputs, channels.sites["before.bias", 0])
    assert len(channels.prunable) == 3
    assert len(gamma.unique()) == 3
    assert torch.equal(outputs, gamma[expected])


def test_shuffled_pixels_go_with_their_channel() -> None:
    model = behind(nn.PixelShuffle(2), nn.Conv2d(3, 12, 3), 3)
    channels = found(model)
    gamma = channels.sites["norm.weight", 0]
    assert torch.equal(channels.sites["before.weight", 0], gamma.repeat_interleave(4))
    assert len(channels.prunable) == 3


def test_channels_that_lie_across_an_axis_are_not_united() -> None:
    class Across(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.norm(self.conv(x)))  # over the last axis of positions
            return y

    channels = found(Across())
    assert not channels.prunable
    assert channels.reasons(channels.sites["norm.weight", 0]) == ["linear has no rule for them"]
