"""What a model has in the way of normalization, for a verb that found nothing to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from anynorm.errors import listed, with_article
from anynorm.surgery.names import Layers, means
from anynorm.surgery.names import listed as listed_layers
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.recognized import Normalizers

__all__ = ["Search", "contents", "may_keep", "not_understood"]

_UNKNOWN = " of an unknown class; layers of torch.nn and anynorm are known"
_KINDS = 6  # classes, or layers of a class, that are named


@dataclass(frozen=True)
class Search:
    """What a verb looks for, and why it passes over a layer: the way there, where there is one.

    `why` returns "" for a layer that the verb is for.  `unknown` says whether a layer of an unknown
    class could be one of these, by its name and module: then it is refused by name.
    """

    wanted: str
    why: Callable[[Normalizer], str]
    unknown: Callable[[str, nn.Module], bool] = lambda *_: True

    def failure(self, model: nn.Module) -> str:
        """What `outcome` says, and why layers are not understood."""
        return "; ".join([self.outcome(model), *_told(model)])

    def outcome(self, model: nn.Module, found: Normalizers | None = None) -> str:
        """Say what was looked for, what `model` has instead, and what to do.

        `found` has the normalizers that an example showed, whatever their class is.

        >>> search = Search("layers with a mean", lambda norm: "it has none; take another")
        >>> search.outcome(nn.Sequential(nn.RMSNorm(3)))
        "looked for layers with a mean; there is 1 RMSNorm ('0'): it has none; take another"
        """
        groups: dict[tuple[str, str], list[str]] = {}
        for norm in normalizers(model) if found is None else found.norms:
            groups.setdefault((kind_of(norm.module), self.why(norm)), []).append(norm.name)
        if not groups:
            return f"looked for {self.wanted}; {contents(model)}"
        kinds = [
            f"{len(names)} {kind} ({listed(names, _KINDS)}){f': {why}' if why else ''}"
            for (kind, why), names in groups.items()
        ]
        verb = "is" if len(kinds) == 1 and kinds[0].startswith("1 ") else "are"
        return f"looked for {self.wanted}; there {verb} {'; '.join(kinds)}"


def not_understood(model: nn.Module, found: Normalizers | None = None) -> Iterator[tuple[str, str]]:
    """Layers that seem to normalize but are of an unknown class, with the reason.

    `found` has the normalizers that an example showed, whatever their class is.

    Example:
        >>> class MyNorm(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = nn.Parameter(torch.ones(3))
        >>> [name for name, _ in not_understood(nn.Sequential(MyNorm(), nn.BatchNorm1d(3)))]
        ['0']
    """
    found = found or Normalizers()
    yield from found.unmatched.items()
    for name in found.functional:
        yield name, "it is called as a function and not as a layer, so it is left as it is"
    known = {id(norm.module) for norm in (*normalizers(model), *found.norms)}
    scripted = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    leaves = ((name, module) for name, module in scripted if not list(module.children()))
    named = [(name, module) for name, module in leaves if "norm" in kind_of(module).lower()]
    for name, module in named or scripted[:1]:
        yield (
            name,
            f"{with_article(kind_of(module))} in TorchScript; give the model that it was made from",
        )
    inside = {id(module) for _, module in scripted}
    # A normalizer of a layer's weights is not a layer.
    weights = (m for m in model.modules() if isinstance(m, parametrize.ParametrizationList))
    inside |= {id(part) for module in weights for part in module.modules()}
    for name, module in model.named_modules():
        if id(module) in known | inside or name in found.unmatched:
            continue
        if _looks_like_one(module):
            yield (
                name,
                f"{with_article(kind_of(module))} looks like a normalization layer{_UNKNOWN}",
            )


def may_keep(layers: Layers | None) -> Callable[[str, nn.Module], bool]:
    """Whether a layer of an unknown class may have running statistics and is among `layers`."""

    def test(name: str, module: nn.Module) -> bool:
        named = layers is None or any(means(one, name) for one in listed_layers(layers))
        return named and next(module.buffers(), None) is not None

    return test


def _told(model: nn.Module) -> list[str]:
    """Why layers are not understood: each reason with its layers."""
    groups: dict[str, list[str]] = {}
    for name, reason in not_understood(model):
        groups.setdefault(reason, []).append(name)
    return [f"{listed(names, _KINDS)}: {reason}" for reason, names in groups.items()]


def contents(model: nn.Module) -> str:
    """Describe the layers of a model without any known normalizer.

    >>> contents(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    'there is no layer of torch.nn or anynorm that normalizes, but 2 Linear, 1 ReLU'
    """
    leaves = [module for module in model.modules() if not list(module.children())]
    kinds = Counter(map(kind_of, leaves)).most_common()
    seen = ", ".join(f"{count} {kind}" for kind, count in kinds[:_KINDS])
    more = f" and {len(kinds) - _KINDS} other classes" if len(kinds) > _KINDS else ""
    return f"there is no layer of torch.nn or anynorm that normalizes, but {seen}{more}"


def kind_of(module: nn.Module) -> str:
    """The name of a module's class; for a scripted module, that of the original class."""
    return str(getattr(module, "original_name", type(module).__name__))


def _looks_like_one(module: nn.Module) -> bool:
    """Whether a module without children has running statistics, or a name and vectors of a norm."""
    tensors = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    vectors = any(tensor.dim() == 1 and len(tensor) > 1 for tensor in tensors.values())
    called = re.search(r"norm|(?-i:BN(?![a-z]))", type(module).__name__, re.IGNORECASE)
    keeps = bool({"running_mean", "running_var"} & set(tensors))
    return (keeps or (called is not None and vectors)) and not list(module.children())
