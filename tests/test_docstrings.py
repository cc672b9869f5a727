"""Docstrings of public names have torch's sections, and say all that a signature asks about.

The rules: one sentence first; then the sections that apply, in the order of `SECTIONS`.  `Args` has
every parameter.  A parameter that a class of torch.nn has as well may be left to that class, if
`Args` refers to it, as in "the others: as for :class:`torch.nn.LayerNorm`".  `Shape` has every
argument of a layer's call.  What returns something has `Returns`; what raises, or calls a check,
has `Raises`.  `Example` has code that runs (`test_docs.py` runs it), or `NO_EXAMPLE` a reason.
"""

import ast
import importlib
import inspect
import re
from textwrap import dedent

import pytest
import torch

SECTIONS = ["Args", "Shape", "Returns", "Raises", "Example", "Reference"]
ROOMS = ["functional", "nn", "surgery", "spec", "catalogue", "pattern", "errors", "activations"]
ROOMS += ["reference", "doctor", "audit", "study", ""]
NO_EXAMPLE = {
    "study.Study": "runs take minutes",
    "study.study": "runs take minutes",
    "tune_allocator": "it changes the allocator of the whole process",
}


def _public():
    """Every class and function of the rooms once, by the first name that it has."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"anynorm.{room}".rstrip("."))
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(value, f"{room}.{name}".lstrip("."))
    return {name: value for value, name in found.items()}


PUBLIC = _public()


def _sections(documented):
    """What stands before the sections, under "", and the text of each by its title."""
    parts = re.split(r"^([A-Z]\w+):$", inspect.cleandoc(documented.__doc__), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _items(text):
    """The names before the colons of a list, `    one, other: what they are`."""
    lists = re.findall(r"^    (?:- )?(\w+(?:, \w+)*): ", text, flags=re.MULTILINE)
    return [name for names in lists for name in names.split(", ")]


def _parameters(called):
    if inspect.isclass(called) and issubclass(called, Exception) and "__init__" not in vars(called):
        return []
    return [name for name in inspect.signature(called).parameters if name != "self"]


def _left_to_torch(text):
    """The parameters of the classes of torch.nn that a text refers to, and what is passed on."""
    classes = re.findall(r":class:`torch\.nn\.(\w+)`", text)
    own = [name for one in classes for name in inspect.signature(getattr(torch.nn, one)).parameters]
    return [*own, "args", "kwargs"] if classes else []


def _methods(documented):
    """The functions that run when a public name is called: of a layer, its constructor and call."""
    if inspect.isfunction(documented):
        return [documented]
    own = [vars(base) for base in documented.__mro__ if base.__module__.startswith("anynorm")]
    called = [
        methods.get(name) for methods in own for name in ("__init__", "__post_init__", "forward")
    ]
    return [method for method in called if inspect.isfunction(method)]


def _can_raise(function):
    if function.__code__.co_filename.startswith("<"):  # a constructor that dataclasses wrote
        return False
    for node in ast.walk(ast.parse(dedent(inspect.getsource(function)))):
        called = getattr(node, "func", None)
        name = getattr(called, "attr", getattr(called, "id", "")).lstrip("_")
        if isinstance(node, ast.Raise) or name.startswith(("check_", "need_")):
            return True
    return False


def _returns(documented):
    return inspect.isfunction(documented) and documented.__annotations__["return"] != "None"


def _runs(text):
    lines = [line for line in text.splitlines() if line.lstrip().startswith(">>>")]
    return any("+SKIP" not in line for line in lines)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_is_complete(name):
    documented = PUBLIC[name]
    sections = _sections(documented)
    summary, *rest = sections[""].splitlines()
    assert summary.endswith(".")
    assert ". " not in summary, "the first line is one sentence"
    assert not rest or not rest[0], "an empty line follows the first sentence"
    titles = [title for title in sections if title]
    assert titles == [title for title in SECTIONS if title in titles]
    assert all(text.strip() for text in sections.values()), "no section is empty"
    arguments = sections.get("Args", "")
    told = {*_items(arguments), *_left_to_torch(arguments)}
    assert [one for one in _parameters(documented) if one not in told] == []
    if inspect.isclass(documented) and issubclass(documented, torch.nn.Module):
        shapes = _items(sections.get("Shape", ""))
        assert [one for one in _parameters(documented.forward) if one not in shapes] == []
    assert ("Returns" in sections) == _returns(documented)
    if any(map(_can_raise, _methods(documented))):
        assert "Raises" in sections
    assert _runs(sections.get("Example", "")) or name in NO_EXAMPLE


@pytest.mark.parametrize("name", PUBLIC)
def test_args_name_nothing_else(name):
    documented = PUBLIC[name]
    known = {*_parameters(documented), *_left_to_torch(documented.__doc__)}
    assert [one for one in _items(_sections(documented).get("Args", "")) if one not in known] == []


def test_reasons_are_those_of_public_names():
    missing = {name for name in PUBLIC if not _runs(_sections(PUBLIC[name]).get("Example", ""))}
    assert missing == set(NO_EXAMPLE)
