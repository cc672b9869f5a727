"""What a state dict does not say about normalizers is recorded, and found where it differs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anynorm
from anynorm.errors import AnynormError
from anynorm.spec import Learned, Renorm, Scale, Spec
from anynorm.surgery import Manifest, NormSettings, manifest, save_state
from anynorm.surgery.weights.manifest import KEY


def rms(eps: float = 1e-6, offset: float = 0.0) -> nn.Module:
    """A normalizer as model code writes it, whose class says nothing."""

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            scaled = x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
            return scaled * (offset + self.weight)

    return Foreign()


def told(one: nn.Module, other: nn.Module, *example: Tensor) -> dict[str, list[str]]:
    """What differs between two models, by its effect."""
    found: dict[str, list[str]] = {}
    for each in manifest(one, *example).differences(manifest(other, *example)):
        found.setdefault(each.effect, []).append(str(each))
    return found


LAYERS: dict[str, nn.Module] = {
    "batch": nn.BatchNorm2d(8, eps=1e-3, momentum=None),
    "frozen": anynorm.FrozenBatchNorm(8),
    "group": nn.GroupNorm(4, 8, affine=False),
    "image": nn.LayerNorm((4, 8), bias=False),
    "rms": nn.RMSNorm(8),
    "linf": anynorm.create("linf-batch", 8),
    "zca": anynorm.create("zca", 8, groups=2),
    "renorm": anynorm.create("batch-renorm", 8),
    "gemma": anynorm.create("gemma-rms", 8),
    "unbounded": anynorm.Norm(Spec.of("[n] c", source=Renorm(float("inf"), float("inf"))), 8),
    "own": anynorm.Norm("n (g [c]) [...]", 8, scale=Scale(p=3, constant="sum"), c=2),
    "lazy": nn.LazyBatchNorm1d(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_manifest_survives_json(name: str, tmp_path: Path) -> None:
    about = manifest(nn.Sequential(nn.ReLU(), LAYERS[name]))
    assert list(about.layers) == ["1"]
    about.write(tmp_path / "a.json")
    assert Manifest.read(tmp_path / "a.json") == about
    assert json.loads(about.text(), parse_constant=pytest.fail) == about.to_dict()


def test_what_is_recorded() -> None:
    norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.2).eval()
    norm.num_batches_tracked += 5
    assert manifest(norm).layers == {
        "": NormSettings(
            anynorm.catalogue["batch"].spec, {}, (8,), 1e-3, "running", 0.2, tracks=True, batches=5
        )
    }
    bare = manifest(nn.LayerNorm(8, elementwise_affine=False)).layers[""]
    assert bare.spec == Spec.of("... [c]", learned=Learned("none", bias=False))
    assert manifest(nn.RMSNorm(8)).layers[""].eps == "machine"


def test_classes_that_say_nothing_are_compared_with_an_example() -> None:
    x = torch.randn(2, 5, 8)
    one, other = (nn.Sequential(rms(eps)) for eps in (1e-6, 1e-5))
    assert manifest(one).unknown == ("0",)
    assert told(one, other) == {}
    assert told(one, other, x) == {"outputs": ["'0': ε is 1e-06 and was recorded as 1e-05"]}
    found = told(one, nn.Sequential(rms(offset=1.0)), x)
    assert found == {"outputs": ["'0': γ is w and was recorded as 1 + w"]}
    # What only one side knows is not compared.
    assert manifest(one).differences(manifest(other, x)) == ()
    assert manifest(one, x).differences(manifest(other)) == ()


def test_of_a_subclass_only_its_settings_are_compared() -> None:
    class Moved(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    other = anynorm.create("pixel", 8)
    assert told(Moved(8, eps=other.eps), other) == {}
    assert list(told(Moved(8, eps=0.1), other)) == ["outputs"]


def test_a_normalizer_that_is_gone_is_found() -> None:
    with_norm, without = (
        nn.Sequential(nn.Linear(8, 8), layer)
        for layer in (nn.LayerNorm(8, elementwise_affine=False), nn.Identity())
    )
    assert told(without, with_norm) == {
        "outputs": ["'1': the normalizer is missing and was recorded as '... [c]'"]
    }
    assert "recorded as missing" in told(with_norm, without)["outputs"][0]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_names_are_those_of_the_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.LayerNorm(8))
    wrapped = [nn.DataParallel(model), torch.optim.swa_utils.AveragedModel(model)]
    wrapped += [nn.DataParallel(wrapped[1]), torch.compile(model)]  # type: ignore[list-item]
    for one in wrapped:
        assert manifest(one) == manifest(model)
    assert list(manifest(nn.DataParallel(nn.BatchNorm1d(8))).layers) == [""]
    assert manifest(torch.jit.script(model)).unknown == ("", "0", "1", "2")


def test_tied_layers_have_all_their_names() -> None:
    norm = nn.LayerNorm(8)
    assert list(manifest(nn.Sequential(norm, nn.ReLU(), norm)).layers) == ["0", "2"]


def test_frozen_layers_of_others_and_the_epsilon_that_they_hide() -> None:
    class FrozenBatchNorm2d(nn.Module):
        def __init__(self, eps: float) -> None:
            super().__init__()
            self.hidden = eps
            for name, value in {
                "weight": 1,
                "bias": 0,
                "running_mean": 0,
                "running_var": 1,
            }.items():
                self.register_buffer(name, torch.full((8,), float(value)))

        def forward(self, x: Tensor) -> Tensor:
            gain = self.weight * (self.running_var + self.hidden).rsqrt()
            return (x - self.running_mean[:, None, None]) * gain[:, None, None]

    assert manifest(FrozenBatchNorm2d(1e-5)).layers[""].eps == 1e-5
    assert manifest(FrozenBatchNorm2d(1e-2)).layers[""].eps is None
    assert told(FrozenBatchNorm2d(1e-5), anynorm.FrozenBatchNorm(8)) == {}
    assert list(told(FrozenBatchNorm2d(1e-5), anynorm.FrozenBatchNorm(8, 1e-3))) == ["outputs"]
    with torch.device("meta"):
        assert manifest(FrozenBatchNorm2d(1e-5)).layers[""].eps is None


def test_settings_are_restored_where_they_are_attributes() -> None:
    trained = nn.Sequential(nn.BatchNorm1d(8, 1e-3, 0.2), nn.RMSNorm(8), nn.GroupNorm(2, 8))
    model = nn.Sequential(nn.BatchNorm1d(8, 1e-5, 0.8), nn.RMSNorm(8, 1e-3), nn.GroupNorm(4, 8))
    model[0].track_running_stats = False
    [left] = manifest(trained).restore(nn.DataParallel(model))
    assert (left.layer, left.what) == ("2", "the pattern")
    assert (model[0].eps, model[0].momentum, model[0].track_running_stats) == (1e-3, 0.2, True)
    assert model[1].eps is None
    gone = nn.Sequential(nn.Identity(), rms(), nn.GroupNorm(2, 8))
    assert [one.layer for one in manifest(trained).restore(gone)] == ["0"]


GOOD = manifest(nn.GroupNorm(2, 8)).to_dict()


def changed(**settings: Any) -> Any:
    """The plain manifest of a layer with other settings; those of its specification nested."""
    plain = json.loads(json.dumps(GOOD))
    for name, value in settings.items():
        part = plain["layers"][""]
        part = part["spec"] if name in part["spec"] else part
        part[name] = value
    return plain


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        3,
        {},
        {**GOOD, "format": "anynorm-manifest-9"},
        {**GOOD, "layers": []},
        {**GOOD, "layers": {"": None}},
        {**GOOD, "unknown": 3},
        changed(eps="small"),
        changed(eps=True),
        changed(eps=10**400),
        changed(momentum=[0.1]),
        changed(statistics="none"),
        changed(batches=1.5),
        changed(shape=8),
        changed(shape=["8"]),
        changed(sizes={"g": "2"}),
        changed(other=1),
        changed(pattern="[n"),
        changed(pattern=3),
        changed(on="weights"),
        changed(scale={"p": 0.5}),
        changed(scale={"p": 1e308}),
        changed(scale="std"),
        changed(scale={"origin": "sum"}),
        changed(learned={"offset": "1"}),
        changed(source="running"),
        changed(source={"r_max": 0.5}),
        changed(dialect={"eps": "nowhere"}),
    ],
)
def test_what_is_no_manifest(plain: Any, tmp_path: Path) -> None:
    with pytest.raises(AnynormError, match="this is not a manifest that can be read"):
        Manifest.from_dict(plain)
    (tmp_path / "a.json").write_text(json.dumps(plain))
    with pytest.raises(AnynormError, match=r"the manifest in '.*a.json': this is not"):
        Manifest.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "JSONDecodeError"),
        (b"{" * 10, "JSONDecodeError"),
        (b"[" * 100_000, "RecursionError|JSONDecodeError"),
        (b"\xff", "cannot be read"),
        (b"9" * 5000, "digits"),
    ],
)
def test_files_that_are_no_manifest(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(AnynormError, match=words):
        Manifest.read(tmp_path / "a.json")
    with pytest.raises(AnynormError, match="cannot be read"):
        Manifest.read(tmp_path / "missing.json")


def test_files_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(nn.LayerNorm(8), tmp_path / "a.safetensors")
    manifest(nn.LayerNorm(8)).write(tmp_path / "a.json")
    monkeypatch.setattr(import_module("anynorm.surgery.weights.manifest"), "_MOST", 100)
    for name in ("a.json", "a.safetensors"):
        with pytest.raises(AnynormError, match=r"larger than the limit|longer than 100"):
            Manifest.read(tmp_path / name)


def test_weights_carry_the_manifest(tmp_path: Path) -> None:
    model, file = nn.Sequential(rms()), tmp_path / "a.safetensors"
    save_state(model, file)
    assert Manifest.read(file) == manifest(model)
    about = manifest(model, torch.randn(2, 8))
    save_state(model, file, manifest=about)
    assert Manifest.read(file) == about
    assert replace(about, unknown=()) == about
    assert KEY not in model.state_dict()


def test_weights_of_others_carry_none(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    save_model(nn.LayerNorm(8), str(tmp_path / "a.safetensors"))
    with pytest.raises(AnynormError, match=r"has no manifest.*anynorm.manifest\(model\).write"):
        Manifest.read(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_text("text")
    with pytest.raises(AnynormError, match="cannot be read"):
        Manifest.read(tmp_path / "b.safetensors")


@pytest.mark.parametrize("given", ["net.json", {}, True])
def test_other_things_than_manifests(given: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(AnynormError, match=r"give that of a model.*Manifest.read\(path\)"):
        save_state(nn.LayerNorm(8), file, manifest=given)
    assert not file.exists()
    with pytest.raises(AnynormError, match="give that of a model"):
        manifest(nn.LayerNorm(8)).differences(given)
    with pytest.raises(AnynormError, match="give that of a model"):
        anynorm.doctor(nn.LayerNorm(8), manifest=given, checks=[32])
