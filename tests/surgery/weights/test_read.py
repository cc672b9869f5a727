"""State dicts from files, of which nothing is ever run."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

from anynorm.errors import AnynormError
from anynorm.surgery.weights import load_state


class Trap(nn.Module):
    """A module whose unpickling leaves a trace."""

    ran: ClassVar[list[str]] = []

    def __reduce__(self) -> Any:
        return _spring, ("the trap",)


def _spring(word: str) -> Trap:
    Trap.ran.append(word)
    return Trap()


def saved(value: Any, folder: Path, **options: Any) -> Path:
    torch.save(value, folder / "a.pt", **options)
    return folder / "a.pt"


def test_a_plain_state_dict(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = load_state(saved(model.state_dict(), tmp_path))
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[name], one) for name, one in model.state_dict().items())


@pytest.mark.parametrize("nest", ["state_dict", "model", "model_state_dict", "net"])
def test_the_state_dict_is_found_in_a_checkpoint(nest: str, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    held = {"epoch": 3, "loss": torch.tensor(0.5), "optimizer": optimizer.state_dict()}
    state = load_state(saved({**held, nest: model.state_dict()}, tmp_path))
    assert list(state) == ["weight", "bias"]


def test_a_state_dict_may_lie_two_levels_deep(tmp_path: Path) -> None:
    held = {"model": {"state_dict": nn.Linear(3, 2).state_dict()}}
    assert list(load_state(saved(held, tmp_path))) == ["weight", "bias"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, AveragedModel])
def test_names_are_those_of_the_model_itself(wrap: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    assert list(wrap(model).state_dict()) != list(model.state_dict())
    assert list(load_state(saved(wrap(model).state_dict(), tmp_path))) == list(model.state_dict())


def test_older_files_of_torch_are_read(tmp_path: Path) -> None:
    file = saved(nn.Linear(3, 2).state_dict(), tmp_path, _use_new_zipfile_serialization=False)
    assert list(load_state(file)) == ["weight", "bias"]


def test_aliases_of_a_safetensors_file_are_one_tensor(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_model(model, str(tmp_path / "a.safetensors"), metadata={"format": "pt"})
    state = load_state(tmp_path / "a.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert state["0.weight"] is state["1.weight"]


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("held", [Trap(), {"model": Trap()}, [Trap()]])
def test_no_code_of_a_pickled_module_runs(held: Any, options: Any, tmp_path: Path) -> None:
    file = saved(held, tmp_path, **options)
    Trap.ran.clear()
    with pytest.raises(AnynormError) as caught:
        load_state(file)
    assert Trap.ran == []
    assert "_spring, and to load that would run code from the file" in str(caught.value)
    assert "torch.save(model.state_dict(), 'weights.pt')" in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice how to run it all the same
    assert caught.value.__cause__ is None
    torch.load(file, weights_only=False)
    assert Trap.ran == ["the trap"]  # so the file would have run it


def test_a_module_of_torch_is_refused_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match=r"the file holds torch.nn.modules.linear.Linear"):
        load_state(saved(nn.Linear(3, 2), tmp_path))


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"weight": np.zeros(3)}))
    with pytest.raises(AnynormError, match="no checkpoint of torch, or hold what would have to be"):
        load_state(tmp_path / "a.pkl")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_program_is_refused(tmp_path: Path) -> None:
    program = torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3))
    program.save(str(tmp_path / "a.pt"))
    with pytest.raises(AnynormError, match="are a TorchScript program"):
        load_state(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({}, "have nothing, not a state dict"),
        ([torch.zeros(2)], "have a list, not a state dict"),
        ({0: torch.zeros(2)}, "0 in it are not named tensors"),
        ({"weight": torch.zeros(2), "epoch": 3}, "'epoch' in it are not named tensors"),
        ({"generator": OrderedDict(a=3)}, "'generator' in it are not named tensors"),
    ],
)
def test_what_is_no_state_dict(held: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match=words):
        load_state(saved(held, tmp_path))


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 8, 100, -20])
def test_files_that_are_cut_off(ending: str, keep: int, tmp_path: Path) -> None:
    file = tmp_path / f"a{ending}"
    if ending == ".pt":
        torch.save(nn.Linear(3, 2).state_dict(), file)
    else:
        save_model(nn.Linear(3, 2), str(file))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(AnynormError, match=rf"'{file}' (cannot be read|are no checkpoint)"):
        load_state(file)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_files_of_another_format(ending: str, tmp_path: Path) -> None:
    (tmp_path / f"a{ending}").write_text("name,value\n" * 20)
    with pytest.raises(AnynormError):
        load_state(tmp_path / f"a{ending}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match="this file does not exist"):
        load_state(tmp_path / "a.pt")
    with pytest.raises(AnynormError, match="this file is a folder"):
        load_state(tmp_path)


STATE = {"weight": torch.ones(2)}
AVERAGED = {"weight": torch.zeros(2)}


def test_what_else_a_checkpoint_holds_is_said_and_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    torch.save({"state_dict": STATE, "state_dict_ema": AVERAGED, "epoch": 3}, file)
    with pytest.warns(UserWarning, match=r"'state_dict' is read.*'state_dict_ema'.*--weights-key"):
        assert torch.equal(load_state(file)["weight"], STATE["weight"])
    assert torch.equal(load_state(file, key="state_dict_ema")["weight"], AVERAGED["weight"])
    with pytest.raises(AnynormError, match=r"have no state dict 'ema'.*'state_dict_ema'"):
        load_state(file, key="ema")


def test_the_only_state_dict_is_read_whatever_its_name(tmp_path: Path) -> None:
    torch.save({"ema_state_dict": AVERAGED, "epoch": 3}, tmp_path / "a.pt")
    assert torch.equal(load_state(tmp_path / "a.pt")["weight"], AVERAGED["weight"])
    torch.save({"ema": AVERAGED, "raw": STATE}, tmp_path / "b.pt")
    with pytest.raises(AnynormError, match=r"several state dicts: 'ema', 'raw'.*key='ema'"):
        load_state(tmp_path / "b.pt")


def test_a_checkpoint_that_contains_itself(tmp_path: Path) -> None:
    held: dict[str, Any] = {}
    held["state_dict"] = held
    torch.save(held, tmp_path / "a.pt")
    with pytest.raises(AnynormError, match="more than 8 levels"):
        load_state(tmp_path / "a.pt")


def test_tensors_without_values(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, device="meta")}, tmp_path / "a.pt")
    with pytest.raises(AnynormError, match="no values for 'weight'"):
        load_state(tmp_path / "a.pt")


def compressed(state: Any, folder: Path, fill: bytes = b"") -> Path:
    """A checkpoint that is packed tightly, its pickle begun with what does nothing."""
    plain, packed = saved(state, folder), folder / "packed.pt"
    with ZipFile(plain) as old, ZipFile(packed, "w", ZIP_DEFLATED, compresslevel=9) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content[:2] + fill + content[2:]
            new.writestr(entry.filename, content)
    return packed


def test_small_files_that_unpack_to_much_are_not_read(tmp_path: Path) -> None:
    """These instructions do nothing but take time: two seconds for each megabyte."""
    file = compressed({"weight": torch.ones(2)}, tmp_path, b"}" * 4_000_000)
    assert file.stat().st_size < 10_000
    with pytest.raises(
        AnynormError, match=r"unpack to 40\d+ bytes; at most 262144.*--unpacked 40\d+"
    ):
        load_state(file)
    with pytest.raises(AnynormError, match="at most 1000 are allowed"):
        load_state(file, unpacked=1000)
    few = compressed({"weight": torch.ones(2)}, tmp_path, b"}" * 1000)
    torch.testing.assert_close(load_state(few), {"weight": torch.ones(2)})


def test_compressed_weights_are_read_within_the_bound(tmp_path: Path) -> None:
    state = {"weight": torch.randn(300, 300)}
    torch.testing.assert_close(load_state(compressed(state, tmp_path)), state)
    zeros = {"weight": torch.zeros(300, 300)}  # which are packed to a thousandth
    file = compressed(zeros, tmp_path)
    with pytest.raises(AnynormError, match="allow it with unpacked=") as error:
        load_state(file)
    most = int(str(error.value).split("unpacked=")[1].split()[0])
    torch.testing.assert_close(load_state(file, unpacked=most), zeros)
