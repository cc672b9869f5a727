"""Weights that fit a model, and those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery.weights import load_into, save_state


def model(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def tied() -> nn.Sequential:
    both = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    both[1].weight = both[0].weight
    return both


def written(state: Any, folder: Path) -> Path:
    torch.save(state, folder / "a.pt")
    return folder / "a.pt"


def refusal(one: nn.Module, file: Path) -> str:
    """What is said of a file that does not fit; the model stays as it was."""
    before = {name: value.clone() for name, value in one.state_dict().items()}
    with pytest.raises(AnynormError) as caught:
        load_into(one, file)
    assert all(torch.equal(before[name], value) for name, value in one.state_dict().items())
    return str(caught.value)


def test_values_arrive(tmp_path: Path) -> None:
    one, other = model(), model()
    save_state(one, tmp_path / "a.safetensors")
    load_into(other, tmp_path / "a.safetensors")
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_ties_stay_ties(tmp_path: Path) -> None:
    one, other = tied(), tied()
    save_state(one, tmp_path / "a.safetensors")
    load_into(other, tmp_path / "a.safetensors")
    assert other[0].weight is other[1].weight
    assert torch.equal(other[1].weight, one[0].weight)


def test_one_name_of_a_tied_weight_is_enough(tmp_path: Path) -> None:
    state = tied().state_dict()
    del state["0.weight"]
    other = tied()
    load_into(other, written(state, tmp_path))
    assert torch.equal(other[0].weight, state["1.weight"])


def test_tied_weights_that_differ_in_the_file(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    said = refusal(tied(), written(state, tmp_path))
    assert "'0.weight' and '1.weight' are one in the model and differ in the file" in said


def test_wrapped_models_take_plain_files_and_the_other_way_round(tmp_path: Path) -> None:
    plain, wrapped = model(), nn.DataParallel(model())
    save_state(plain, tmp_path / "a.safetensors")
    load_into(wrapped, tmp_path / "a.safetensors")
    assert torch.equal(wrapped.module[0].weight, plain[0].weight)
    save_state(wrapped, tmp_path / "b.safetensors")
    load_into(model(), tmp_path / "b.safetensors")


def test_counts_of_batches_may_lack_or_be_left_over(tmp_path: Path) -> None:
    state = {k: v for k, v in model().state_dict().items() if not k.endswith("tracked")}
    load_into(model(), written(state, tmp_path))
    frozen = nn.Sequential(nn.Linear(3, 4), anynorm.FrozenBatchNorm(4), nn.Linear(4, 2))
    load_into(frozen, written(model().state_dict(), tmp_path))


def test_lazy_layers_take_their_shape_from_the_file(tmp_path: Path) -> None:
    lazy = nn.LazyLinear(2)
    load_into(lazy, written(nn.Linear(3, 2).state_dict(), tmp_path))
    assert lazy.weight.shape == (2, 3)


def test_names_that_do_not_fit_are_listed_on_both_sides(tmp_path: Path) -> None:
    state = model().state_dict()
    state["head.weight"] = state.pop("2.weight")
    said = refusal(model(), written(state, tmp_path))
    assert "do not fit Sequential. The file lacks 1: '2.weight'." in said
    assert "The model has no 'head.weight' (1)." in said


def test_long_lists_are_cut_short(tmp_path: Path) -> None:
    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(50)))
    said = refusal(deep, written({"a": torch.zeros(1)}, tmp_path))
    assert "The file lacks 100: '0.weight', '0.bias', '1.weight'" in said
    assert "and 94 more" in said
    assert len(said) < 500


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    said = refusal(model(4), written(model(5).state_dict(), tmp_path))
    words = "'0.weight' is float32 (4, 3) in the model and float32 (5, 3) in the file."
    assert words in said
    assert "So differ 3 more." in said
    assert "pruned" not in said


def test_a_file_of_a_pruned_model(tmp_path: Path) -> None:
    said = refusal(model(4), written(model(3).state_dict(), tmp_path))
    assert "which fits once its plan has cut yours" in said


def test_numbers_of_another_kind(tmp_path: Path) -> None:
    state = model().state_dict()
    state["0.weight"] = state["0.weight"].to(torch.int8)
    said = refusal(model(), written(state, tmp_path))
    assert "'0.weight' is float32 (4, 3) in the model and int8 (4, 3) in the file." in said


def test_another_precision_is_converted(tmp_path: Path) -> None:
    one, half = model(), model().to(torch.bfloat16)
    load_into(one, written(half.state_dict(), tmp_path))
    assert one[0].weight.dtype == torch.float32
    assert torch.equal(one[0].weight, half[0].weight.float())


def test_a_file_of_a_larger_model(tmp_path: Path) -> None:
    larger = nn.ModuleDict({"backbone": model(), "head": nn.Linear(2, 2)})
    said = refusal(model(), written(larger.state_dict(), tmp_path))
    assert "Without 'backbone.' the file's names fit: it holds a larger model" in said


def test_a_file_of_a_part_of_the_model(tmp_path: Path) -> None:
    larger = nn.ModuleDict({"backbone": model(), "head": nn.Linear(2, 2)})
    said = refusal(larger, written(model().state_dict(), tmp_path))
    assert "With 'backbone.' before them the file's names fit: it holds a part" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in model().state_dict().items()}
    state["2.bias"][0] = value
    file = written(state, tmp_path)
    assert "have NaN or infinite values in 1: '2.bias'." in refusal(model(), file)
    one = model()
    load_into(one, file, finite=False)
    assert not one[2].bias.isfinite().all()


def test_eight_bit_numbers_are_checked_too(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn)
    save_file({"weight": weight, "bias": torch.zeros(2)}, tmp_path / "a.safetensors")
    said = refusal(nn.LayerNorm(2), tmp_path / "a.safetensors")
    assert "infinite values in 1: 'weight'" in said


def test_names_are_shown_with_every_invisible_character_written_out(tmp_path: Path) -> None:
    state = {"\x1b[31mred[bold]": torch.zeros(1)}
    said = refusal(nn.Linear(1, 1), written(state, tmp_path))
    assert r"\x1b[31mred[bold]" in said
    assert "\x1b" not in said
