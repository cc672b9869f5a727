"""The manifest of a model: what its state dict does not say about its normalizers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn.parameter import is_lazy

from anynorm import nn as own
from anynorm.errors import AnynormError
from anynorm.report.files import read_bounded, write_whole
from anynorm.spec import Spec
from anynorm.surgery.affine import eps_of
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.model import check_model
from anynorm.surgery.normalizers import Normalizer, normalizers
from anynorm.surgery.recognized import candidates, find_on
from anynorm.surgery.refused import Refused
from anynorm.surgery.walk import Place, walk
from anynorm.surgery.weights.mismatch import Mismatch, mismatches
from anynorm.surgery.weights.names import plain_names
from anynorm.surgery.weights.settings import NormSettings, from_plain, to_plain

__all__ = ["KEY", "Manifest", "check_manifest", "described", "manifest", "recorded"]

KEY = "anynorm.manifest"  # of a safetensors file's metadata
_FORMAT = "anynorm-manifest-1"
_MOST = 16 << 20  # bytes
# The attribute of a layer, and the setting that it is, by the words for it.
_ATTRIBUTES = {
    "ε": ("eps", "eps"),
    "momentum": ("momentum", "momentum"),
    "track_running_stats": ("track_running_stats", "tracks"),
}
# What a value of another type raises, and text that is nested deeper than it can be read.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Manifest:
    """What a state dict does not say about the normalizers of a model.

    Get one from :func:`manifest`.

    Args:
        layers: the settings of each normalizer, by the layer's name without the prefixes of
            wrappers, as in a file of weights.
        unknown: the names of layers that may normalize in a way that is not known.

    Example:
        >>> one, other = (manifest(nn.BatchNorm1d(3, eps=eps)) for eps in (1e-5, 1e-3))
        >>> print(*one.differences(other))
        '': ε is 1e-05 and was recorded as 0.001
    """

    layers: Mapping[str, NormSettings] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def differences(self, recorded: Manifest) -> tuple[Mismatch, ...]:
        """Compare with the manifest that was recorded earlier.

        What one of the two does not know is not compared.

        Args:
            recorded: the other manifest.

        Returns:
            What differs; as text, each is a sentence.

        Raises:
            AnynormError: `recorded` is no manifest.
        """
        check_manifest(recorded)
        unknown = {*self.unknown, *recorded.unknown}
        names = [name for name in {**recorded.layers, **self.layers} if name not in unknown]
        found = ((name, self.layers.get(name), recorded.layers.get(name)) for name in names)
        return tuple(one for settings in found for one in mismatches(*settings))

    def restore(self, model: nn.Module) -> tuple[Mismatch, ...]:
        """Set ε, momentum and `track_running_stats` of a model's normalizers as recorded here.

        They are set where they are attributes of these names.

        Args:
            model: the model, which is changed itself.

        Returns:
            What still differs.
        """
        modules = _by_plain_name(model)
        for one in manifest(model).differences(self):
            attribute, setting = _ATTRIBUTES.get(one.what, ("", ""))
            if attribute and hasattr(modules[one.layer], attribute):
                value = getattr(self.layers[one.layer], setting)
                setattr(modules[one.layer], attribute, None if value == "machine" else value)
        return manifest(model).differences(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a file."""
        layers = {name: to_plain(settings) for name, settings in self.layers.items()}
        return {"format": _FORMAT, "layers": layers, "unknown": list(self.unknown)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        """Return the manifest that :meth:`to_dict` made plain.

        Args:
            plain: the plain values.

        Returns:
            The manifest.

        Raises:
            AnynormError: They are something else, or of a later version of anynorm.
        """
        try:
            if plain["format"] != _FORMAT:
                raise ValueError(f"its format is {plain['format']!r:.40}, not {_FORMAT!r}")
            layers = {str(name): from_plain(given) for name, given in plain["layers"].items()}
            return cls(layers, tuple(map(str, plain["unknown"])))
        except _UNREADABLE as error:
            raise AnynormError(
                f"this is not a manifest that can be read: {_reason(error)} It may be broken, or "
                "of another version of anynorm."
            ) from error

    def text(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON; the file is always complete or absent."""
        write_whole(path, f"{self.text()}\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read the manifest in a ``.safetensors`` file, or one that :meth:`write` wrote.

        Args:
            path: the file.

        Returns:
            The manifest.

        Raises:
            AnynormError: The file cannot be read, or has no manifest.
        """
        found = recorded(path) if _is_safetensors(path) else _parsed(_text(path), path)
        if found is None:
            raise AnynormError(
                f"{os.fspath(path)!r} has no manifest. anynorm.surgery.save_state and the command "
                "line write one; for other files use anynorm.manifest(model).write(path)."
            )
        return found


def check_manifest(given: object) -> None:
    """Raise `AnynormError` if `given` is no manifest; the message says how to get one.

    >>> check_manifest(Manifest())
    """
    if not isinstance(given, Manifest):
        raise AnynormError(
            f"manifest is of type {type(given).__name__}; give that of a model, "
            "anynorm.manifest(model), or of a file, anynorm.surgery.Manifest.read(path)."
        )


def recorded(path: str | os.PathLike[str]) -> Manifest | None:
    """Return the manifest in the metadata of a ``.safetensors`` file; None without one.

    Raises `AnynormError` for one that cannot be read.
    """
    if not _is_safetensors(path):
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise AnynormError(f"the weights {os.fspath(path)!r} cannot be read: {error}.") from error
    return None if text is None else _parsed(text, path)


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix == ".safetensors"


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return read_bounded(path, _MOST)
    except (OSError, UnicodeDecodeError) as error:
        raise AnynormError(f"the manifest {os.fspath(path)!r} cannot be read: {error}.") from error


def _parsed(text: str, path: str | os.PathLike[str]) -> Manifest:
    try:
        if len(text) > _MOST:
            raise AnynormError(f"it is longer than {_MOST} characters.")
        return Manifest.from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise AnynormError(f"the manifest in {os.fspath(path)!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, AnynormError) else f"{type(error).__name__}: {text}."


def manifest(
    model: nn.Module, example: Batch | None = None, *, forward: Forward | None = None
) -> Manifest:
    """Describe the normalizers of a model: what its state dict does not say about them.

    For each: specification, ε, momentum, mode, `track_running_stats` and the count of batches.
    :func:`anynorm.surgery.save_state` writes the manifest with the weights, and
    :func:`anynorm.surgery.load_into` compares.

    Args:
        model: the model.
        example: an input, as a loader gives it.  It shows what normalizers of other classes
            compute, as :func:`anynorm.recognize` finds it.
        forward: how the model is called (see :mod:`anynorm.surgery.batches`).

    Returns:
        The manifest.

    Raises:
        AnynormError: `model` is no module, or cannot be called on the example.

    Example:
        >>> found = manifest(nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4, eps=1e-3)))
        >>> found.layers["1"].eps, found.layers["1"].sizes
        (0.001, {'g': 2})
    """
    check_model("manifest", model)
    found = normalizers(model) if example is None else find_on(model, example, forward).norms
    return described(model, found)


def described(model: nn.Module, found: Sequence[Normalizer]) -> Manifest:
    """Return the manifest of a model whose normalizers were found already."""
    known = {norm.module for norm in found}
    settings = {name: _settings(norm) for norm in found for name in norm.place.names}
    unknown = [
        name for place in _unknown(model) if place.module not in known for name in place.names
    ]
    plain = _plain(model, [*settings, *unknown])
    layers = {plain[name]: given for name, given in settings.items()}
    return Manifest(layers, tuple(plain[name] for name in unknown))


def _unknown(model: nn.Module) -> list[Place]:
    """The places of modules that may normalize, and whose class does not say how."""
    maybe = set(candidates(model))
    scripted = torch.jit.ScriptModule
    return [p for p in walk(model) if p.module in maybe or isinstance(p.module, scripted)]


def _plain(model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """The names of layers without the prefixes of wrappers, which weights are read without."""
    keys = {name: f"{name}.key" if name else "key" for name in layers}
    tensors = (name for name, _ in (*model.named_parameters(), *model.named_buffers()))
    plain = plain_names([*tensors, *keys.values()])
    return {name: plain[key].rpartition(".")[0] for name, key in keys.items()}


def _by_plain_name(model: nn.Module) -> dict[str, nn.Module]:
    """The normalizers of known classes and their subclasses, by the names of a manifest."""
    found = {name: norm.module for norm in normalizers(model) for name in norm.place.names}
    plain = _plain(model, found)
    return {plain[name]: module for name, module in found.items()}


def _settings(norm: Normalizer) -> NormSettings:
    layer = norm.layer
    understood = norm.known and not any(map(is_lazy, layer.parameters()))
    momentum = getattr(layer, "momentum", None)
    return NormSettings(
        _spec(norm) if understood else None,
        _sizes(layer),
        _shape(norm) if understood else None,
        _eps(norm),
        "constant" if norm.constant else "running" if norm.keeps else "input",
        None if momentum is None else float(momentum),
        bool(getattr(layer, "track_running_stats", False)),
        norm.module.training,
        norm.batches,
    )


def _spec(norm: Normalizer) -> Spec:
    """The specification, with γ and β where the layer has them."""
    spec, layer = norm.spec, norm.layer
    gain = "none" if getattr(layer, "weight", None) is None else spec.learned.gain
    bias = getattr(layer, "bias", None) is not None
    return replace(spec, learned=replace(spec.learned, gain=gain, bias=bias))


def _sizes(layer: Any) -> dict[str, int]:
    """The sizes of the parts of split axes; the number of groups where their size was given."""
    if isinstance(layer, nn.GroupNorm):
        return {"g": layer.num_groups}
    sizes = dict(layer.sizes) if isinstance(layer, own.Norm) else {}
    if "c" in sizes:
        sizes["g"] = layer.channels[0] // sizes.pop("c")
    return sizes


def _shape(norm: Normalizer) -> tuple[int, ...]:
    if isinstance(norm.layer, own.Norm):
        return norm.layer.channels
    return tuple(getattr(norm.layer, "normalized_shape", (norm.channels,)))


def _eps(norm: Normalizer) -> float | Literal["machine"] | None:
    layer = norm.layer
    if norm.constant and not layer.running_mean.is_meta:
        try:
            return eps_of(norm)
        except Refused:
            return None
    eps = getattr(layer, "eps", None)
    if eps is None:
        return "machine" if isinstance(layer, nn.RMSNorm) else None
    return float(eps)
