"""Weights are compared with the settings of the normalizers that they were trained with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.surgery import Manifest, load_into, save_state
from anynorm.surgery.weights.manifest import KEY


def net(**settings: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, **settings),  # type: ignore[arg-type]
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4, **settings),  # type: ignore[arg-type]
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def refused(model: nn.Module, file: Path) -> str:
    """The error of weights that are not loaded, which leaves the model as it is."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(AnynormError) as error:
        load_into(model, file)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return str(error.value)


def test_an_epsilon_that_was_lost_is_an_error_that_says_how_to_set_it(file: Path) -> None:
    """LibreYOLO#700: trained with ε = 1e-5, reloaded with 1e-3; the mAP fell from .55 to .36."""
    trained, model = net(), net(eps=1e-3)
    save_state(trained, file)
    said = refused(model, file)
    assert "ε is 0.001 and was recorded as 1e-05 ('1', '3')" in said
    assert "anynorm.surgery.Manifest.read(path).restore(model)" in said
    assert "manifest=False (--ignore-manifest)" in said
    load_into(model, file, manifest=False)
    assert torch.equal(model[0].weight, trained[0].weight)
    model = net(eps=1e-3)
    assert Manifest.read(file).restore(model) == ()
    load_into(model, file)


def test_normalizers_that_compute_something_else(file: Path) -> None:
    for one, other, words in (
        (nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), "'n (g [c]) [...]' with g=2 and was recorded as"),
        (
            nn.InstanceNorm2d(8, affine=True),
            nn.BatchNorm2d(8, track_running_stats=False),
            "the pattern is 'n c [...]' and was recorded as '[n] c [...]'",
        ),
        (
            nn.RMSNorm(8, eps=1e-6),
            anynorm.create("gemma-rms", 8),
            "γ is w and was recorded as 1 + w",
        ),
    ):
        save_state(nn.Sequential(other), file)
        assert words in refused(nn.Sequential(one), file)
        assert "('0')" in refused(nn.Sequential(one), file)


def test_what_matters_only_in_training_is_a_warning(file: Path) -> None:
    save_state(net(), file)
    words = r"momentum is 0.9 \(1 − m, the other convention\) and was recorded as 0.1 \('1', '3'\)"
    with pytest.warns(UserWarning, match=words):
        load_into(net(momentum=0.9), file)
    load_into(net(momentum=0.9), file, manifest=False)
    save_state(anynorm.freeze(net()).model, file)
    with pytest.warns(
        UserWarning, match="kind of statistics is running and was recorded as constant"
    ):
        load_into(net(), file)


def test_modes_counts_and_classes_say_nothing(file: Path) -> None:
    trained = anynorm.convert(net(), "anynorm").model.eval()
    trained[1].num_batches_tracked += 7
    save_state(trained, file)
    load_into(net(), file)
    load_into(nn.DataParallel(net()), file)
    save_state(nn.DataParallel(net()), file)
    load_into(net(), file)


def test_files_without_a_manifest_and_a_manifest_beside_a_checkpoint(tmp_path: Path) -> None:
    trained = net(eps=1e-3)
    torch.save(trained.state_dict(), tmp_path / "a.pt")
    load_into(net(), tmp_path / "a.pt")
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    load_into(net(), tmp_path / "a.safetensors")
    with pytest.raises(AnynormError, match=r"ε is 1e-05 and was recorded as 0.001"):
        load_into(net(), tmp_path / "a.pt", manifest=anynorm.manifest(trained))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", json.dumps({"format": "anynorm-manifest-2"}), "[" * 100_000, "0.weight"],
)
def test_a_manifest_that_cannot_be_read_is_a_warning(text: str, file: Path) -> None:
    trained, model = net(), net()
    save_file(trained.state_dict(), file, metadata={"format": "pt", KEY: text})
    with pytest.warns(UserWarning, match="So the normalizers are not compared with it"):
        load_into(model, file)
    assert torch.equal(model[0].weight, trained[0].weight)


def test_norms_of_other_libraries_are_compared_on_an_example(file: Path) -> None:
    class Foreign(nn.Module):
        def __init__(self, eps: float) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), eps

        def forward(self, x: Tensor) -> Tensor:
            scale = (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()
            return self.weight * (x * scale)

    trained, model, x = nn.Sequential(Foreign(1e-5)), nn.Sequential(Foreign(1e-6)), torch.ones(2, 8)
    save_state(trained, file, manifest=anynorm.manifest(trained, x))
    load_into(model, file)
    with pytest.raises(AnynormError, match="ε is 1e-06 and was recorded as 1e-05"):
        load_into(model, file, example=x)
    load_into(model, file, example=[x], forward=lambda net, batch: net[0](batch[0]), manifest=False)


def test_names_in_a_manifest_are_shown_with_every_invisible_character_written_out(
    file: Path,
) -> None:
    about = anynorm.manifest(nn.LayerNorm(8)).to_dict()
    about["layers"]["\x1b[31mred"] = about["layers"][""]
    state = nn.LayerNorm(8).state_dict()
    save_file(state, file, metadata={KEY: json.dumps(about)})
    said = refused(nn.LayerNorm(8), file)
    assert r"\x1b[31mred" in said
    assert "\x1b" not in said
