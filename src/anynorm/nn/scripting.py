"""The error for torch.jit.script, which cannot compile layers that choose operators in Python."""

from __future__ import annotations

from typing import Any

import torch

from anynorm.errors import AnynormError

__all__ = ["Unscripted"]


class Unscripted(torch.nn.Module):
    """A layer that raises an error in torch.jit.script, and says what to use instead."""

    def __prepare_scriptable__(self) -> Any:
        """Raise `AnynormError`; torch.jit.script asks every module for this before it compiles."""
        raise AnynormError(
            f"torch.jit.script cannot compile {type(self).__name__}: anynorm's layers choose "
            "between operators in Python. Use torch.export.export(model, (x,)), which replaces "
            "TorchScript; torch.jit.trace(model.eval(), x) for inputs of one shape; or "
            "anynorm.convert(model, 'torch').model, whose layers of torch.nn can be scripted."
        )
