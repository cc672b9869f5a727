"""The plan of a pruning as data, which can be written, read, and applied to a fresh model."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from anynorm.errors import AnynormError
from anynorm.report.files import read_bounded, write_whole
from anynorm.surgery.bias import add_bias
from anynorm.surgery.model import check_model

__all__ = ["Plan"]

_FORMAT = "anynorm-plan-3"
# An infinite index overflows, and a file may be nested deeper than it can be read.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
Cuts = Mapping[str, Mapping[int, tuple[int, ...]]]


@dataclass(frozen=True)
class Plan:
    """The indices that a pruning removes from each tensor.

    A plan holds no values: apply it to a fresh model, then load the state dict of the pruned one.

    Args:
        cuts: the indices that go, by the name of the parameter or buffer and by axis.
        shapes: the shapes before the cut, by name.
        biases: the layers that get a bias of zeros.
        numbers: new values of whole numbers in the attributes of modules, by module and attribute,
            such as the size of the parts into which a module's code splits channels.

    Example:
        >>> plan = Plan({"weight": {0: (1,)}, "bias": {0: (1,)}}, {"weight": (3, 2), "bias": (3,)})
        >>> plan.apply(nn.Linear(2, 3))
        Linear(in_features=2, out_features=2, bias=True)
    """

    cuts: Cuts
    shapes: Mapping[str, tuple[int, ...]]
    biases: tuple[str, ...] = ()
    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def apply(self, model: nn.Module, *, inplace: bool = False) -> nn.Module:
        """Cut a model.

        Args:
            model: the uncut model.
            inplace: whether the model itself is cut, and not a copy.

        Returns:
            The cut model.

        Raises:
            AnynormError: The plan does not fit.
        """
        check_model("Plan.apply", model)
        model = model if inplace else copy.deepcopy(model)
        new = self._new_biases(model)
        self._check({**new, **{name: tensor.shape for name, tensor in _state(model)}})
        self._check_layers(model)
        self._check_numbers(model)
        for name in self.biases:
            add_bias(model.get_submodule(name))
        for name, axes in self.cuts.items():
            old = _tensor(model, name)
            if tuple(old.shape) == tuple(self.shapes.get(name, old.shape)):  # not cut, being tied
                _replace(model, old, _without(old, axes))
        for name, values in self.numbers.items():
            vars(model.get_submodule(name)).update(values)
        return model

    def apply_to_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut a state dict of the uncut model.

        Args:
            state: the state dict.

        Returns:
            The state dict of the cut model.

        Raises:
            AnynormError: The plan does not fit.
        """
        new = {f"{prefix(name)}bias" for name in self.biases} - state.keys()
        self._check({name: tensor.shape for name, tensor in state.items()}, without=new)
        return {
            name: _without(tensor, self.cuts[name]) if name in self.cuts else tensor
            for name, tensor in state.items()
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON; the file is always complete or absent.

        The file ends with a digest of its content, by which :meth:`read` knows a plan that lost a
        part: one that does not cut every tensor of a channel would leave a model that cannot run.
        """
        plain = self._plain()
        write_whole(path, json.dumps({**plain, "sha256": digest(plain)}) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, most: int | None = None) -> Plan:
        """Read a plan that :meth:`write` wrote.

        Args:
            path: the file.
            most: the most bytes that it may have; None for 64 MiB.

        Returns:
            The plan.

        Raises:
            AnynormError: It is another file, too large, or a plan that was changed since.
        """
        try:
            plain = json.loads(read_bounded(path, most))
            if plain["format"] != _FORMAT:
                raise ValueError(f"its format is {plain['format']!r}, not {_FORMAT!r}")
            if plain.pop("sha256") != digest(plain):
                raise ValueError("it was changed after it was written")
            cuts = {
                name: {int(axis): tuple(map(int, indices)) for axis, indices in axes.items()}
                for name, axes in plain["cuts"].items()
            }
            shapes = {name: tuple(map(int, shape)) for name, shape in plain["shapes"].items()}
            numbers = {
                str(name): {str(key): int(value) for key, value in values.items()}
                for name, values in plain["numbers"].items()
            }
            return cls(cuts, shapes, tuple(map(str, plain["biases"])), numbers)
        except _UNREADABLE as error:
            why = error.strerror if isinstance(error, OSError) else repr(error)
            raise AnynormError(
                f"{str(path)!r} is not a plan of pruning: {why}. Give a file that Plan.write or "
                "`anynorm prune --plan-out` wrote."
            ) from error

    def _plain(self) -> dict[str, Any]:
        cuts = {
            name: {str(axis): list(indices) for axis, indices in axes.items()}
            for name, axes in sorted(self.cuts.items())
        }
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        numbers = {name: dict(values) for name, values in self.numbers.items()}
        return {
            "format": _FORMAT,
            "cuts": cuts,
            "shapes": shapes,
            "biases": list(self.biases),
            "numbers": numbers,
        }

    def _check(self, found: Mapping[str, torch.Size], without: Collection[str] = ()) -> None:
        """Raise `AnynormError` unless the whole plan fits the tensors `found`, before any cut."""
        for name, shape in self.shapes.items():
            if name not in found or tuple(found[name]) != tuple(shape):
                is_here = f"has shape {tuple(found[name])}" if name in found else "is missing"
                raise AnynormError(
                    f"the plan was made for another model: {name!r} {is_here}, but the plan is for "
                    f"{tuple(shape)}. Apply it to the uncut model for which it was made."
                )
        for name, axes in self.cuts.items():
            for axis, cut in axes.items() if name not in without else ():
                if problem := _problem(found.get(name), axis, cut):
                    raise AnynormError(
                        f"the plan cuts {name!r} on axis {axis}, but {problem}. Apply it to the "
                        "uncut model for which it was made."
                    )

    def _check_layers(self, model: nn.Module) -> None:
        """Raise `AnynormError` if a channel is cut from only some tensors of its layer."""
        # By identity: a tied tensor is cut under all its names if it is under one.
        cut = {id(tensor): self.cuts[name] for name, tensor in _state(model) if name in self.cuts}
        for layer, module in model.named_modules():
            gone = {
                key: set(cut.get(id(tensor), {}).get(axis, ()))
                for key, tensor, axis in _by_channel(module)
            }
            if layer in self.biases and module._parameters["bias"] is None:
                gone["bias"] = set(self.cuts.get(f"{prefix(layer)}bias", {}).get(0, ()))
            every: set[int] = set().union(*gone.values())
            for key, indices in gone.items():
                if indices != every:
                    raise AnynormError(
                        f"the plan cuts channel {min(every - indices)} of layer {layer!r}, but not "
                        f"from its {key!r}. Apply the whole plan that prune returned or wrote."
                    )

    def _check_numbers(self, model: nn.Module) -> None:
        """Raise `AnynormError` unless each number is one of a module, and becomes smaller."""
        modules = dict(model.named_modules())
        for layer, values in self.numbers.items():
            for name, value in values.items():
                old = vars(modules[layer]).get(name) if layer in modules else None
                if type(old) is not int or not 0 < value <= old:
                    raise AnynormError(
                        f"the plan sets {name!r} of the module {layer!r} to {value}, but it is "
                        f"{old}. Apply it to the uncut model for which it was made."
                    )

    def _new_biases(self, model: nn.Module) -> dict[str, torch.Size]:
        """The shapes of the new biases of layers."""
        modules, found = dict(model.named_modules()), {}
        for name in self.biases:
            layer: Any = modules.get(name)
            if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
                raise AnynormError(
                    f"the plan gives {name!r} a bias, but the model has no such linear layer or "
                    "convolution. Apply it to the uncut model for which it was made."
                )
            count = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            found[f"{prefix(name)}bias"] = torch.Size([count])
        return found


def prefix(layer: str) -> str:
    """The prefix of the names in a layer's state."""
    return f"{layer}." if layer else ""


def digest(plain: Mapping[str, Any]) -> str:
    """Return the checksum of a plan's content, by which a changed file is recognised."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _by_channel(layer: Any) -> Iterator[tuple[str, Tensor, int]]:
    """The tensors with values for each output channel of a layer, and their axes."""
    held: dict[str, Any] = {**layer._parameters, **layer._buffers}
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    known = isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
    for key in ("weight", "bias", "running_mean", "running_var"):
        tensor = held.get(key)
        if tensor is not None and tensor.dim() == 1:
            yield key, tensor, 0
        elif tensor is not None and known and not (transposed and layer.groups > 1):
            yield key, tensor, int(transposed)


def _problem(shape: torch.Size | None, axis: int, cut: tuple[int, ...]) -> str:
    """Why these indices cannot be cut from a tensor of this shape; "" if they can."""
    if shape is None:
        return "the model has nothing of that name"
    if not 0 <= axis < len(shape):
        return f"its shape is {tuple(shape)}"
    if outside := [index for index in cut if not 0 <= index < shape[axis]]:
        return f"index {outside[0]} is not among its {shape[axis]}"
    return "nothing would be left" if len(set(cut)) >= shape[axis] else ""


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, key = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(owner), key)
    return tensor


def _without(tensor: Tensor, axes: Mapping[int, tuple[int, ...]]) -> Tensor:
    for axis, cut in axes.items():
        kept = torch.ones(tensor.shape[axis], dtype=torch.bool, device=tensor.device)
        kept[list(cut)] = False
        tensor = tensor.detach().index_select(axis, kept.nonzero().flatten())
    return tensor


def _replace(model: nn.Module, old: Tensor, new: Tensor) -> None:
    """Replace `old` by `new` everywhere in the model, and update the modules' sizes."""
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for key, value in held.items():
                if value is old:
                    held[key] = new  # type: ignore[assignment]
                    _tell(module, key, new)


# Attributes with the sizes of a weight, of (outputs, inputs) or (inputs, outputs); the last are
# those of Conv1D in transformers.
_OF_A_MATRIX = (("out_features", "in_features"), ("num_embeddings", "embedding_dim"), ("nx", "nf"))

_SHAPES = ("normalized_shape", "channels")  # attributes with the shape of γ


def _tell(module: Any, key: str, new: Tensor) -> None:
    """Update the sizes in a module's attributes to its new state."""
    if isinstance(module, nn.modules.conv._ConvNd):
        if key == "weight":
            _tell_convolution(module, new)
    elif names := next((two for two in _OF_A_MATRIX if all(map(vars(module).get, two))), None):
        if key == "weight":
            vars(module).update(zip(names, new.shape, strict=True))
    elif hasattr(module, "num_features"):
        module.num_features = len(new)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = new.numel()
    elif shape := next((n for n in _SHAPES if isinstance(vars(module).get(n), tuple)), None):
        vars(module)[shape] = tuple(new.shape)


def _tell_convolution(conv: Any, weight: Tensor) -> None:
    front, back = weight.shape[:2]
    if conv.groups > 1 and conv.groups == conv.in_channels:  # a group for each channel that is left
        each = conv.out_channels // conv.in_channels
        conv.groups = front if conv.transposed else front // each
    own, other = front, back * conv.groups
    conv.in_channels, conv.out_channels = (own, other) if conv.transposed else (other, own)
