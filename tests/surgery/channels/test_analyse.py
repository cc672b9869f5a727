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


class Heads(nn.Module):
    """Queries, keys and values of three heads, with something done to them, and a projection."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(5, 12) for _ in range(4))
        self.out = nn.Linear(12, 2)
        self.norm, self.angles = nn.RMSNorm(4), nn.Parameter(torch.rand(4))
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = self.norm(q) * self.angles.cos(), self.norm(k) * torch.ones(4)
        y: Tensor = self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return y


def _masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.mT / 2).masked_fill(torch.ones(6, 6).triu(1) > 0, -torch.inf)
    return scores.softmax(-1) @ v


ATTENTION: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "fused": nn.functional.scaled_dot_product_attention,
    "fused, with a mask": lambda q, k, v: nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.zeros(6, 6)
    ),
    "with a mask": _masked,
}


@pytest.mark.parametrize("name", ATTENTION)
def test_a_head_of_attention_is_one_channel(name: str) -> None:
    channels = analyse(capture(Heads(ATTENTION[name]), torch.randn(2, 6, 5)))
    assert same(channels, *((f"{layer}.weight", 0) for layer in "qkv"), ("out.weight", 1))
    heads = channels.sites["out.weight", 1]
    assert torch.equal(heads, heads[::4].repeat_interleave(4))
    assert len(channels.read) == 3
    assert {channels.places[root] for root in channels.read} == {4}


def test_heads_that_share_keys_and_values_are_one_channel() -> None:
    class Shared(Heads):
        def __init__(self) -> None:
            super().__init__(nn.functional.scaled_dot_product_attention)

        def forward(self, x: Tensor) -> Tensor:
            q = self.q(x).unflatten(-1, (6, 2)).transpose(1, 2)
            k, v = (f(x).unflatten(-1, (3, 4))[..., :2].transpose(1, 2) for f in (self.k, self.v))
            y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            out: Tensor = self.out(y.transpose(1, 2).flatten(2))
            return out

    channels = analyse(capture(Shared(), torch.randn(2, 6, 5)))
    assert same(channels, ("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("out.weight", 1))
    assert len(channels.read) == 3


@pytest.mark.parametrize(
    ("attend", "expected"),
    [
        (lambda q, k, v: (q.mT @ k).softmax(-1) @ v.mT, None),
        (lambda q, k, v: (q @ k.mT).softmax(1) @ v, "softmax over channels"),
        (
            lambda q, k, v: (q @ k.mT + torch.ones(3, 1, 1)) @ v,
            "add with values that are not cut",
        ),
    ],
    ids=["over values", "between heads", "number for each head"],
)
def test_attention_that_mixes_or_counts_heads(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], expected: str | None
) -> None:
    model = Heads(lambda q, k, v: attend(q, k, v).reshape(q.shape))
    channels = analyse(capture(model, torch.randn(2, 6, 5)))
    roots = channels.sites["q.weight", 0].unique().tolist()
    assert {channels.locked.get(root) for root in roots} == {expected}


def test_parts_that_are_summed_lose_the_same_channels() -> None:
    channels = found(Behind(lambda x: x.unflatten(1, (2, 3)).sum(1).repeat(1, 2, 1, 1)))
    stem = channels.sites["stem.1.weight", 0]
    assert torch.equal(stem[:3], stem[3:])
    assert len(channels.prunable) == 3


def test_columns_of_a_table_are_channels() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2))
    channels = analyse(capture(model, torch.zeros(2, 3, dtype=torch.int64)))
    assert same(channels, ("0.weight", 1), ("1.weight", 1))
    assert len(channels.read) == 4
