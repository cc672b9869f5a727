"""A cell of the study: all settings of one training run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from anynorm.errors import AnynormError, UnknownNameError

__all__ = ["OPTIMIZERS", "PLACEMENTS", "SCHEMA", "Cell", "Option", "label", "parse_norm"]

SCHEMA = 1
# Before or after the activation; before the sublayer of a residual block, or after its sum.
PLACEMENTS = ("before", "after", "pre", "post")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")

Option = tuple[str, int | float | str | bool]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One independent, deterministic training run.

    `lr` is the learning rate, `init` multiplies the initial weights, and `batch` counts samples.
    `placement` puts the normalizer before or after the activation, or in a residual network before
    each sublayer ("pre") or after each sum ("post"). With ``affine=False``, γ stays 1 and β stays
    0. `noise` adds the noisy control after every normalizer (Santurkar et al. 2018,
    arXiv:1805.11604). `warmup` counts the steps in which the learning rate rises from 0 to `lr`,
    and `source` is a fingerprint of a user's own code. Equal cells have equal keys, even if their
    numbers were written differently.

    >>> cell = Cell(subject="mlp-relu", data="digits", norm="batch", lr=0.1, steps=150, seed=0)
    >>> cell.label, len(cell.key)
    ('batch', 24)
    """

    subject: str
    data: str
    norm: str
    norm_options: tuple[Option, ...] = ()
    lr: float
    init: float = 1.0
    batch: int = 60
    placement: str = "before"
    affine: bool = True
    noise: bool = False
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    warmup: int = 0
    steps: int
    seed: int
    probes: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        _check_choice("placement", self.placement, PLACEMENTS)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        for name, zero in (("lr", False), ("init", False), ("weight_decay", True)):
            object.__setattr__(self, name, _rounded(name, getattr(self, name), zero=zero))
        for name, least in (("batch", 1), ("steps", 1), ("seed", 0), ("warmup", 0)):
            _check_count(name, getattr(self, name), least)
        object.__setattr__(self, "norm_options", tuple(sorted(self.norm_options)))

    @property
    def key(self) -> str:
        """24 hexadecimal digits that identify the whole configuration."""
        text = json.dumps([SCHEMA, asdict(self)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def label(self) -> str:
        """The normalizer as tables name it, such as ``group(groups=8)`` or ``batch + noise``."""
        return label(vars(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "norm_options": [list(option) for option in self.norm_options]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Cell:
        """Return the cell from the values of `to_dict`; unknown names are an error."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise AnynormError(f"a cell has no field {sorted(unknown)[0]!r}.")
        options = tuple((name, value) for name, value in values.get("norm_options", ()))
        return cls(**{**values, "norm_options": options})


def label(cell: Mapping[str, Any]) -> str:
    """Name the normalizer of a cell, or of a record's ``cell``, with its options.

    >>> label({"norm": "group", "norm_options": [["groups", 8]]})
    'group(groups=8)'
    >>> label({"norm": "batch", "affine": False})
    'batch, no γ β'
    """
    options = ", ".join(f"{name}={value}" for name, value in cell.get("norm_options", ()))
    name = f"{cell['norm']}({options})" if options else str(cell["norm"])
    name = name if cell.get("affine", True) else f"{name}, no γ β"
    return f"{name} + noise" if cell.get("noise") else name


def parse_norm(text: str) -> tuple[str, tuple[Option, ...]]:
    """Split a normalizer's name from its options.

    >>> parse_norm("group:groups=8")
    ('group', (('groups', 8),))
    """
    if not isinstance(text, str):
        raise AnynormError(
            f"normalizer {text!r} is not a text; write 'name' or 'name:option=value'."
        )
    name, _, rest = text.partition(":")
    return name, tuple(_option(part, text) for part in rest.split(",") if part)


def _option(part: str, text: str) -> Option:
    name, equals, value = part.partition("=")
    if not (name and equals and value):
        raise AnynormError(
            f"normalizer {text!r}: cannot read the option {part!r}; write name:option=value."
        )
    return name, _number(value)


def _number(text: str) -> int | float | str | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def _rounded(name: str, value: float, *, zero: bool) -> float:
    """Return a finite positive number (or zero, if allowed), rounded to six digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AnynormError(f"{name} is {value!r}; it must be a number.")
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        rule = "0 or more" if zero else "positive"
        raise AnynormError(f"{name} is {value!r}; it must be {rule} and finite.")
    # With six digits, 0.1 * 30 / 60 and 0.05 are the same learning rate and the same cell.
    return float(f"{value:.6g}")


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AnynormError(f"{name} is {value!r}; it must be a whole number, {least} or more.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UnknownNameError(name, value, choices)
