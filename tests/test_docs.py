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
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# Code, and what it prints if that is shown behind it.
CODE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
BLOCKS = [
    (page, index, *found.groups())
    for page in PAGES
    for index, found in enumerate(CODE.finditer(page.read_text("utf-8")))
]
MODULES = [
    info.name
    for info in pkgutil.walk_packages(anynorm.__path__, "anynorm.")
    # The library of the kernels is named like a module, and is none.
    if not info.name.endswith(("__main__", "._kernels"))
]


@pytest.mark.parametrize(
    ("page", "block", "output"),
    [pytest.param(page, *both, id=f"{page.name}-{index}") for page, index, *both in BLOCKS],
)
def test_the_code_blocks_run(page, block, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(dedent(block), page.name, "exec"), {"__name__": "__main__"})
    if output is not None:
        printed = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(output, printed, FLAGS), printed


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    torch.manual_seed(0)
    results = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=FLAGS)
    assert results.failed == 0
