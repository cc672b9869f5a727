"""Imports run downwards only: a room may use the rooms below it and nothing else of ours."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "anynorm"
BASE = {"catalogue", "errors", "pattern", "phi", "spec"}
MAY_IMPORT = {
    "errors": set(),
    "phi": set(),
    "pattern": {"errors"},
    "spec": {"errors", "pattern"},
    "catalogue": {"errors", "pattern", "spec"},
    "activations": {"errors", "phi"},
    "reference": BASE,
    "kernels": {"activations", "errors", "phi", "spec"},
    "info": {"kernels"},
    "packages": set(),
    "lookup": {"errors"},
    "ops": BASE | {"activations", "kernels"},
    "functional": BASE | {"activations", "ops"},
    "nn": BASE | {"functional"},
    "surgery": BASE | {"activations", "functional", "nn", "ops", "report"},
    "doctor": BASE | {"packages", "nn", "ops", "report", "surgery"},
    "audit": BASE | {"packages", "nn", "report", "surgery", "doctor"},
    "study": BASE | {"packages", "activations", "lookup", "nn", "surgery", "report"},
    "bench": {"activations", "errors"},
    "report": {"errors"},
}
MODULES = [p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] in [
    *MAY_IMPORT, *(f"{room}.py" for room in MAY_IMPORT)
]]  # fmt: skip


def imported(path):
    """The rooms of ours, and the packages of others, that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "anynorm":
            yield from (f"anynorm.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_what_lies_below_it(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    used = {name.split(".")[1] for name in imported(path) if name.startswith("anynorm.")}
    assert used - {room} <= MAY_IMPORT[room] | {"__version__"}


def test_no_files_import_each_other_in_a_circle():
    files = {named(path): path for path in SOURCE.rglob("*.py")}
    graph = {name: used_files(path, files) - {"anynorm", name} for name, path in files.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def named(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def used_files(path, files):
    """The files of ours that a file imports anywhere in it, for types alone too."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            used |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{name.name}" for name in node.names}
            used |= {name if name in files else node.module for name in whole}
    return used & files.keys()


@pytest.mark.parametrize(
    "room", ["report", "reference", "spec", "catalogue", "pattern", "errors", "phi"]
)
def test_rooms_that_do_without_torch(room):
    for path in MODULES:
        if path.relative_to(SOURCE).parts[0].removesuffix(".py") == room:
            assert not {name.partition(".")[0] for name in imported(path)} & {"torch"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.name)
def test_other_libraries_of_normalization_are_for_the_benchmarks_alone(path):
    others = {"jax", "liger_kernel", "apex", "quack", "flash_attn", "benchmarks"}
    assert not {name.partition(".")[0] for name in imported(path)} & others


def test_importing_brings_in_no_compiler():
    """Both take seconds, and most who import the layers need neither."""
    code = "import anynorm, sys; print(*{'torch._dynamo', 'triton'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == ""


def test_the_formula_and_its_reference_need_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import anynorm, anynorm.reference, numpy
x = numpy.array([[1.0], [3.0]])
y = anynorm.reference.BatchNorm(1).forward(x)
assert abs(y[1, 0] - 1) < 1e-4, y
assert anynorm.catalogue["batch"].spec.uses_batch and anynorm.Spec.of("[n] c").is_standard
try:
    anynorm.BatchNorm1d
except ModuleNotFoundError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.startswith("anynorm.BatchNorm1d needs PyTorch, which is not installed;")
