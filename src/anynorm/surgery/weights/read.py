"""Read a state dict from a file, without running code in the file."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from anynorm.errors import AnynormError, listed, type_of
from anynorm.surgery.weights.manifest import KEY
from anynorm.surgery.weights.names import plain_names

__all__ = ["load_state"]

# Where training programs keep the state dict inside a checkpoint, the likeliest first.
_NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "module", "weights")
_DEEPEST = 8  # levels of a checkpoint: a file may contain itself
# torch writes its checkpoints uncompressed, and weights that somebody compressed come to about
# their size.  But instructions of a pickle pack to a thousandth, and torch takes about 2 µs for the
# cheapest: 256 KiB are half a second, and a few kilobytes on disk can be a minute.
_TIMES, _SMALL = 10, 1 << 18
_ADVICE = (
    "Where it was made, write the weights alone: torch.save(model.state_dict(), 'weights.pt'), or "
    "safetensors.torch.save_model(model, 'weights.safetensors')."
)


def load_state(
    path: str | os.PathLike[str], *, key: str | None = None, unpacked: int | None = None
) -> dict[str, Tensor]:
    """Read a state dict, on the CPU, from a ``.safetensors`` file or a checkpoint of torch.

    Nothing in the file is run: checkpoints are read with ``weights_only=True``.  A state dict
    inside a checkpoint is found under the usual names ("state_dict", "model", ...) or as the only
    one, and what `DistributedDataParallel`, `AveragedModel` and `torch.compile` put before the
    names is taken away.  Names that a safetensors file has as aliases of another hold one tensor.

    Args:
        path: the file.
        key: the entry of a checkpoint to read.  Without it a warning names the other state dicts
            that the checkpoint holds, such as averaged weights.
        unpacked: the most bytes that a compressed checkpoint may unpack to; None stands for ten
            times its size, or 256 KiB where that is less.

    Returns:
        The tensors by name.

    Raises:
        AnynormError: The file is missing or broken, unpacks to more, or holds no state dict, or
            none under `key`; it has several of which none has a usual name; or it could only be
            read by running code from it, such as a pickled module.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model": {"module.weight": torch.zeros(2)}}, f"{folder}/a.pt")
        ...     load_state(f"{folder}/a.pt")
        {'weight': tensor([0., 0.])}
    """
    file = Path(path)
    if not file.is_file():
        found = "is a folder" if file.is_dir() else f"does not exist (seen from {os.getcwd()})"
        raise AnynormError(f"the weights {str(file)!r}: this file {found}.")
    safe = file.suffix == ".safetensors"
    state = _safetensors(file) if safe else _checkpoint(file, key, unpacked)
    return {plain: state[name] for name, plain in plain_names(state).items()}


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            tied = {k: v for k, v in (opened.metadata() or {}).items() if k != KEY}
    except (SafetensorError, OSError) as error:
        raise AnynormError(
            f"the weights {str(file)!r} cannot be read as safetensors: {error}. The file is "
            "incomplete, or of another format."
        ) from error
    # The rest of the metadata says other things about the file.
    aliases = {alias: tensors[name] for alias, name in tied.items() if name in tensors}
    return {**aliases, **tensors}


def _checkpoint(file: Path, key: str | None, unpacked: int | None) -> Mapping[str, Tensor]:
    _check_unpacked(file, unpacked)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are then refused
            held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Not chained: torch's message explains how to run what the file holds.
        raise AnynormError(f"the weights {str(file)!r} {_reason(error)}") from None
    if key is None:
        return _state(held, file)
    found = held.get(key) if isinstance(held, Mapping) else None
    if not isinstance(found, Mapping):
        known = sorted(_state_dicts(held)) if isinstance(held, Mapping) else []
        has = f"those in it are {listed(known)}" if known else "it holds none by a name"
        raise AnynormError(f"the weights {str(file)!r} have no state dict {key!r}: {has}.")
    return _state(found, file)


def _check_unpacked(file: Path, most: int | None) -> None:
    """Raise `AnynormError` if a compressed file unpacks to more than is allowed."""
    try:
        with zipfile.ZipFile(file) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or a broken one, of which torch says what is wrong
    size = file.stat().st_size
    bound = max(_TIMES * size, _SMALL) if most is None else most
    if total > bound:
        raise AnynormError(
            f"the weights {str(file)!r}, a file of {size} bytes, unpack to {total} bytes; at most "
            f"{bound} are allowed, because a file can be made to exhaust memory. If you trust its "
            f"source, allow it with unpacked={total} (--unpacked {total})."
        )


def _reason(error: Exception) -> str:
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return (
            f"are more than tensors: the file holds {found[1]}, and to load that would run code "
            f"from the file, which is never done here. {_ADVICE}"
        )
    if "TorchScript" in text:
        return f"are a TorchScript program; only weights are read here. {_ADVICE}"
    if isinstance(error, pickle.UnpicklingError):
        return (
            "are no checkpoint of torch, or hold what would have to be run to be read, which is "
            f"never done here. {_ADVICE}"
        )
    reason = text.partition("\n")[0] or type(error).__name__
    return f"cannot be read: {reason}. The file is incomplete, or of another format."


def _state(held: Any, file: Path) -> Mapping[str, Tensor]:
    """Find the state dict in a checkpoint."""
    for _ in range(_DEEPEST):
        entries = held if isinstance(held, Mapping) else {}
        inner = _chosen(entries, file)
        if inner is None:
            return _checked(held, entries, file)
        held = inner
    raise AnynormError(
        f"the weights {str(file)!r} are not a state dict: they are nested more than {_DEEPEST} "
        f"levels deep. {_ADVICE}"
    )


def _chosen(entries: Mapping[Any, Any], file: Path) -> Mapping[Any, Any] | None:
    """The entry that is, or holds, the state dict; None if `entries` are the state dict itself."""
    usual = [name for name in _NESTS if isinstance(entries.get(name), Mapping)]
    others = [name for name in _state_dicts(entries) if name not in usual[:1]]
    if usual:
        if others:
            _say_what_is_left(usual[0], others, file)
        return entries[usual[0]]  # type: ignore[no-any-return]
    if len(others) > 1:
        raise AnynormError(
            f"the weights {str(file)!r} have several state dicts: {listed(others)}. Choose one "
            f"with key={others[0]!r} (--weights-key {others[0]})."
        )
    return entries[others[0]] if others else None


def _state_dicts(entries: Mapping[Any, Any]) -> list[str]:
    """The names of the entries that are mappings from names to tensors."""
    return [
        name
        for name, value in entries.items()
        if isinstance(name, str) and isinstance(value, Mapping) and value
        if all(_is_named(*item) for item in value.items())
    ]


def _say_what_is_left(taken: str, others: Sequence[str], file: Path) -> None:
    warnings.warn(
        f"the weights {str(file)!r}: {taken!r} is read. The file also holds {listed(others)}; "
        f"choose with key={others[0]!r} (--weights-key {others[0]}).",
        stacklevel=2,
    )


def _checked(held: Any, entries: Mapping[Any, Any], file: Path) -> Mapping[str, Tensor]:
    if others := [name for name, value in entries.items() if not _is_named(name, value)]:
        raise AnynormError(
            f"the weights {str(file)!r} are not a state dict: {listed(others)} in it are not named "
            f"tensors. {_ADVICE}"
        )
    if not entries:
        kind = "nothing" if isinstance(held, Mapping) else type_of(held)
        raise AnynormError(f"the weights {str(file)!r} have {kind}, not a state dict. {_ADVICE}")
    if empty := [name for name, value in entries.items() if value.is_meta]:
        raise AnynormError(
            f"the weights {str(file)!r} have no values for {listed(empty)}: these tensors are on "
            "the meta device. Save the model after its weights were loaded."
        )
    return entries


def _is_named(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)
