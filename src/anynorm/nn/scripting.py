"""What torch.jit.script is told: our layers choose between operators in Python, which it cannot."""

from __future__ import annotations

from typing import Any

import torch

from anynorm.errors import AnynormError

__all__ = ["Unscripted"]


class Unscripted(torch.nn.Module):
    """A layer that says, where torch.jit.script meets it, what to use instead."""

    def __prepare_scriptable__(self) -> Any:
        """Raise `AnynormError`; torch.jit.script asks every module for this before it compiles."""
        raise AnynormError(
            f"torch.jit.script cannot compile {type(self).__name__}: anynorm's layers choose "
            "between operators in Python. Use torch.export.export(model, (x,)), which has taken "
            "TorchScript's place; torch.jit.trace(model.eval(), x) for inputs of one shape; or "
            "anynorm.convert(model, 'torch').model, whose layers of torch.nn can be scripted."
        )
