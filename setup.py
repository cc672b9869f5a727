"""Build the optional CPU kernels: one shared library, which torch loads and Python never imports.

It speaks only the stable ABI of LibTorch, so one binary serves every Python and every torch from
2.10 on, and the headers of any of them will do.  ``ANYNORM_BUILD_KERNELS=0`` leaves it out and
``=1`` makes a failure an error; otherwise the package is built without it and says why.
"""

from __future__ import annotations

import os
import platform
import re
import runpy
import shlex
import shutil
import site
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = "src/anynorm/kernels/cpu"
LIBRARY, WHY_NOT = "_kernels.so", "_why_not.txt"  # as in src/anynorm/kernels/__init__.py
WANTED = os.environ.get("ANYNORM_BUILD_KERNELS", "")
OLDEST_TORCH = (2, 10)

# No -march and no -ffast-math: the library must run on every machine and keep NaN and infinity.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    f"-DTORCH_TARGET_VERSION={(OLDEST_TORCH[0] << 56) | (OLDEST_TORCH[1] << 48):#018x}",
]
# Units for one instruction set each; the right one is chosen when the library is loaded.
X86 = {
    "isa_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "isa_avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
        *("-Wno-maybe-uninitialized", "-Wno-uninitialized"),  # GCC 12 about its own intrinsics
    ],
}
# The constant that all backends share.
PHI = runpy.run_path("src/anynorm/phi.py")
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")


def torch_folder() -> Path | None:
    """An installed torch: ours, or that of the environment for which pip builds in isolation."""
    places = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
    spec = PathFinder.find_spec("torch", places)
    return Path(spec.origin).parent if spec and spec.origin else None


def torch_version(torch: Path) -> tuple[int, ...]:
    """Major and minor version, from the headers, without importing torch."""
    header = torch / "include/torch/headeronly/version.h"
    text = header.read_text("utf-8") if header.is_file() else ""
    return tuple(map(int, re.findall(r"define TORCH_VERSION_M\w+OR (\d+)", text)))


def usable_torch() -> Path:
    """The torch to build against; `CompileError` where there is none."""
    torch = torch_folder()
    if torch is None:
        raise CompileError("the build found no installed torch; install torch first")
    if torch_version(torch) < OLDEST_TORCH:
        raise CompileError("the kernels need torch 2.10 or newer; upgrade torch first")
    return torch


def compiler() -> list[str]:
    """The C++ compiler, ``CXX`` first; `CompileError` where there is none."""
    given = shlex.split(os.environ.get("CXX", ""))
    names = given[:1] or ["c++", "g++", "clang++"]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None or sys.platform == "win32":
        raise CompileError("the build found no C++ compiler (GCC or Clang); install one first")
    return [found, *given[1:]]


def units() -> list[str]:
    """The files to compile, those of one instruction set last: see `link`."""
    files = sorted(Path(SOURCES).glob("*.cpp"), key=lambda path: (path.stem in X86, path.stem))
    return [str(path) for path in files if ON_X86 or path.stem not in X86]


def run(command: list[str]) -> None:
    """Run one compiler command; `CompileError` with its first error when it fails."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        error = next((line for line in lines if "error" in line), lines[-1])
        raise CompileError(f"the C++ compiler failed: {error.strip()}")


def compile_units(command: list[str], torch: Path, folder: Path) -> list[str]:
    """Compile every unit, in parallel; returns the object files."""
    flags = [*FLAGS, *(["-DANYNORM_X86"] if ON_X86 else []), "-isystem", str(torch / "include")]
    flags += [f"-DANYNORM_LEAK={PHI['LEAK']!r}", *shlex.split(os.environ.get("CXXFLAGS", ""))]
    folder.mkdir(parents=True, exist_ok=True)

    def compile_unit(unit: str) -> str:
        target = str(folder / f"{Path(unit).stem}.o")
        run([*command, *flags, *X86.get(Path(unit).stem, []), "-c", unit, "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_unit, units()))


def link(command: list[str], torch: Path, objects: list[str], target: Path) -> None:
    """Link `objects` in their order.

    Of an inline function that several units hold, the linker keeps the first copy: it must not be
    one with instructions that this machine may lack.  libtorch_cpu is named without a path, since
    the imported torch has loaded it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = ["-bundle"] if sys.platform == "darwin" else ["-shared", "-Wl,-z,now"]
    flags = [*kind, *shlex.split(os.environ.get("LDFLAGS", ""))]
    run([*command, *objects, *flags, f"-L{torch / 'lib'}", "-ltorch_cpu", "-o", str(target)])


class BuildKernels(build_ext):
    """Builds the library, or leaves beside the package's files a note why it is not there."""

    def get_ext_filename(self, fullname: str) -> str:
        """The same name on every Python: the library is none of its modules."""
        return str(Path(*fullname.split(".")).with_name(LIBRARY))

    def build_extension(self, ext: Extension) -> None:
        """Compile and link, or do without."""
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        remove(target.parent)
        try:
            if WANTED == "0":
                raise CompileError("it was built with ANYNORM_BUILD_KERNELS=0")
            if not ext.sources:
                raise CompileError("the C++ files are missing; take the source distribution")
            command, torch = compiler(), usable_torch()
            objects = compile_units(command, torch, Path(self.build_temp))
            link(command, torch, objects, target)
        except CompileError as error:
            self.do_without(str(error), target.with_name(WHY_NOT))

    def do_without(self, reason: str, note: Path) -> None:
        """Go on without the library, unless it was asked for."""
        if WANTED == "1":
            raise CompileError(f"{reason}. Without ANYNORM_BUILD_KERNELS=1 it is left out.")
        if WANTED != "0":
            print(f"\nWARNING: anynorm is built without its CPU kernels: {reason}.\n")
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(reason, "utf-8")

    def copy_extensions_to_source(self) -> None:
        """For an editable installation; what an earlier build left there goes."""
        for ext in self.extensions:
            built = Path(self.build_lib, self.get_ext_filename(ext.name)).parent
            source = Path("src", *ext.name.split(".")[:-1])
            remove(source)
            for name in (LIBRARY, WHY_NOT):
                if (built / name).exists():
                    shutil.copy(built / name, source / name)


def remove(folder: Path) -> None:
    """Remove what an earlier build left."""
    for name in (LIBRARY, WHY_NOT):
        (folder / name).unlink(missing_ok=True)


class Wheel(bdist_wheel):
    """One wheel for every Python; for every machine, too, when it holds no library."""

    def run(self) -> None:
        """Build first: what there is to pack decides the kind of wheel."""
        self.run_command("build")
        if not list(Path(self.get_finalized_command("build").build_lib).rglob(LIBRARY)):
            self.root_is_pure, self.distribution.ext_modules = True, []
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """No abi3: that would shut out free-threaded Pythons, and no Python API is used."""
        return "py3", "none", super().get_tag()[2]


KERNELS = Extension("anynorm.kernels._kernels", units())
# pip installs torch into the isolated build only if the kernels are insisted on: it is large.
NEEDED = ["torch>=2.10"] if WANTED == "1" and torch_folder() is None else []

setup(
    ext_modules=[KERNELS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
    setup_requires=NEEDED,
)
