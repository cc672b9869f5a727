"""A plan is checked whole before anything is cut, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Plan


def written(folder: Path, cuts: Any, biases: Any = ()) -> Path:
    Plan(cuts, {}, tuple(biases)).write(file := folder / "plan.json")
    return file


@pytest.mark.parametrize(
    ("cuts", "words"),
    [
        ({"weight": {"0": [99]}}, "index 99 is not among its 3"),
        ({"weight": {"0": [-1]}}, "index -1 is not among its 3"),
        ({"weight": {"7": [0]}}, r"its shape is \(3, 2\)"),
        ({"weight": {"-1": [0]}}, r"its shape is \(3, 2\)"),
        ({"forward": {"0": [0]}}, "has nothing of that name"),
        ({"weight": {"0": [0, 1, 2]}}, "nothing would be left"),
        ({"weight": {"0": [0]}, "bias": {"0": [99]}}, "cuts 'bias'.*index 99"),
    ],
)
def test_cuts_that_do_not_fit(cuts: Any, words: str, tmp_path: Path) -> None:
    plan, layer = Plan.read(written(tmp_path, cuts)), nn.Linear(2, 3)
    with pytest.raises(AnynormError, match=words):
        plan.apply(layer, inplace=True)
    with pytest.raises(AnynormError, match=words):
        plan.apply_to_state(layer.state_dict())
    assert (layer.weight.shape, layer.bias.shape) == ((3, 2), (3,))


@pytest.mark.parametrize("name", ["nothing", "1", ""])
def test_biases_of_layers_that_cannot_have_one(name: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(AnynormError, match="no such linear layer or convolution"):
        Plan.read(written(tmp_path, {}, [name])).apply(model, inplace=True)


def test_the_bias_that_a_layer_gets_may_be_cut(tmp_path: Path) -> None:
    cuts = {"0.weight": {"0": [1]}, "0.bias": {"0": [1]}}
    plan = Plan.read(written(tmp_path, cuts, ["0"]))
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    assert plan.apply(model)[0].bias.shape == (2,)
    assert plan.apply_to_state(model.state_dict())["0.weight"].shape == (2, 2)
    cuts["0.bias"] = {"0": [3]}
    with pytest.raises(AnynormError, match="index 3 is not among its 3"):
        Plan.read(written(tmp_path, cuts, ["0"])).apply(model)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": "anynorm-plan-3", "cuts": {"w": {"0": [1e999]}}, "shapes": {}, "biases": []}',
        '{"format": "anynorm-plan-2", "cuts": {}, "shapes": {}, "biases": []}',
        "[" * 100_000,
        "[]",
        "",
    ],
    ids=["infinite", "old", "nested", "list", "empty"],
)
def test_files_that_are_no_plans(text: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(AnynormError, match="is not a plan of pruning"):
        Plan.read(file)


@pytest.mark.parametrize(
    "numbers",
    [{"": {"padding": 1}}, {"": {"groups": 0}}, {"": {"groups": 2}}, {"0": {"groups": 1}}],
    ids=["no number", "nothing left", "more", "no module"],
)
def test_numbers_of_which_a_module_has_no_larger_one(numbers: dict[str, dict[str, int]]) -> None:
    conv = nn.Conv2d(3, 4, 1)
    with pytest.raises(AnynormError, match="uncut model for which it was made"):
        Plan({"weight": {0: (1,)}, "bias": {0: (1,)}}, {}, (), numbers).apply(conv, inplace=True)
    assert conv.weight.shape[0] == 4


def test_what_is_cut_is_what_is_said() -> None:
    layer = nn.Linear(2, 3)
    found = Plan({"weight": {0: (1,)}, "bias": {0: (1,)}}, {}).apply(layer)
    assert torch.equal(found.weight, layer.weight[[0, 2]])  # type: ignore[arg-type]


def test_files_that_do_not_end_are_not_read(tmp_path: Path) -> None:
    endless = Path("/dev/zero")
    with pytest.raises(AnynormError, match="is larger than the limit of 1000 bytes"):
        Plan.read(endless, most=1000)
    plan = tmp_path / "plan.json"
    Plan({}, {}).write(plan)
    assert Plan.read(plan, most=plan.stat().st_size) == Plan({}, {})
    with pytest.raises(AnynormError, match=r"larger than the limit of \d+ bytes"):
        Plan.read(plan, most=plan.stat().st_size - 1)


def net() -> nn.Sequential:
    """Layers of each kind that prune cuts."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.ConvTranspose2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * 9 * 9, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)),
    )
    with torch.no_grad():
        for at in (1, 4, 8):
            net[at].weight[:] = torch.rand(len(net[at].weight)) * 0.01
            net[at].weight[0] = 1.0
    return net.eval()


def test_a_plan_that_lacks_one_tensor_of_a_layer() -> None:
    torch.manual_seed(0)
    model, fresh = net(), net()
    plan = anynorm.prune(model, torch.randn(2, 3, 9, 9), ratio=0.4).plan
    cut = [name for name, axes in plan.cuts.items() if set(axes) != {1} or name == "3.weight"]
    assert len(cut) >= 14, "the plan cuts convolutions, a linear layer and norms"
    for name in cut:
        cuts = {other: axes for other, axes in plan.cuts.items() if other != name}
        before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
        with pytest.raises(AnynormError, match=rf"of layer '{name.split('.')[0]}', but not from"):
            Plan(cuts, {}).apply(fresh, inplace=True)
        after = fresh.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert Plan(plan.cuts, {}).apply(fresh)(torch.randn(2, 3, 9, 9)).shape == (2, 2)


def test_a_plan_file_that_was_changed(tmp_path: Path) -> None:
    file = written(tmp_path, {"weight": {0: (1,)}, "bias": {0: (1,)}})
    plain = json.loads(file.read_text())
    for change in (
        {"cuts": {"weight": {"0": [1]}}},
        {"cuts": {"weight": {"0": [2]}, "bias": {"0": [2]}}},
        {"shapes": {"weight": [3, 2]}},
        {"biases": [""]},
        {"sha256": ""},
    ):
        file.write_text(json.dumps({**plain, **change}))
        with pytest.raises(AnynormError, match="it was changed after it was written"):
            Plan.read(file)
