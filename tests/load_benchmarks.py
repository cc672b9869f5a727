"""Import this to make `benchmarks`, which is not installed, importable in tests."""

import importlib.util
import sys
from pathlib import Path

__all__: list[str] = []

ROOT = Path(__file__).resolve().parents[1]


def _load() -> None:
    path = ROOT / "benchmarks" / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        "benchmarks", path, submodule_search_locations=[str(path.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["benchmarks"])


# The folder of their tests has the same name, and may have been imported as a namespace.
if getattr(sys.modules.get("benchmarks"), "__file__", None) is None:
    _load()
