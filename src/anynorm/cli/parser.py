"""The parser of the command line: short errors, with suggestions for mistyped words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NoReturn

from anynorm.errors import AnynormError, nearest

__all__ = ["Parser", "check_words"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, without the usage, which has a dozen lines."""

    def error(self, message: str) -> NoReturn:
        """Raise `AnynormError` with the message."""
        raise AnynormError(f"`{self.prog}`: {message}. `{self.prog} --help` lists all options.")


def check_words(
    words: Sequence[str],
    parser: argparse.ArgumentParser,
    commands: Mapping[str, argparse.ArgumentParser],
) -> None:
    """Raise `AnynormError` for an unknown command, and for an option that it does not have."""
    if not words or words[0].startswith("-"):
        _check_options(words, parser)
    elif words[0] in commands:
        _check_options(words[1:], commands[words[0]])
    else:
        raise AnynormError(
            f"there is no command {words[0]!r}.{nearest(words[0], commands)} "
            "`anynorm --help` lists all commands."
        )


def _check_options(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    known = [name for name in parser._option_string_actions if name.startswith("--")]
    for word in takewhile(lambda word: word != "--", words):
        name = word.partition("=")[0]
        # A beginning of an option's name is left to argparse, which completes it.
        if name.startswith("--") and not any(option.startswith(name) for option in known):
            raise AnynormError(
                f"`{parser.prog}` has no option {name!r}.{nearest(name, known)} "
                f"`{parser.prog} --help` lists all options."
            )
