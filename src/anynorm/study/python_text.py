"""Text as data: the sources of Python's own standard library, character by character."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from anynorm.errors import AnynormError

__all__ = ["ALPHABET", "LENGTH", "python_text"]

# Printable ASCII and the newline. All other characters become one symbol after these.
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
LENGTH = 64

# Plain modules that every supported Python has: about 680 and 130 thousand characters.
_TRAINING = ("_pydecimal", "argparse", "inspect", "tarfile", "typing")
_HELD_OUT = ("difflib", "statistics")

Pair = tuple[Tensor, Tensor]


def python_text() -> tuple[Pair, Pair]:
    """Return training and held-out sequences of the standard library's source text.

    The two parts come from different modules. Each sequence has 64 characters; its targets are the
    same characters one position further on. The text is that of the running Python, so another
    Python version gives other data; a record names the version in its ``environment``.

    Shape:
        Each part is a pair (inputs, targets) of whole numbers, both (N, 64). A number is a place
        in `ALPHABET`, or ``len(ALPHABET)`` for any other character.

    Raises:
        AnynormError: The sources of the standard library do not exist as files.
    """
    return _sequences(_TRAINING), _sequences(_HELD_OUT)


def encode(text: str) -> Tensor:
    """Return the number of each character.

    >>> encode("\\n !é").tolist()
    [0, 1, 2, 96]
    """
    place = {character: index for index, character in enumerate(ALPHABET)}
    return torch.tensor([place.get(character, len(ALPHABET)) for character in text])


def _sequences(modules: tuple[str, ...]) -> Pair:
    parts = [_cut(encode(_source(name))) for name in modules]
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def _cut(numbers: Tensor) -> Pair:
    """Cut one text into consecutive sequences; the rest at its end is dropped."""
    count = (len(numbers) - 1) // LENGTH
    inputs, targets = numbers[: count * LENGTH], numbers[1 : count * LENGTH + 1]
    return inputs.view(count, LENGTH), targets.view(count, LENGTH)


def _source(module: str) -> str:
    file = Path(sysconfig.get_path("stdlib"), f"{module}.py")
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise AnynormError(
            f"data 'python-text' reads the source of Python's own module {module!r}, but {file} "
            f"cannot be read ({error}). Use a Python that has its standard library as files."
        ) from error
