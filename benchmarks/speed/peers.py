"""With whom anynorm is compared: one row for each, with the cases that it serves."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from anynorm.bench.cases import Case
from anynorm.errors import AnynormError, UnknownNameError
from benchmarks.speed import adapters, jax_peer
from benchmarks.speed.grids import compiles
from benchmarks.speed.normalizers import theirs

__all__ = ["PEERS", "Peer", "chosen", "installed"]

ROWS = ("layer", "rms")


@dataclass(frozen=True)
class Peer:
    """An implementation: how people call it, what it serves, and how its layer is built.

    `modules` must be importable; `install` says how they come.  Without `build` it is no layer
    (JAX is functions: see `benchmarks.speed.jax_peer`).
    """

    title: str
    serves: Callable[[Case], bool]
    build: Callable[[Case], nn.Module] | None
    devices: tuple[str, ...] = ("cuda",)
    modules: tuple[str, ...] = ()
    install: str = ""


def _compiled(case: Case) -> nn.Module:
    return cast(nn.Module, torch.compile(theirs(case), dynamic=False, fullgraph=True))


def _plain(case: Case, *normalizers: str) -> bool:
    return case.fusion == "plain" and case.normalizer in normalizers


BOTH = ("cpu", "cuda")
APEX = "git+https://github.com/NVIDIA/apex, built with its CUDA extensions"
PEERS: dict[str, Peer] = {
    "eager": Peer("torch.nn", lambda _: True, theirs, BOTH),
    "compile": Peer("torch.compile", compiles, _compiled, BOTH),
    "jax": Peer("JAX", jax_peer.serves, None, ("cpu",), ("jax",), "jax"),
    "liger": Peer(
        "Liger-Kernel",
        # Rows must fit into one block; images of other strides are refused.
        lambda case: (
            (_plain(case, *ROWS) and case.shape[1] <= 1 << 16)
            or (_plain(case, "group") and case.layout == "contiguous")
        ),
        adapters.liger,
        modules=("liger_kernel.transformers",),
        install="liger-kernel",
    ),
    "apex": Peer(
        "apex",
        lambda case: _plain(case, *ROWS),
        adapters.apex,
        modules=("fused_layer_norm_cuda", "apex.normalization"),
        install=APEX,
    ),
    "quack": Peer(
        "quack",
        lambda case: _plain(case, "rms"),  # its layer norm has no backward pass
        adapters.quack,
        modules=("quack.rmsnorm",),
        install="quack-kernels",
    ),
    "flash-attn": Peer(
        "flash-attn",
        lambda case: _plain(case, *ROWS) and case.nbytes // case.shape[0] <= 1 << 16,
        adapters.flash_attn,
        modules=("flash_attn.ops.triton.layer_norm",),
        install="flash-attn",
    ),
}


def installed(peer: Peer) -> bool:
    """Whether all modules of a peer are there.

    Looking for a module imports the package around it: where that fails, whatever the reason, the
    peer cannot be called.
    """
    try:
        return all(importlib.util.find_spec(module) for module in peer.modules)
    except Exception:
        return False


def chosen(names: Sequence[str] | None, device: str) -> tuple[list[str], list[str]]:
    """Return which peers take part on a device (``cpu`` or ``cuda``), and which are not installed.

    Without `names`: all that are installed.  Raises `AnynormError` where a peer was asked for by
    name and is not installed or does not run there.
    """
    for name in names or ():
        _check(name, device)
    known = [name for name in names or PEERS if device in PEERS[name].devices]
    absent = [name for name in known if not installed(PEERS[name])]
    return [name for name in known if name not in absent], absent


def _check(name: str, device: str) -> None:
    if name not in PEERS:
        raise UnknownNameError("peer", name, PEERS)
    peer = PEERS[name]
    if device not in peer.devices:
        raise AnynormError(f"{peer.title} is compared on {peer.devices[0]} only, not on {device}.")
    if not installed(peer):
        raise AnynormError(
            f"{peer.title} is not installed; leave {name} out of the peers, or install it: "
            f"pip install {peer.install}"
        )
