"""Which layers were examined, and which were not and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from anynorm.doctor.case import Case
from anynorm.doctor.undecided import Undecided

__all__ = ["looked_for", "not_understood", "tally"]

KINDS = 6  # classes that are named where nothing was examined


def tally(
    case: Case, undecided: Iterable[Undecided]
) -> tuple[tuple[str, ...], dict[str, str], bool]:
    """Name the layers that were examined, and those that were not with the reason.

    The bool says whether one of the latter may hide a fault: a layer that no batch reaches has no
    part in the predictions, so it does not.
    """
    hidden = dict(not_understood(case.model))
    hidden |= {one.layer: f"too little data: {one.message}" for one in undecided}
    reached = None
    if case.survey is not None:
        reached = {record.norm.name for record in case.survey.records}
    idle = {
        norm.name: "no batch reached it"
        for norm in case.norms
        if reached is not None and norm.name not in reached
    }
    not_examined = {**idle, **hidden}
    examined = tuple(norm.name for norm in case.norms if norm.name not in not_examined)
    return examined, not_examined, bool(hidden)


def not_understood(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Layers that seem to normalize but that the doctor cannot look into, with the reason.

    Example:
        >>> class MyNorm(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = nn.Parameter(torch.ones(3))
        >>> [name for name, _ in not_understood(nn.Sequential(MyNorm(), nn.BatchNorm1d(3)))]
        ['0']
    """
    from anynorm.surgery.normalizers import normalizers

    known = {id(norm.module) for norm in normalizers(model)}
    scripted = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    norms = [(n, m) for n, m in scripted if "norm" in _kind(m).lower() and not list(m.children())]
    for name, module in norms or scripted[:1]:
        yield name, f"a {_kind(module)} in TorchScript; give the model that it was made from"
    inside = {id(module) for _, module in scripted}
    for name, module in model.named_modules():
        if id(module) not in known | inside and _looks_like_one(module):
            kind = f"a {_kind(module)} looks like a normalization layer"
            yield name, f"{kind}, but is no class of torch.nn or anynorm and is derived from none"


def _kind(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _looks_like_one(module: nn.Module) -> bool:
    """By running statistics, or by its name and vectors; without layers in it."""
    tensors = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    vectors = any(tensor.dim() == 1 and len(tensor) > 1 for tensor in tensors.values())
    called = re.search(r"norm|(?-i:BN(?![a-z]))", type(module).__name__, re.IGNORECASE)
    keeps = bool({"running_mean", "running_var"} & set(tensors))
    return (keeps or (called is not None and vectors)) and not list(module.children())


def looked_for(model: nn.Module) -> str:
    """What was looked for and what was seen, where nothing was examined."""
    leaves = [module for module in model.modules() if not list(module.children())]
    kinds = Counter(map(_kind, leaves)).most_common()
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds[:KINDS])
    more = f" and {len(kinds) - KINDS} other classes" if len(kinds) > KINDS else ""
    return (
        "nothing was examined: the normalization layers of torch.nn and anynorm, and what is "
        f"derived from them, were looked for; there are {seen}{more}"
    )
