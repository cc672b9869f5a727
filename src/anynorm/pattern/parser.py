"""Reading a pattern: from its text to its axes, or to an error with a caret under the fault."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anynorm.errors import PatternError, nearest
from anynorm.pattern.axes import AXES, ELLIPSIS, Axes, Part

__all__ = ["read"]

_TOKEN = re.compile(r"\.\.\.|[A-Za-z_]\w*|[\[\]()]|\S")


def read(text: str) -> Axes:
    """Return the axes of a pattern; raises `PatternError`."""
    return _Reader(text).axes()


class _Reader:
    """Reads one pattern from left to right; it keeps track of open brackets and parentheses."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.bracket: int | None = None
        self.paren: int | None = None
        self.filled = False  # whether the open bracket or parenthesis has an axis already
        self.done: list[tuple[Part, ...]] = []
        self.split: list[Part] = []
        self.seen: set[str] = set()

    def axes(self) -> Axes:
        for token, at in _tokens(self.text):
            self._read(token, at)
        for opened, name in ((self.bracket, "bracket"), (self.paren, "parenthesis")):
            if opened is not None:
                self._fail(opened, f"this {name} is never closed", "close it")
        if not self.done:
            self._fail(0, "the pattern names no axis", "try '[n] c [...]'")
        return tuple(self.done)

    def _read(self, token: str, at: int) -> None:
        if token == "[":
            self._open(at)
        elif token == "]":
            self._close(at)
        elif token == "(":
            self._enter(at)
        elif token == ")":
            self._leave(at)
        else:
            self._axis(token, at)

    def _open(self, at: int) -> None:
        if self.bracket is not None:
            self._fail(at, "a bracket inside a bracket", "close the first one before it")
        self.bracket, self.filled = at, False

    def _close(self, at: int) -> None:
        if self.bracket is None:
            self._fail(at, "this bracket was never opened", "remove it or open it")
        if not self.filled:
            self._fail(at, "nothing in these brackets", "name the axes that share μ and σ")
        if self.paren is not None and self.bracket is not None and self.bracket < self.paren:
            self._fail(at, "the bracket closes inside a parenthesis", "close the parenthesis first")
        self.bracket = None

    def _enter(self, at: int) -> None:
        if self.paren is not None:
            self._fail(at, "a parenthesis inside a parenthesis", "split the axis in one go")
        self.paren, self.split = at, []

    def _leave(self, at: int) -> None:
        if self.paren is None:
            self._fail(at, "this parenthesis was never opened", "remove it or open it")
        if self.bracket is not None and self.paren is not None and self.bracket > self.paren:
            self._fail(at, "a bracket is still open here", "close it before the parenthesis")
        if len(self.split) < 2:
            self._fail(at, "parentheses split an axis in two or more", "as in '(g [c])'")
        self.done.append(tuple(self.split))
        self.paren = None

    def _axis(self, name: str, at: int) -> None:
        self._check_name(name, at)
        self.seen.add(name)
        self.filled = True
        part = Part(name, shared=self.bracket is not None)
        if self.paren is None:
            self.done.append((part,))
        else:
            self.split.append(part)

    def _check_name(self, name: str, at: int) -> None:
        if name in self.seen:
            self._fail(at, f"axis '{name}' stands here a second time", "name each axis once")
        if name == ELLIPSIS and self.paren is not None:
            self._fail(at, "'...' cannot be part of a split axis", "take it out of the parentheses")
        if name != ELLIPSIS and name not in AXES:
            known = ", ".join(f"{axis} ({what})" for axis, what in AXES.items())
            self._fail(at, f"unknown axis '{name}'", f"known: {known}, ...{nearest(name, AXES)}")
        if name in ("g", "k") and self.paren is None:
            self._fail(at, f"'{name}' is a part of an axis", f"split it: '({name} [c])'")

    def _fail(self, at: int, fault: str, fix: str) -> None:
        raise PatternError(f"{fault}:\n    {self.text}\n    {' ' * at}^\n{fix}")


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    for match in _TOKEN.finditer(text):
        yield match.group(), match.start()
