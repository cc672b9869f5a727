"""The examples that users see run: code blocks of the README and the docs, and the docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch

import anynorm

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (page, index, block)
    for page in PAGES
    for index, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    )
]
MODULES = [
    info.name
    for info in pkgutil.walk_packages(anynorm.__path__, "anynorm.")
    # The library of the kernels is named like a module, and is none.
    if not info.name.endswith(("__main__", "._kernels"))
]


@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(p, b, id=f"{p.name}-{i}") for p, i, b in BLOCKS],
)
def test_the_code_blocks_run(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(dedent(block), page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    torch.manual_seed(0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    results = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=flags)
    assert results.failed == 0
