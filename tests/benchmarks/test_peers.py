"""Adapters of packages that are not here, tried on modules with the same interfaces.

What they stand for was read in the packages' sources; the kernels themselves never run here.
"""

import importlib.machinery
import sys
import types

import pytest
import torch
from benchmarks.speed import peers
from benchmarks.speed.contestants import Attempts, built
from benchmarks.speed.peers import PEERS, chosen, installed
from torch import nn
from torch.nn import functional as F

from anynorm.bench.cases import Case
from anynorm.bench.layers import groups, inputs
from anynorm.errors import AnynormError, UnknownNameError


class LigerRMSNorm(nn.Module):
    def __init__(
        self,
        hidden_size,
        eps=1e-6,
        offset=0.0,
        casting_mode="llama",
        init_fn="ones",
        in_place=True,
        row_mode=None,
        elementwise_affine=True,
    ):
        super().__init__()
        assert not in_place  # it would spoil the cotangent
        self.weight, self.eps = nn.Parameter(torch.ones(hidden_size)), eps

    def forward(self, hidden_states):
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.eps)


class LigerLayerNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-6, bias=False, init_fn="ones"):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(hidden_size)), eps
        self.bias = nn.Parameter(torch.randn(hidden_size) if bias else torch.zeros(hidden_size))

    def forward(self, hidden_states):
        return F.layer_norm(hidden_states, self.weight.shape, self.weight, self.bias, self.eps)


class LigerGroupNorm(nn.Module):
    def __init__(self, num_channels, num_groups, eps=1e-6, bias=False, init_fn="ones"):
        super().__init__()
        assert num_channels % num_groups == 0
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.randn(num_channels) if bias else torch.zeros(num_channels))

    def forward(self, hidden_states):
        return F.group_norm(hidden_states, self.num_groups, self.weight, self.bias, self.eps)


class FusedLayerNorm(nn.LayerNorm):
    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, memory_efficient=False):
        super().__init__(normalized_shape, eps, elementwise_affine)


class FusedRMSNorm(nn.RMSNorm):
    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, memory_efficient=False):
        super().__init__(normalized_shape, eps, elementwise_affine)


def rmsnorm(
    x,
    weight=None,
    bias=None,
    residual=None,
    out_dtype=None,
    residual_dtype=None,
    eps=1e-6,
    prenorm=False,
):
    return F.rms_norm(x, weight.shape, weight, eps)


def layer_norm_fn(x, weight, bias, residual=None, x1=None, weight1=None, bias1=None, eps=1e-6):
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rms_norm_fn(x, weight, bias, residual=None, x1=None, weight1=None, bias1=None, eps=1e-6):
    assert bias is None
    return F.rms_norm(x, weight.shape, weight, eps)


FAKES = {
    "liger_kernel.transformers.rms_norm": {"LigerRMSNorm": LigerRMSNorm},
    "liger_kernel.transformers.layer_norm": {"LigerLayerNorm": LigerLayerNorm},
    "liger_kernel.transformers.group_norm": {"LigerGroupNorm": LigerGroupNorm},
    "fused_layer_norm_cuda": {},
    "apex.normalization": {"FusedLayerNorm": FusedLayerNorm, "FusedRMSNorm": FusedRMSNorm},
    "quack.rmsnorm": {"rmsnorm": rmsnorm},
    "flash_attn.ops.triton.layer_norm": {
        "layer_norm_fn": layer_norm_fn,
        "rms_norm_fn": rms_norm_fn,
    },
}


@pytest.fixture
def packages(monkeypatch):
    """Modules and the packages around them, as if they were installed."""
    for name, members in FAKES.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            _put(monkeypatch, ".".join(parts[:end]))
        vars(sys.modules[name]).update(members)


def _put(monkeypatch, name):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    monkeypatch.setitem(sys.modules, name, sys.modules.get(name, module))


SERVED = {
    "liger": {"layer", "rms", "group"},
    "apex": {"layer", "rms"},
    "quack": {"rms"},
    "flash-attn": {"layer", "rms"},
}
CASES = [
    (peer, Case(name, "contiguous", shape, dtype, "plain", "both"))
    for peer, names in SERVED.items()
    for name in sorted(names)
    for shape in [(4, 64, 3, 3) if name == "group" else (6, 40)]
    for dtype in ("fp32", "bf16")
]


@pytest.mark.parametrize(("peer", "case"), CASES, ids=lambda part: getattr(part, "name", part))
def test_adapters_compute_what_torch_does(packages, peer, case):
    attempt = Attempts("cpu")
    layers = built([case], [peer], inputs(case), attempt)
    assert (list(layers), attempt.failed) == (["ours", peer], {})


@pytest.mark.parametrize("peer", SERVED)
def test_what_a_peer_serves(peer):
    def serves(normalizer, **other):
        shape = (8, 64, 4, 4) if normalizer in ("batch", "group", "instance") else (8, 64)
        options = {"layout": "contiguous", "shape": shape, "dtype": "bf16", "fusion": "plain"}
        return PEERS[peer].serves(Case(normalizer, phase="both", **options | other))

    names = ("batch", "batch1d", "layer", "rms", "group", "instance")
    assert {name for name in names if serves(name)} == SERVED[peer]
    assert not any(serves(name, fusion="relu") for name in names)
    assert not serves("group", layout="channels_last")


def test_rows_that_do_not_fit_into_a_block_are_not_served():
    def case(width, dtype):
        return Case("rms", "contiguous", (8, width), dtype, "plain", "both")

    assert PEERS["flash-attn"].serves(case(1 << 15, "bf16"))
    assert not PEERS["flash-attn"].serves(case(1 << 15, "fp32"))
    assert PEERS["liger"].serves(case(1 << 16, "fp32"))
    assert not PEERS["liger"].serves(case(1 << 17, "fp32"))


def test_groups_are_those_of_the_other_side(packages):
    case = Case("group", "contiguous", (2, 48, 2, 2), "fp32", "plain", "both")
    assert PEERS["liger"].build(case).num_groups == groups(48)


def test_absent_packages_are_listed(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda peer: not peer.modules)
    present, absent = chosen(None, "cuda")
    assert present == ["eager", "compile"]
    assert absent == list(SERVED)
    assert chosen(None, "cpu") == (["eager", "compile"], ["jax"])


def test_absent_packages_that_were_asked_for_are_an_error(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda peer: False)
    with pytest.raises(AnynormError, match="pip install liger-kernel"):
        chosen(["liger"], "cuda")


def test_peers_of_another_device_are_an_error(packages):
    assert chosen(["liger", "quack"], "cuda") == (["liger", "quack"], [])
    with pytest.raises(AnynormError, match="on cuda only"):
        chosen(["liger"], "cpu")
    with pytest.raises(UnknownNameError, match='"eager"'):
        chosen(["eeger"], "cpu")


def test_a_package_of_the_same_name_is_not_apex(packages, monkeypatch):
    assert installed(PEERS["apex"])
    monkeypatch.delitem(sys.modules, "fused_layer_norm_cuda")
    assert not installed(PEERS["apex"])
