"""The audit of exported programs, which are read without unpickling."""

import contextlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from programs import numbers, settled
from torch import nn

import anynorm
from anynorm import AnynormError
from anynorm.surgery import save_state

X = torch.randn(2, 3, 6, 6)
# torch warns of its own code when it decomposes a program.
DECOMPOSING = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


class Llama(nn.Module):
    """RMS norm as language models write it; γ is 1 + w."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), 0.5))

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return ((1 + self.weight) * wide).to(x.dtype)


def net():
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.GroupNorm(2, 8),
            nn.InstanceNorm2d(8, affine=True),
            nn.Flatten(),
            nn.Linear(128, 4),
            nn.BatchNorm1d(4),
            nn.LayerNorm(4),
            nn.RMSNorm(4),
            Llama(4),
        )
    )


@pytest.fixture(scope="module")
def program():
    return torch.export.export(net(), (X,))


@pytest.fixture
def path(program, tmp_path):
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def families(audit):
    return audit.facts["families"]


def test_every_normalizer_is_found(program):
    found = anynorm.audit(program)
    assert families(found) == {"batch": 2, "group": 1, "instance": 1, "layer": 1, "rms": 2}
    assert found.examined == ("1", "3", "4", "7", "8", "9", "10")
    assert numbers(found) == {102}
    assert {one.layer for one in found.findings if one.check == 102} == {"1", "7"}


@DECOMPOSING
def test_decomposed_programs_have_the_same_normalizers(program):
    core = program.run_decompositions()
    found = anynorm.audit(core)
    assert families(found) == {"batch": 2, "group": 1, "instance": 1, "layer": 1, "rms": 2}
    assert numbers(found) == {102}
    assert {one.layer for one in found.findings if one.check == 102} == {"1", "7"}


def test_a_file_reads_as_the_program_in_memory(program, path):
    assert str(anynorm.audit(path)).splitlines()[1:] == str(anynorm.audit(program)).splitlines()[1:]


@DECOMPOSING
def test_train_mode_is_an_error():
    found = anynorm.audit(torch.export.export(net().train(), (X,)))
    assert {one.layer for one in found.findings if one.check == 101} == {"1", "7"}
    decomposed = torch.export.export(net().train(), (X,)).run_decompositions({})
    assert 101 in numbers(anynorm.audit(decomposed))


def test_a_batch_norm_without_running_statistics_depends_on_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    [one] = [f for f in anynorm.audit(torch.export.export(model, (X,))).findings if f.check == 101]
    assert "no running statistics" in one.message


def test_a_folded_program_is_healthy(program):
    found = anynorm.audit(torch.export.export(anynorm.fold(net(), X).model, (X,)))
    assert found.status == 0
    assert "batch" not in families(found)


def test_new_statistics_are_an_error():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval()
    assert 4 in numbers(anynorm.audit(torch.export.export(model, (X,))), "error")


def test_quantization_aware_training_leaves_a_batch_norm_behind_a_linear_layer(tmp_path):
    class Trained(nn.Module):
        """A linear layer and its batch norm, as quantization-aware training writes them."""

        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(3, 4), settled(nn.BatchNorm1d(4))

        def forward(self, x):
            rounded = torch.fake_quantize_per_tensor_affine(self.layer.weight, 0.01, 0, -128, 127)
            y = nn.functional.linear(x, rounded, self.layer.bias)
            return self.norm(torch.fake_quantize_per_tensor_affine(y, 0.1, 0, -128, 127))

    model = Trained().eval()
    save_state(model, tmp_path / "net.safetensors")
    program = torch.export.export(model, (torch.randn(2, 3),))
    [one] = anynorm.audit(program, tmp_path / "net.safetensors").findings
    assert (one.check, one.severity, one.layer) == (102, "warning", "norm")
    assert one.numbers["folds into"] == "the linear layer 'layer'"
    assert "values are quantized between the two" in one.message


def test_the_channels_of_a_linear_layer_may_be_on_another_axis():
    """Where the sizes are equal, the weights would fit, and the outputs would be wrong."""
    model = settled(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)))
    rows, sequences = (
        anynorm.audit(torch.export.export(model, (torch.randn(shape),)))
        for shape in ((5, 4), (5, 4, 4))
    )
    assert numbers(rows) == {102}
    assert numbers(sequences) == set()
    assert "has 3 axes, and its channels are the last" in sequences.findings[0].message


def test_branches_are_read():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = settled(nn.BatchNorm2d(3))

        def forward(self, x):
            return torch.cond(x.sum() > 0, self.norm, torch.relu, (x,))

    found = anynorm.audit(torch.export.export(Branches().eval(), (X,)))
    assert families(found) == {"batch": 1}


def rewritten(path, change, *, compression=zipfile.ZIP_STORED):
    """Write the archive again, each entry as `change(name, content)` returns it; None drops it."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            if (new := change(name, content)) is not None:
                archive.writestr(name, new)


class Bomb:
    """What a pickle must not run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_is_unpickled(path):
    bomb = pickle.dumps(Bomb())
    rewritten(path, lambda name, content: bomb if name.endswith(".pt") else content)
    assert numbers(anynorm.audit(path)) == {102}
    with pytest.raises(BaseException, match="unpickled"):
        pickle.loads(bomb)


def test_pickled_weights_are_refused(path):
    def change(name, content):
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    rewritten(path, change)
    with pytest.raises(AnynormError, match="has pickled weights"):
        anynorm.audit(path)


def test_a_compressed_archive_is_refused(path):
    rewritten(path, lambda _, content: content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(AnynormError, match="is compressed"):
        anynorm.audit(path)


@pytest.mark.parametrize(
    ("lost", "match"),
    [
        ("models/", "no program that can be read without unpickling"),
        ("weights/weight_1", "has no entry 'data/weights/weight_1'"),
    ],
)
def test_an_incomplete_archive_is_refused(path, lost, match):
    rewritten(path, lambda name, content: None if lost in name else content)
    with pytest.raises(AnynormError, match=match):
        anynorm.audit(path)


def test_a_checkpoint_is_no_program(tmp_path):
    torch.save(net().state_dict(), tmp_path / "net.pt2")
    with pytest.raises(AnynormError, match="is a checkpoint or a TorchScript program"):
        anynorm.audit(tmp_path / "net.pt2")


def test_another_file_is_no_archive(tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"no archive")
    with pytest.raises(AnynormError, match="is no archive that can be read"):
        anynorm.audit(tmp_path / "net.pt2")


def test_damaged_archives_give_an_audit_or_our_error(path):
    random, whole = np.random.default_rng(0), path.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 6)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(AnynormError):
            anynorm.audit(path).to_dict()
