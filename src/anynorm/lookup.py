"""Objects that a user names as ``package.module:attribute``: models, data functions."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from anynorm.errors import AnynormError, nearest, type_of

__all__ = ["called", "digest", "ended_by", "is_path", "path_of", "resolve"]

# Files of Python, of installed packages, and of the import system.
_INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_NOT_THE_USERS = ("<frozen", str(Path(__file__).parent), *_INSTALLED)


def is_path(name: str) -> bool:
    """Whether `name` has the form ``package.module:attribute``."""
    module, colon, attribute = name.partition(":")
    return bool(module and colon and attribute) and module != "torchvision"


def resolve(name: str, kind: str) -> Callable[..., Any]:
    """Import the object ``package.module:attribute``; the current directory is searched first.

    Raises `AnynormError` when the module cannot be imported, or has no such callable.

    >>> resolve("math:sqrt", "model")(4)
    2.0
    """
    module_name, _, attribute = name.partition(":")
    module = _import(module_name, name, kind)
    try:
        target = attrgetter(attribute)(module)
    except AttributeError:
        hint = nearest(attribute, vars(module))
        raise AnynormError(
            f"{kind} {name!r}: module {module_name!r} has no attribute {attribute!r}.{hint}"
        ) from None
    if not callable(target):
        raise AnynormError(
            f"{kind} {name!r} is {type_of(target)}; give a function (or class) to call."
        )
    return target  # type: ignore[no-any-return]


def called(name: str, kind: str, *values: Any, **arguments: Any) -> Any:
    """Call the object ``package.module:attribute``.

    Raises `AnynormError` if the arguments do not fit, or if the call raises an error.

    >>> called("math:sqrt", "model", 4)
    2.0
    """
    function = resolve(name, kind)
    words = [*(type(value).__name__ for value in values), *(f"{one}=" for one in arguments)]
    given = ", ".join(words) or "no arguments"
    _check_arguments(function, f"{kind} {name!r} cannot be called with {given}", values, arguments)
    try:
        # Functions can import modules, too.
        with _here_first():
            return function(*values, **arguments)
    except AnynormError:
        raise
    except SystemExit as error:
        raise AnynormError(f"{kind} {name!r}: {ended_by(error)}") from error
    except Exception as error:
        raise AnynormError(f"{kind} {name!r}: calling it with {given} raised {error!r}.") from error


def _check_arguments(
    function: Callable[..., Any], problem: str, values: Sequence[Any], arguments: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*values, **arguments)
    except TypeError as error:
        raise AnynormError(f"{problem}: {error}. Name a function that takes just that.") from None


def path_of(target: str | Callable[..., Any], kind: str) -> str:
    """The name by which a spawned worker process can import `target`; a name is returned unchanged.

    >>> import math
    >>> path_of(math.sqrt, "model")
    'math:sqrt'
    """
    if isinstance(target, str):
        return target
    module = getattr(target, "__module__", None)
    attribute = getattr(target, "__qualname__", "<object>")
    if not callable(target) or attribute == "<object>":
        raise AnynormError(
            f"{kind} is of type {type(target).__name__}; it must be a name, or the function or "
            "class that makes it, which worker processes call anew for every run. Give that."
        )
    if module in (None, "__main__") or "<" in attribute:
        raise AnynormError(
            f"{kind} {target!r} cannot be imported by the worker processes; "
            "move it to the top level of a module and pass 'module:name'."
        )
    return f"{module}:{attribute}"


def digest(**names: str) -> str:
    """Fingerprint of the source files behind the user's `names`, by kind; '' when there are none.

    It is part of a cell's configuration, so that the records of an old version of a model are never
    used for an edited model. Only the file of the named module is read, not its imports.
    """
    files = [_source(name, kind) for kind, name in names.items() if is_path(name)]
    return hashlib.sha256(b"\0".join(files)).hexdigest()[:12] if files else ""


def _source(name: str, kind: str) -> bytes:
    file = _import(name.partition(":")[0], name, kind).__file__
    return Path(file).read_bytes() if file else b""


def _missing(error: ModuleNotFoundError, module_name: str) -> str:
    """Say which module is missing: the one that was named, or one that it imports."""
    if f"{module_name}.".startswith(f"{error.name}."):
        return (
            f"there is no module named {error.name!r} here (searched from {os.getcwd()}); "
            "write package.module:function."
        )
    return (
        f"module {module_name!r} imports {error.name!r}, which is not installed ({_place(error)}). "
        "Install it in the environment of anynorm."
    )


def ended_by(error: SystemExit) -> str:
    """Return where a user's code called ``sys.exit``, and what to do instead."""
    return (
        f"the program was ended by sys.exit({error.code!r}) in {_place(error)}. "
        "Remove that call, or raise another exception there."
    )


def _place(error: BaseException) -> str:
    """The innermost line of the traceback in the user's own files."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    frame = (own or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}"


@contextmanager
def _here_first() -> Iterator[None]:
    """Search the current directory first, until the context ends.

    If it stayed in ``sys.path``, its modules could hide others that are imported later.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have removed it
            sys.path.remove(here)


def _import(module_name: str, name: str, kind: str) -> ModuleType:
    try:
        with _here_first():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise AnynormError(f"{kind} {name!r}: {_missing(error, module_name)}") from error
    except SystemExit as error:
        raise AnynormError(f"{kind} {name!r}: {ended_by(error)}") from error
    except Exception as error:
        raise AnynormError(
            f"{kind} {name!r}: importing {module_name!r} failed with {error!r}."
        ) from error
