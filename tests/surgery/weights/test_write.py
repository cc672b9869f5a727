"""Weights written as safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_model
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.surgery.weights import load_state, manifest, save_state
from anynorm.surgery.weights.manifest import KEY


class Views(nn.Module):
    """Weights that share memory in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.arange(9.0).view(3, 3))
        self.same = self.a
        self.turned = nn.Parameter(self.a.detach().T)
        self.flat = nn.Parameter(self.a.detach().view(-1))
        self.part = nn.Parameter(self.a.detach()[1:])
        self.empty = nn.Parameter(torch.zeros(0))
        self.images = nn.Parameter(torch.rand(2, 3, 2, 2).to(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_weights_that_share_memory(tmp_path: Path) -> None:
    model = Views()
    save_state(model, tmp_path / "a.safetensors")
    state = load_state(tmp_path / "a.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert "same" not in file.keys()  # noqa: SIM118
        assert file.metadata() == {"format": "pt", "same": "a", KEY: manifest(model).text()}


def test_the_library_itself_reads_them(tmp_path: Path) -> None:
    one, other = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.LayerNorm(3)) for _ in "ab")
    for both in (one, other):
        both[1].weight = both[0].weight
    save_state(one, tmp_path / "a.safetensors")
    assert load_model(other, tmp_path / "a.safetensors") == (set(), [])
    assert torch.equal(one[1].weight, other[1].weight)


def test_the_manifest_is_no_name_of_a_weight(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    save_state(model, tmp_path / "a.safetensors")
    assert load_state(tmp_path / "a.safetensors").keys() == model.state_dict().keys()


def test_folders_are_made_and_nothing_is_left_beside(tmp_path: Path) -> None:
    save_state(nn.Linear(1, 1), tmp_path / "new" / "er" / "a.safetensors")
    assert [file.name for file in (tmp_path / "new" / "er").iterdir()] == ["a.safetensors"]


def test_others_may_read_the_file_as_any_other(tmp_path: Path) -> None:
    save_state(nn.Linear(1, 1), tmp_path / "a.safetensors")
    (tmp_path / "plain").write_text("")
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("name", ["a.pt", "a", "a.safetensors.bin"])
def test_other_endings(name: str, tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match=r"name the file '.*a\.?s?a?f?e?t?.*\.safetensors'"):
        save_state(nn.Linear(1, 1), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_text("before")
    sparse = nn.Module()
    sparse.register_buffer("eye", torch.eye(2).to_sparse())
    for model in (sparse, nn.Linear(2, 2, device="meta")):
        with pytest.raises(AnynormError, match="cannot be written"):
            save_state(model, file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnynormError, match="cannot be written"):
        save_state(nn.Linear(1, 1), tmp_path / "file" / "a.safetensors")
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(AnynormError, match="cannot be written"):
        save_state(nn.Linear(1, 1), tmp_path / "a.safetensors")


def test_state_that_is_no_tensor(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"scale": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    with pytest.raises(AnynormError, match="'_extra_state' of the model are not tensors"):
        save_state(Extra(1, 1), tmp_path / "a.safetensors")
