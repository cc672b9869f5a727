"""Converting normalizers: the same function in another library, or another kind by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from surgery.models import BatchNormAct2d, Frozen, lived
from torch import Tensor, nn

import anynorm
from anynorm.activations import ACTIVATIONS
from anynorm.errors import AnynormError, UnknownNameError
from anynorm.surgery import convert

IMAGE = (4, 6, 5, 5)

TORCHS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.BatchNorm1d(6, eps=1e-3), (4, 6)),
    (nn.BatchNorm2d(6, momentum=None), IMAGE),
    (nn.BatchNorm2d(6, affine=False), IMAGE),
    (nn.BatchNorm3d(6), (4, 6, 2, 3, 4)),
    (nn.BatchNorm2d(6, track_running_stats=False), IMAGE),
    (nn.SyncBatchNorm(6), IMAGE),
    (nn.InstanceNorm2d(6), IMAGE),
    (nn.InstanceNorm1d(6, affine=True, track_running_stats=True), (4, 6, 5)),
    (nn.GroupNorm(3, 6), IMAGE),
    (nn.GroupNorm(2, 6, affine=False), IMAGE),
    (nn.LayerNorm(6), (4, 5, 6)),
    (nn.LayerNorm([6, 5], bias=False), (4, 6, 5)),
    (nn.RMSNorm(6), (4, 5, 6)),
]


def moved(model: nn.Module) -> nn.Module:
    """Every γ, β and statistic is random, and the model in eval mode."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.5, 1.5)
    return lived(model)


@pytest.mark.parametrize(("norm", "shape"), TORCHS)
def test_there_and_back(norm: nn.Module, shape: tuple[int, ...]) -> None:
    model, x = moved(nn.Sequential(norm)), torch.randn(shape)
    ours = convert(model, "anynorm", x).sure()
    assert type(ours[0]) is getattr(anynorm, type(norm).__name__)
    torch.testing.assert_close(ours(x), model(x), rtol=1e-5, atol=1e-5)
    back = convert(ours, "torch", x).sure()
    assert type(back[0]) is type(norm)
    assert repr(back) == repr(model)
    assert torch.equal(back(x), model(x))
    assert list(back.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("norm", [norm for norm, _ in TORCHS[:4]])
def test_they_train_alike_afterwards(norm: nn.Module) -> None:
    shape = dict(TORCHS)[norm]
    model, x = moved(nn.Sequential(norm)), torch.randn(shape)
    ours = convert(model, "anynorm").model
    for one in (model, ours):
        one.train()(x)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("batch", nn.BatchNorm2d),
        ("instance", nn.InstanceNorm2d),
        ("group", nn.GroupNorm),
        ("none", nn.Identity),
    ],
)
def test_general_layers_become_torchs(name: str, kind: type[nn.Module]) -> None:
    options = {"groups": 3} if name == "group" else {}
    model, x = moved(nn.Sequential(anynorm.create(name, 6, **options))), torch.randn(IMAGE)
    result = convert(model, "torch", x)
    assert type(result.sure()[0]) is kind
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-5, atol=1e-5)


def test_general_layers_over_the_last_axis_and_over_all_channels() -> None:
    x = torch.randn(4, 5, 6)
    last = moved(nn.Sequential(anynorm.create("layer", 6), anynorm.create("rms", 6)))
    found = convert(last, "torch", x).sure()
    assert [type(layer) for layer in found] == [nn.LayerNorm, nn.RMSNorm]
    model = moved(nn.Sequential(anynorm.create("layer", 6, channels_first=True)))
    assert type(convert(model, "torch", torch.randn(IMAGE)).sure()[0]) is nn.GroupNorm


@pytest.mark.parametrize(
    ("norm", "told"),
    [
        (anynorm.create("ghost", 6), "torch.nn has no layer '(k [n]) c [...]'"),
        (anynorm.create("l1-batch", 6), "torch.nn has no layer '[n] c [...]'"),
        (anynorm.FrozenBatchNorm(6), "torch.nn has no batch norm of constants"),
        (anynorm.create("batch", 6), "give an example"),
        (anynorm.create("rms", 6, bias=True), "torch's RMS norm has no β"),
    ],
)
def test_what_torch_does_not_have_is_refused(norm: nn.Module, told: str) -> None:
    result = convert(nn.Sequential(norm), "torch")
    (note,) = result.receipt.refused
    assert told in note.text
    assert type(result.model[0]) is type(norm)


@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_activations_become_modules_of_torch(phi: str) -> None:
    model, x = moved(nn.Sequential(anynorm.BatchNorm2d(6, activation=phi))), torch.randn(IMAGE)
    found = convert(model, "torch", x).sure()
    torch.testing.assert_close(found(x), model(x), rtol=1e-5, atol=1e-5)
    assert all(type(part).__module__.startswith("torch.nn") for part in found.modules())


class Residual(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x, x.flip(0))
        return y


@pytest.mark.parametrize("phi", [None, "relu", torch.tanh])
@pytest.mark.parametrize("to", ["torch", "sync", "group", "frozen", "ghost", "dyt"])
def test_residuals_stay(phi: Any, to: str) -> None:
    model = moved(Residual(anynorm.BatchNorm2d(6, activation=phi)))
    x, options = torch.randn(IMAGE), {"groups": 3} if to == "group" else {}
    found = convert(model, to, x, **options).sure()
    if to == "group":
        model.norm = anynorm.GroupNorm(3, 6, activation=phi)
        model.norm.load_state_dict(found.norm.state_dict())
    if to == "dyt":
        model.norm = anynorm.DynamicTanh(6, channels_first=True, activation=phi)
        model.norm.load_state_dict(found.norm.state_dict())
    torch.testing.assert_close(found(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("to", ["anynorm", "sync", "frozen", "ghost"])
def test_fused_activations_stay(to: str) -> None:
    model, x = moved(nn.Sequential(BatchNormAct2d(6))), torch.randn(IMAGE)
    found = convert(model, to, x).sure()
    torch.testing.assert_close(found(x), model(x), rtol=1e-5, atol=1e-5)
    assert type(found[0].activation) is nn.SiLU
    names = {name for name in model.state_dict() if "num_batches" not in name}
    assert names <= set(found.state_dict())


def test_fused_layers_become_torchs_with_the_activation_behind() -> None:
    model, x = moved(nn.Sequential(BatchNormAct2d(6))), torch.randn(IMAGE)
    found = convert(model, "torch", x).sure()
    assert [type(part) for part in found[0]] == [nn.BatchNorm2d, nn.SiLU]
    assert torch.equal(found(x), model(x))


def test_frozen_batch_norms_of_others_become_ours_where_their_eps_is_known() -> None:
    model, x = moved(nn.Sequential(Frozen(6))), torch.randn(IMAGE)
    for to in ("anynorm", "batch"):
        torch.testing.assert_close(convert(model, to, x).sure()(x), model(x), rtol=1e-5, atol=1e-5)
    strange = convert(moved(nn.Sequential(Frozen(6, eps=0.1))), "anynorm")
    assert "an ε of its own" in strange.receipt.refused[0].text
    narrow = convert(model.bfloat16(), "anynorm", x.bfloat16())
    assert "rounds after each step" in narrow.receipt.refused[0].text


NAMED: dict[str, dict[str, Any]] = {
    "group": {"groups": 3},
    "layer": {},
    "layer-over-channels": {},
    "instance": {},
    "rms": {},
    "filter-response": {},
    "none": {},
    "dyt": {"alpha_init": 0.2},
    "zca": {"groups": 2},
    "l1-batch": {"constant": 1.0},
    "lp-batch": {"p": 3.0},
    "ghost": {"size": 2},
    "sync": {},
    "frozen": {},
    "batch": {},
}


@pytest.mark.parametrize("to", NAMED)
def test_names(to: str) -> None:
    norm = nn.SyncBatchNorm(6) if to == "batch" else nn.BatchNorm2d(6)
    model = moved(nn.Sequential(nn.Conv2d(6, 6, 1), norm))
    x = torch.randn(IMAGE)
    result = convert(model, to, x, **NAMED[to])
    (note,) = result.receipt.changed
    new = result.model[1]
    assert note.layer == "1"
    assert f"to {to} ({type(new).__name__})" in note.text
    if to == "none":
        assert "γ and β have no place" in note.text
    else:
        assert torch.equal(new.weight, norm.weight)
        assert torch.equal(new.bias, norm.bias)
    alike = to in ("ghost", "sync", "frozen", "batch", "l1-batch", "lp-batch")
    moved_apart = result.receipt.difference
    assert moved_apart is not None
    assert (moved_apart.relative < 1e-5) == alike
    assert ("start anew" in note.text) == (to == "zca")


def test_statistics_that_layers_did_not_have_start_anew() -> None:
    model = nn.Sequential(nn.GroupNorm(2, 6))
    result = convert(model, "batch", torch.randn(IMAGE), source="group")
    assert type(result.model[0]) is anynorm.BatchNorm2d
    assert "recalibrate" in result.receipt.changed[0].text
    assert "start anew" not in str(convert(model, "group", source="group", groups=3).receipt)


def test_group_norms_keep_their_groups() -> None:
    model = nn.Sequential(nn.GroupNorm(2, 6), nn.GroupNorm(3, 6))
    assert "group already" in str(convert(model, "group", source="group").receipt)
    other = convert(model, "group", source="group", eps=1e-3).model
    assert [(norm.num_groups, norm.eps) for norm in other] == [(2, 1e-3), (3, 1e-3)]


def test_the_number_of_axes_comes_from_the_class_or_the_example() -> None:
    for norm in (nn.SyncBatchNorm(6), anynorm.create("ghost", 6)):
        model = nn.Sequential(norm)
        assert type(convert(model, "batch").model[0]) is anynorm.Norm
        assert type(convert(model, "batch", torch.randn(4, 6)).model[0]) is anynorm.BatchNorm1d
    assert type(convert(nn.BatchNorm3d(6), "instance").model) is anynorm.InstanceNorm3d


def test_other_families_only_when_asked() -> None:
    model = nn.Sequential(nn.BatchNorm2d(6), nn.GroupNorm(2, 6))
    assert len(convert(model, "instance").receipt.changed) == 1
    assert len(convert(model, "instance", source=["batch", "group"]).receipt.changed) == 2
    assert len(convert(model, "anynorm", source="group").receipt.changed) == 1
    with pytest.raises(UnknownNameError, match='Did you mean "group"'):
        convert(model, "instance", source="groups")


def test_dynamic_tanh_in_place_of_every_family() -> None:
    norms = nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.LayerNorm(5), nn.RMSNorm(5)
    model, x = moved(nn.Sequential(*norms)), torch.randn(IMAGE)
    new = convert(model, "dyt", x, alpha_init=0.2).model
    assert [layer.channels_first for layer in new] == [True, True, False, False]
    pairs = list(zip(new, norms, strict=True))
    assert all(torch.equal(layer.weight, old.weight) for layer, old in pairs)
    assert new[3].bias is None
    y = x
    for layer, old in pairs:
        shape = (-1, 1, 1) if layer.channels_first else (-1,)
        y = old.weight.reshape(shape) * torch.tanh(0.2 * y)
        y = y if layer.bias is None else y + old.bias.reshape(shape)
    torch.testing.assert_close(new(x), y)
    assert len(convert(model, "dyt", x, source="rms").receipt.changed) == 1
    assert "several axes" in convert(nn.LayerNorm([5, 5]), "dyt").receipt.refused[0].text


@pytest.mark.parametrize("to", ["batch", "group", "rms", "layer-over-channels"])
def test_layers_over_the_last_axis(to: str) -> None:
    options = {"groups": 2} if to == "group" else {}
    model, x = moved(nn.Sequential(nn.LayerNorm(6))), torch.randn(4, 5, 6)
    new = convert(model, to, x, source="layer", **options).model
    expected = anynorm.create(to, 6, bias=True, **options)
    expected.load_state_dict({**expected.state_dict(), **model[0].state_dict()})
    rows = expected.eval()(x.reshape(20, 6)).reshape(4, 5, 6)
    torch.testing.assert_close(new(x), rows)


def test_layers_that_have_no_such_form_are_refused() -> None:
    x = torch.randn(4, 5, 6)
    model = nn.Sequential(nn.LayerNorm(6), nn.LayerNorm([5, 6]))
    receipt = convert(model, "instance", x, source="layer").receipt
    assert [note.text for note in receipt.refused] == [
        "its input has one value for each channel and sample, and instance needs more",
        "it normalizes over several axes, (5, 6)",
    ]
    flat = convert(nn.BatchNorm1d(6), "filter-response", torch.randn(4, 6)).receipt
    assert "needs more" in flat.refused[0].text
    unkept = convert(nn.BatchNorm1d(6, track_running_stats=False), "frozen").receipt
    assert "keeps no statistics of batches" in unkept.refused[0].text
    sample = convert(nn.BatchNorm1d(6), "batch-per-activation").receipt
    assert "the shape of a sample" in sample.refused[0].text


def test_subclasses_are_refused_by_name() -> None:
    class Scaled(nn.BatchNorm2d):
        pass

    for to in ("anynorm", "torch", "group"):
        options = {"groups": 1} if to == "group" else {}
        (note,) = convert(nn.Sequential(Scaled(6)), to, **options).receipt.refused
        assert note.text == "a Scaled is a subclass of BatchNorm2d and may do more"


def test_groups_that_do_not_divide() -> None:
    model = nn.Sequential(nn.BatchNorm2d(12), nn.BatchNorm2d(18), nn.BatchNorm2d(8))
    with pytest.raises(AnynormError) as error:
        convert(model, "group", groups=4)
    assert "4 groups do not divide the channels of 1 layers: '1' (18)" in str(error.value)
    assert "Possible for all 3 layers: groups=1, 2." in str(error.value)
    assert type(model[0]) is nn.BatchNorm2d
    with pytest.raises(AnynormError, match="positive whole number"):
        convert(model, "group", groups=0)


@pytest.mark.parametrize(
    ("to", "options", "told"),
    [
        ("bacth", {}, 'Did you mean "batch"'),
        ("weight", {}, "no target named 'weight'"),
        ("group", {"group": 2}, 'Did you mean "groups"'),
        ("dyt", {"alpha": 0.2}, 'Did you mean "alpha_init"'),
        ("torch", {"groups": 2}, "no option of 'torch' named 'groups'"),
        ("frozen", {"eps": 2.0}, "no option of 'frozen' named 'eps'"),
    ],
)
def test_unknown_names(to: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownNameError, match=told):
        convert(nn.BatchNorm2d(6), to, **options)


def test_what_stays_in_place() -> None:
    seen: list[str] = []
    norm = moved(nn.BatchNorm2d(6)).to(torch.bfloat16)
    norm.weight.requires_grad_(False)
    norm.register_forward_pre_hook(lambda *_: seen.append("before"))
    model = nn.Sequential(norm, nn.ReLU(), norm)
    model[1].train()
    new = convert(model, "group", groups=3, inplace=True).model
    assert new is model
    assert new[0] is new[2]
    assert new[0].weight is norm.weight
    assert not new[0].weight.requires_grad
    assert not new[0].training
    new(torch.randn(IMAGE).bfloat16())
    assert seen == ["before", "before"]


def test_options_of_one_eps() -> None:
    norm = nn.BatchNorm2d(6, eps=1e-3, momentum=0.2)
    sync = convert(norm, "sync").model
    assert (sync.eps, sync.momentum) == (1e-3, 0.2)
    assert convert(norm, "filter-response").model.eps == 1e-6
    assert convert(norm, "layer", eps=1e-2).model.eps == 1e-2
    assert convert(norm, "ghost", momentum=0.5).model.momentum == 0.5


def test_a_conversion_that_changes_the_outputs_is_undone() -> None:
    model, x = moved(nn.Sequential(nn.BatchNorm2d(6))), torch.randn(IMAGE)
    result = convert(model, "group", x, groups=2, tolerance=1e-3, inplace=True)
    assert result.receipt.rolled_back
    assert type(model[0]) is nn.BatchNorm2d


def test_transformer_layers_use_the_new_normalizers_in_eval_mode() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 5, 8)
    for to in ("anynorm", "rms"):
        new = convert(model, to, x, source="layer").model
        with torch.no_grad():
            fast = new(x)
        torch.testing.assert_close(fast, new(x.requires_grad_()), rtol=1e-4, atol=1e-5)


def test_synchronised_layers_keep_what_they_had() -> None:
    model = nn.Sequential(nn.BatchNorm2d(6), anynorm.BatchNorm2d(6, activation="silu"))
    found = convert(model, "sync", process_group=4).model
    assert [type(layer) for layer in found] == [anynorm.SyncBatchNorm] * 2
    assert [layer.sync for layer in found] == [4, 4]
    assert found[1].activation == "silu"
    assert not convert(found, "sync").receipt.changed
    assert type(convert(found, "batch", torch.randn(IMAGE)).model[0]) is anynorm.BatchNorm2d
    ours = convert(nn.Sequential(nn.SyncBatchNorm(6)), "sync").model
    assert type(ours[0]) is anynorm.SyncBatchNorm


def test_what_is_synchronised_stays_so_as_torchs() -> None:
    synced = nn.Sequential(anynorm.BatchNorm2d(6, sync=True), anynorm.create("batch", 6, sync=True))
    found = convert(synced, "torch", torch.randn(IMAGE)).model
    assert [type(layer) for layer in found] == [nn.SyncBatchNorm] * 2
    refused = convert(nn.Sequential(anynorm.BatchNorm2d(6, sync=2)), "torch").receipt.refused
    assert "process group, not a number of ranks" in refused[0].text


@pytest.mark.parametrize(
    ("norm", "shape", "kind"),
    [
        (anynorm.Norm("[n] c [h w]", 4), (2, 4, 3, 3), nn.BatchNorm2d),
        (anynorm.Norm("n c [l]", 4), (2, 4, 5), nn.InstanceNorm1d),
        (anynorm.Norm("n (g [c]) [h w]", 4, g=2), (2, 4, 3, 3), nn.GroupNorm),
        (anynorm.Norm("n [c]", 4), (3, 4), nn.GroupNorm),  # of one group, which is the same
    ],
    ids=str,
)
def test_patterns_are_converted_by_what_they_compute(
    norm: nn.Module, shape: tuple[int, ...], kind: type[nn.Module]
) -> None:
    x, model = torch.randn(shape), lived(nn.Sequential(norm))
    result = convert(model, "torch", x)
    assert type(result.model[0]) is kind
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-5, atol=1e-5)


def test_patterns_that_compute_something_else_are_refused() -> None:
    for norm in (
        anynorm.create("lp-batch", 4, p=3.0),
        anynorm.Norm("[n] c h w", 4),
        anynorm.Norm("[n] c [h w]", 4, center=False, scale="rms"),
    ):
        result = convert(nn.Sequential(norm).eval(), "torch", torch.randn(2, 4, 3, 3))
        [refused] = result.receipt.refused
        assert "torch.nn has no layer" in refused.text
