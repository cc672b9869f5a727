"""A program in a file as a list of operators with common names, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

__all__ = ["Op", "Program", "Ref", "in_order"]

# Operators that keep the values of a constant: they change its type or shape, or repeat it.
_SAME = (
    *("cast", "identity", "dequantize", "quantize", "Unsqueeze", "unsqueeze", "Squeeze"),
    *("Reshape", "reshape", "view", "Expand", "expand", "repeat"),
)


class Ref(str):
    """The name of a value that an operator reads; other arguments are plain constants."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class Op:
    """An operator.

    `kind` is a common name ("conv", "batch", "add", ...), or the format's own name.  `layer` is the
    name of the module that it comes from, "" if the file does not say it.  `args` has its inputs
    and attributes by common names.
    """

    kind: str
    name: str
    layer: str
    args: Mapping[str, Any]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> list[Ref]:
        """The values that it reads."""
        return [value for value in self.args.values() if isinstance(value, Ref)]

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0] if self.outputs else ""


def in_order(ops: Sequence[Op]) -> list[Op]:
    """Return the operators without inputs that are computed later, so that no circle is left.

    No format allows such inputs, but a broken file may have them.
    """
    first: dict[str, int] = {}
    for index, op in enumerate(ops):
        for output in op.outputs:
            first.setdefault(output, index)

    def earlier(index: int, op: Op) -> Op:
        late = [k for k, v in op.args.items() if isinstance(v, Ref) and first.get(v, -1) >= index]
        args = {name: value for name, value in op.args.items() if name not in late}
        return replace(op, args=args) if late else op

    return [earlier(index, op) for index, op in enumerate(ops)]


@dataclass(frozen=True)
class Program:
    """The operators of a file in their order, and its tensors, which are read when they are needed.

    `tensors` has a function for each stored value, `names` the names that parameters have in the
    model where they differ, `types` the types of values where the file says them, such as
    "float16", `ranks` their numbers of axes where it says those.
    """

    format: str
    ops: Sequence[Op]
    tensors: Mapping[str, Callable[[], Tensor]]
    outputs: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def _makers(self) -> dict[str, Op]:
        found: dict[str, Op] = {}
        for op in self.ops:
            for output in op.outputs:
                found.setdefault(output, op)
        return found

    @cached_property
    def _readers(self) -> dict[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op)
        return found

    def maker(self, value: Any) -> Op | None:
        """The operator that computes a value; None for inputs, stored tensors and constants."""
        return self._makers.get(value) if isinstance(value, Ref) else None

    def readers(self, value: str) -> list[Op]:
        """The operators that read a value."""
        return self._readers.get(value, [])

    def stored(self, value: Any) -> Ref | None:
        """The name of the tensor behind a value, through casts, quantization and new shapes; None
        without one."""
        while isinstance(value, Ref) and value not in self.tensors:
            maker = self.maker(value)
            if maker is None or maker.kind not in _SAME:
                return None
            value = maker.args.get("x")
        return value if isinstance(value, Ref) else None

    def tensor(self, value: Any) -> Tensor | None:
        """The tensor behind a value in its own type; None if it is computed or quantized."""
        name = self.stored(value)
        found = None if name is None else self.tensors[name]()
        return found if found is None or found.is_floating_point() else None

    def number(self, value: Any) -> float | None:
        """The number that a value always is; None if it is not one number."""
        if isinstance(value, (int, float)):
            return float(value)
        name = self.stored(value)
        found = None if name is None else self.tensors[name]()
        return float(found) if found is not None and found.numel() == 1 else None

    def name_of(self, value: Any) -> str:
        """The name of the parameter behind a value, as in a state dict; "" without."""
        name = self.stored(value)
        return "" if name is None else self.names.get(name, str(name))

    def type_of(self, value: str) -> str:
        """The type of a value if it has 16 bits; "" for another, or if it is not known."""
        return self.types.get(value, "")

    def back(self, value: Any, kinds: Sequence[str]) -> tuple[Op | None, list[Ref]]:
        """Go back from a value through operators of these kinds.

        Returns the first other operator, and the values on the way, the given one first.
        """
        passed: list[Ref] = []
        maker = self.maker(value)
        while maker is not None:
            passed.append(value)
            if maker.kind not in kinds:
                break
            value = maker.args.get("x")
            maker = self.maker(value)
        return maker, passed

    def other_readers(self, values: Sequence[str], known: Sequence[Op]) -> Iterator[str]:
        """Name what reads one of the values besides the operators that are known."""
        expected = {id(op) for op in known}
        for value in values:
            if value in self.outputs:
                yield "the output of the program"
            yield from (op.name for op in self.readers(value) if id(op) not in expected)
