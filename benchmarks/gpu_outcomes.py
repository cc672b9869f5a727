"""A plugin for pytest that writes each outcome of a test of the GPU kernels as it comes.

``pytest -p benchmarks.gpu_outcomes`` with the path of the file in ANYNORM_OUTCOMES.  A line of JSON
has the test, its outcome and how long it took; of a failure also what it said, and the last
launches before it: the kernels with their grids, sizes and options of the compiler.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["launch_words", "pytest_configure", "pytest_runtest_logreport"]

_KEPT = 6  # launches: those of a forward and a backward pass
_LONGEST = 6000  # characters of what a failure says, from its end
_launches: deque[Any] = deque(maxlen=_KEPT)
_broken = False  # no later launch of this process works


def pytest_configure(config: pytest.Config) -> None:
    """Note each launch before it starts, in each process that runs tests."""
    from anynorm.kernels.triton.launch_plan import Launch

    run = Launch.run

    def noted(self: Launch, tensors: Any) -> None:
        _launches.append((self, {name: _form(tensor) for name, tensor in tensors.items()}))
        run(self, tensors)

    Launch.run = noted  # type: ignore[method-assign]
    config.add_cleanup(lambda: setattr(Launch, "run", run))


def _form(tensor: Any) -> str:
    return f"{tuple(tensor.shape)} {tuple(tensor.stride())} {str(tensor.dtype)[6:]}"


def launch_words(launch: Any, forms: dict[str, str]) -> dict[str, Any]:
    """A launch in words: what it takes to repeat it."""
    kernel = launch.kernel
    arguments = zip(kernel.arg_names, launch.args, strict=True)
    return {
        "kernel": getattr(kernel, "__name__", str(kernel)),
        "grid": list(launch.grid),
        "arguments": {name: str(value) for name, value in arguments},
        "options": {name: str(value) for name, value in launch.options.items()},
        "tensors": forms,
    }


def pytest_runtest_setup() -> None:
    """End the process after an error that breaks the device in it: another one goes on."""
    if _broken:
        os._exit(3)
    _launches.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Add the launches to the report of a failure."""
    global _broken
    report: Any = yield
    if report.failed:
        words = [launch_words(*launch) for launch in _launches]
        report.user_properties.append(("launches", words))
        _broken = "CUDA error" in str(report.longrepr)
    return report


def pytest_runtest_logreport(report: Any) -> None:
    """Write an outcome; where several processes test, that of the process that collects them."""
    if "PYTEST_XDIST_WORKER" in os.environ or (report.when != "call" and report.passed):
        return
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
    if report.failed:
        line |= {"words": str(report.longrepr)[-_LONGEST:], **dict(report.user_properties)}
    with open(os.environ["ANYNORM_OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
