"""A normalizer with running statistics as a map a · x + b for each channel."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from anynorm import nn as own
from anynorm.errors import type_of
from anynorm.surgery.normalizers import Normalizer
from anynorm.surgery.refused import Refused
from anynorm.surgery.streaming_stats import double

__all__ = ["Affine", "affine_of", "eps_of"]

_USUAL_EPS = 1e-5
_SAME = 1e-6  # of single precision, in which some layers compute


@dataclass(frozen=True)
class Affine:
    """The map a · x + b, one a and one b for each channel, in float64."""

    a: Tensor
    b: Tensor

    def of(self, channels: Tensor) -> Affine:
        """The map for values that belong to these channels, numbered in the order of γ.

        >>> Affine(torch.tensor([2.0, 3.0]), torch.zeros(2)).of(torch.tensor([1, 1, 0])).a
        tensor([3., 3., 2.])
        """
        places = channels.to(self.a.device)
        return Affine(self.a.flatten()[places], self.b.flatten()[places])


def affine_of(norm: Normalizer) -> Affine:
    """The map of each channel in a `fixed` normalizer, before its activation.

    >>> from anynorm.surgery.normalizers import normalizers
    >>> layer = torch.nn.BatchNorm1d(1, eps=0.0)
    >>> _ = layer.running_mean.fill_(3.0), layer.running_var.fill_(4.0)
    >>> affine_of(normalizers(layer)[0])
    Affine(a=tensor([0.5000], dtype=torch.float64), b=tensor([-1.5000], dtype=torch.float64))
    """
    return _probed(norm) if _foreign(norm) else _by_formula(norm, _eps(norm))


def eps_of(norm: Normalizer) -> float:
    """The ε of a `fixed` normalizer; raises `Refused` if it is hidden and not the default.

    Our layers need one above 0: the smallest is lost beside any variance but 0.
    """
    eps = _eps(norm)
    if _foreign(norm):
        formula, probed = _by_formula(norm, eps), _probed(norm)
        pairs = ((formula.a, probed.a), (formula.b, probed.b))
        if not all(torch.allclose(one, other, _SAME, _SAME) for one, other in pairs):
            raise Refused(f"{type_of(norm.layer)} that computes with an ε of its own")
    return eps or torch.finfo(norm.layer.running_var.dtype).tiny


def _eps(norm: Normalizer) -> float:
    """The ε that is added to the running variance; a specification without a scale has none."""
    return float(getattr(norm.layer, "eps", _USUAL_EPS)) if norm.spec.scale else 0.0


def _foreign(norm: Normalizer) -> bool:
    """Whether this is a frozen batch norm of another library, which may hide its ε."""
    return norm.constant and not isinstance(norm.layer, own.FrozenBatchNorm)


def _by_formula(norm: Normalizer, eps: float) -> Affine:
    mean, var = double(norm.layer.running_mean), double(norm.layer.running_var)
    gain, shift = norm.affine
    a = (var + eps).rsqrt()
    a = a if gain is None else a * double(gain)
    b = -mean * a
    return Affine(a, b if shift is None else b + double(shift))


@torch.no_grad()
def _probed(norm: Normalizer) -> Affine:
    """Compute ε from the layer's outputs at 0 and at 1."""
    module, device = copy.deepcopy(norm.layer).cpu().double(), norm.layer.running_mean.device
    zeros = torch.zeros(1, norm.channels, 1, 1, dtype=torch.float64)
    at_zero = module(zeros).double().flatten()
    a = module(zeros + 1).double().flatten() - at_zero
    keeps = device.type == "mps"  # which has no float64
    return Affine(a, at_zero) if keeps else Affine(a.to(device), at_zero.to(device))
