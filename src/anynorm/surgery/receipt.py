"""The receipt of a verb: changes, refusals with reasons, and the measured difference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from anynorm.errors import AnynormError
from anynorm.report.files import write_json
from anynorm.report.text import visible

if TYPE_CHECKING:
    from anynorm.surgery.recognized import Normalizers
    from anynorm.surgery.unmatched import Search

__all__ = ["Difference", "Log", "Model", "Note", "Receipt", "Result"]

Model = TypeVar("Model", bound=nn.Module, default=nn.Module)


@dataclass(frozen=True)
class Difference:
    """The difference of two outputs.

    If a value is not finite in one output and different in the other, both numbers are infinite.

    Args:
        absolute: the largest absolute difference.
        relative: the absolute difference divided by the largest value.
        compared: False if no output had a finite value before, so that nothing was compared.

    Example:
        >>> Difference.between([torch.tensor([1.0, -4.0])], [torch.tensor([1.0, -3.0])])
        Difference(absolute=1.0, relative=0.25)
    """

    absolute: float
    relative: float
    compared: bool = field(default=True, repr=False)

    @classmethod
    def between(cls, before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
        """Compare tensors pairwise; if shapes differ, the difference is infinite."""
        shapes = [[tensor.shape for tensor in tensors] for tensors in (before, after)]
        if shapes[0] != shapes[1]:
            return cls(float("inf"), float("inf"))
        pairs = [_apart(one, other) for one, other in zip(before, after, strict=True)]
        seen = [one for one in before if one.numel()]
        compared = not seen or any(bool(one.isfinite().any()) for one in seen)
        return cls(max(a for a, _ in pairs), max(r for _, r in pairs), compared)


def _apart(one: Tensor, other: Tensor) -> tuple[float, float]:
    if one.numel() == 0:
        return 0.0, 0.0
    one, other = one.double().cpu(), other.double().cpu()
    same = (one == other) | (one.isnan() & other.isnan())
    away = torch.where(same, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf).max().item()
    finite = one[one.isfinite()]
    largest = finite.abs().max().item() if finite.numel() else 0.0
    return away, 0.0 if away == 0 else away / largest if largest else float("inf")


@dataclass(frozen=True)
class Note:
    """The change of one layer, or why it was not changed.

    Args:
        layer: the name of the layer in the model.
        text: what was done, or the reason.

    Example:
        >>> Note("layer1.bn", "frozen").text
        'frozen'
    """

    layer: str
    text: str


@dataclass
class Log:
    """The notes of a verb while it works; they become the receipt."""

    changed: list[Note] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    search: Search | None = None  # the layers that the verb searches, for the message if none match
    found: Normalizers | None = None  # the normalizers that an example showed

    def change(self, layer: str, text: str) -> None:
        """Note that a layer was changed."""
        self.changed.append(Note(layer, text))

    def refuse(self, layer: str, reason: str) -> None:
        """Note that a layer was not changed, and why."""
        self.refused.append(Note(layer, reason))


@dataclass(frozen=True)
class Receipt:
    """What a verb changed and refused, and the difference of the outputs before and after.

    Args:
        verb: the verb, as in "convert to group".
        changed: the changed layers, with the change.
        refused: the layers that were not changed, with the reasons.
        facts: further facts, by name.
        difference: the difference of the outputs on the example; None without an example.
        tolerance: the largest relative difference that was allowed; None for any.
        rolled_back: whether the difference was larger, so that the change was undone.

    Example:
        >>> receipt = Receipt("freeze", (Note("bn", "frozen"),), (), {})
        >>> print(receipt)
        freeze: 1 changed, 0 refused
          bn: frozen
    """

    verb: str
    changed: tuple[Note, ...]
    refused: tuple[Note, ...]
    facts: Mapping[str, Any]
    difference: Difference | None = None
    tolerance: float | None = None
    rolled_back: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to a file."""
        return asdict(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the receipt as JSON; the file is always complete or absent."""
        write_json(path, self.to_dict())

    def __str__(self) -> str:
        lines = [f"{self.verb}: {len(self.changed)} changed, {len(self.refused)} refused"]
        lines += [f"  {note.layer}: {note.text}" for note in self.changed]
        lines += [f"  {note.layer} refused: {note.text}" for note in self.refused]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.facts.items()]
        if self.difference is not None:
            bound = "" if self.tolerance is None else f", allowed {self.tolerance:.3g}"
            lines.append(f"  output difference: {self.difference.relative:.3g} relative{bound}")
            if not self.difference.compared:
                lines[-1] = (
                    "  output difference: nothing was compared, since no output was finite before "
                    "the change; repair the model first (anynorm.doctor), or give tolerance=None"
                )
        if self.rolled_back:
            lines.append("  rolled back: the change was undone")
        return "\n".join(map(visible, lines))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Result(Generic[Model]):
    """The model that a verb returns, and its receipt.

    For type checkers, the model has the type of the verb's argument. The type is wrong if the model
    itself was a normalizer and was replaced.

    Args:
        model: the model.
        receipt: what was changed, what was not and why.

    Example:
        >>> Result(nn.Identity(), Receipt("freeze", (), (), {})).sure()
        Identity()
    """

    model: Model
    receipt: Receipt

    def sure(self) -> Model:
        """Return the model if the change was not undone.

        Returns:
            The model.

        Raises:
            AnynormError: The change was undone; the message has the receipt.
        """
        if self.receipt.rolled_back:
            raise AnynormError(f"the change was undone.\n{self.receipt}")
        return self.model
