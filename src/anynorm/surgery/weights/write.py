"""Write a model's weights to a safetensors file, tied ones once."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from anynorm.errors import AnynormError, listed
from anynorm.report.files import check_target, whole
from anynorm.surgery.model import check_model
from anynorm.surgery.weights.manifest import KEY, Manifest, check_manifest
from anynorm.surgery.weights.manifest import manifest as manifest_of
from anynorm.surgery.weights.ties import first_names

__all__ = ["check_weights", "save_state"]


def save_state(
    model: nn.Module, path: str | os.PathLike[str], *, manifest: Manifest | None = None
) -> None:
    """Write the state dict of a model, and its manifest, as a ``.safetensors`` file.

    The file is complete or absent.  Tied weights are stored once; the metadata has their other
    names, in the form that `safetensors.torch.save_model` writes.  (That function does not take
    weights of which one is the transpose of another.)  The metadata also has the manifest, by which
    :func:`load_into` finds settings of normalizers that are not those of the weights.

    Args:
        model: the model.
        path: the file, whose name ends in ``.safetensors``.
        manifest: what the file says about the normalizers; None for what
            :func:`anynorm.manifest` finds without an example.

    Raises:
        AnynormError: The name has another ending, some state is no tensor, `manifest` is no
            manifest, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from anynorm.surgery.weights.read import load_state
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(nn.BatchNorm1d(2), f"{folder}/new/norm.safetensors")
        ...     load_state(f"{folder}/new/norm.safetensors")["running_var"]
        tensor([1., 1.])
    """
    check_weights(path)
    check_model("save_state", model)
    state = model.state_dict()
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise AnynormError(
            f"{listed(others)} of the model are not tensors; safetensors only stores tensors."
        )
    first = first_names(state)
    tied = {name: one for name, one in first.items() if name != one}
    about = manifest_of(model) if manifest is None else manifest
    check_manifest(about)
    try:
        stored = _apart({name: state[name] for name in state if name not in tied})
        with whole(path) as beside:
            beside.touch()
            mode = beside.stat().st_mode
            save_file(stored, beside, metadata={"format": "pt", KEY: about.text(), **tied})
            beside.chmod(mode)  # the library's own lets nobody else read the file
    except Exception as error:
        raise AnynormError(f"the weights {os.fspath(path)!r} cannot be written: {error}") from error


def check_weights(path: str | os.PathLike[str]) -> None:
    """Raise `AnynormError` if weights cannot be written to `path`."""
    if Path(path).suffix != ".safetensors":
        raise AnynormError(
            f"the weights {os.fspath(path)!r}: they are written as safetensors, which can be read "
            f"without running code; name the file {str(Path(path).with_suffix('.safetensors'))!r}."
        )
    check_target(path, "weights file")


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, so that no two share memory."""
    used: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        state[name] = plain.clone() if memory in used else plain
        used.add(memory)
    return state
