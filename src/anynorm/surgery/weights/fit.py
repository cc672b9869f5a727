"""Load weights from a file into a model, if every name, shape and value fits."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anynorm.errors import AnynormError, listed
from anynorm.surgery.batches import Batch, Forward
from anynorm.surgery.model import check_model
from anynorm.surgery.weights.manifest import Manifest, recorded
from anynorm.surgery.weights.manifest import manifest as manifest_of
from anynorm.surgery.weights.mismatch import Mismatch, grouped
from anynorm.surgery.weights.names import plain_names, prefix_hint
from anynorm.surgery.weights.read import load_state
from anynorm.surgery.weights.ties import first_names

__all__ = ["load_into", "shapes"]

_State = Mapping[str, Tensor]
_MOST = 4  # tensors that a message describes
_RESTORE = " (anynorm.surgery.Manifest.read(path).restore(model) sets ε and momentum)"


def load_into(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    finite: bool = True,
    key: str | None = None,
    unpacked: int | None = None,
    manifest: Manifest | bool = True,
    example: Batch | None = None,
    forward: Forward | None = None,
) -> None:
    """Load the weights in a file, as :func:`load_state` reads them, into a model.

    Every name must be there, with its shape and kind of number, and no other; only batch norm's
    count of batches may lack.  Of tied weights one name is enough.

    The normalizers must compute what they did when the file was written, if it has a manifest
    (see :func:`anynorm.manifest`).  A difference that only matters in training, such as another
    momentum, is a warning.

    Args:
        model: the model, which is changed itself.
        path: the file.
        finite: whether NaN and infinite values are an error.
        key, unpacked: as for :func:`load_state`.
        manifest: whether the model is compared with the manifest in the file; or the manifest to
            compare with, for a file that has none.
        example: an input, which shows what normalizers of other classes compute.
        forward: how the model is called on it (see :mod:`anynorm.surgery.batches`).

    Raises:
        AnynormError: Weights do not fit, or are not finite, or normalizers compute something else
            than the manifest says, with their names; or the file cannot be read.  Then the model
            is as it was.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(1, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(1, 1), "bias": torch.zeros(1)}, f"{folder}/a.pt")
        ...     load_into(model, f"{folder}/a.pt")
        >>> model.weight.item()
        1.0
    """
    check_model("load_into", model)
    state, own = load_state(path, key=key, unpacked=unpacked), model.state_dict()
    plain = plain_names(own)
    values = _with_ties({name: state[p] for name, p in plain.items() if p in state}, own)
    missing = [plain[name] for name in plain if name not in values and not _is_count(name)]
    names = set(plain.values())
    unexpected = [name for name in state if name not in names and not _is_count(name)]
    if problems := [*_lacking(missing, unexpected), *_misfits(values, own), *_untied(values, own)]:
        raise AnynormError(
            f"the weights {os.fspath(path)!r} do not fit {type(model).__name__}. "
            f"{' '.join(problems)}{prefix_hint(missing, unexpected)}"
        )
    if finite:
        _check_finite(values, path)
    about = _recorded(path) if manifest is True else manifest
    if about:
        here = manifest_of(model, example, forward=forward)
        _check_settings(here.differences(about), path)
    model.load_state_dict(values, strict=False)


def _recorded(path: str | os.PathLike[str]) -> Manifest | None:
    """The manifest in a file; one that cannot be read is a warning, since the weights fit."""
    try:
        return recorded(path)
    except AnynormError as error:
        warnings.warn(f"{error} So the normalizers are not compared with it.", stacklevel=3)
        return None


def _check_settings(found: Sequence[Mismatch], path: str | os.PathLike[str]) -> None:
    """Raise `AnynormError` for settings that change outputs; warn of those that change training."""
    if wrong := [one for one in found if one.effect == "outputs"]:
        raise AnynormError(
            f"the weights {os.fspath(path)!r} fit, but their normalizers computed something else "
            f"when they were written: {'; '.join(grouped(wrong))}. Build the model with these "
            f"settings{_RESTORE}, or load the weights all the same with manifest=False "
            "(--ignore-manifest)."
        )
    if trained := [one for one in found if one.effect == "training"]:
        warnings.warn(
            f"the weights {os.fspath(path)!r}: in training, normalizers differ from when they were "
            f"written: {'; '.join(grouped(trained))}. Set this if you train on{_RESTORE}, or say "
            "nothing with manifest=False (--ignore-manifest).",
            stacklevel=3,
        )


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that weights for `model` must have, by name.

    >>> shapes(nn.Linear(3, 2))
    {'weight': (2, 3), 'bias': (2,)}
    """
    state = {name: t for name, t in model.state_dict().items() if not _is_count(name)}
    return {name: tuple(t.shape) for name, t in state.items() if not is_lazy(t)}


def _is_count(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # older checkpoints and frozen layers have none


def _with_ties(values: _State, own: _State) -> dict[str, Tensor]:
    """Add missing names of tied weights that the file has under another name."""
    first = first_names(own)
    known = {first[name]: value for name, value in values.items()}
    found = {name: known.get(first[name]) for name in own}
    return {n: values.get(n, value) for n, value in found.items() if value is not None}


def _lacking(missing: list[str], unexpected: list[str]) -> Iterator[str]:
    if missing:
        yield f"The file lacks {len(missing)}: {listed(missing)}."
    if unexpected:
        yield f"The model has no {listed(unexpected)} ({len(unexpected)})."


def _misfits(values: _State, own: _State) -> Iterator[str]:
    """Describe tensors with a wrong shape or type."""
    there = {name: own[name] for name in values if not is_lazy(own[name])}
    off = [name for name, tensor in there.items() if _form(tensor) != _form(values[name])]
    for name in off[:_MOST]:
        yield (
            f"{name!r} is {_described(own[name])} in the model and {_described(values[name])} in "
            "the file."
        )
    if len(off) > _MOST:
        yield f"So differ {len(off) - _MOST} more."
    if off and all(_is_cut(values[name].shape, own[name].shape) for name in off):
        yield (
            "It may hold a pruned model, which fits once its plan has cut yours: "
            "Plan.read(file).apply(model) (--pruned-by)."
        )


def _form(tensor: Tensor) -> tuple[object, ...]:
    numbers = (tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool)
    # Averaged copies keep counts as fractions.
    return tuple(tensor.shape), numbers if tensor.ndim else None


def _is_cut(small: Sequence[int], large: Sequence[int]) -> bool:
    pairs = zip(small, large, strict=False)
    return len(small) == len(large) and all(one <= other for one, other in pairs)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _untied(values: _State, own: _State) -> Iterator[str]:
    """Find names of one tied weight for which the file has different values."""
    first = first_names(own)
    off = [n for n, value in values.items() if not _same(values.get(first[n], value), value)]
    if off:
        yield (
            f"{listed([first[name] for name in off])} and {listed(off)} are one in the model and "
            "differ in the file."
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one.nan_to_num(), other.nan_to_num())


def _check_finite(values: _State, path: str | os.PathLike[str]) -> None:
    off = [name for name, value in values.items() if not _is_finite(value)]
    if off:
        raise AnynormError(
            f"the weights {os.fspath(path)!r} have NaN or infinite values in {len(off)}: "
            f"{listed(off)}. Use an earlier checkpoint, or allow them with finite=False "
            "(--allow-non-finite)."
        )


def _is_finite(value: Tensor) -> bool:
    # Eight-bit numbers do not know the question.
    small = value.is_floating_point() and value.element_size() == 1
    return bool((value.float() if small else value).isfinite().all())
