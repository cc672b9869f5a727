"""Do huge pages stall?  Times the first write to many fresh tensors.

    python -m benchmarks.allocator_stalls [--fragment] [--repeats 500] [--values 12845056]

Four settings in turn, in processes of their own: memory as malloc gives it, the same with
``madvise(MADV_HUGEPAGE)`` as the kernels do it, memory that `anynorm.tune_allocator` keeps, and
both.  Sixteen tensors are held at a time, as a network holds them for its backward pass.  A stall
is a write that takes more than five times the median.

Stalls have two causes, and both can be shown.  ``--fragment`` first takes most of the free memory
and gives every second page back, so that huge pages must be made by moving others.  And the host of
a virtual machine may take free memory away and must find it again: the first lines print what it
costs to write memory again that was free for a moment, and that was free for five seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import sys
import time
from pathlib import Path

from benchmarks import child

SETTINGS = ("malloc", "malloc+huge", "tuned", "tuned+huge")
HUGE, HUGEPAGE, NOHUGEPAGE, DONTNEED = 2 << 20, 14, 15, 4
SPARE, HELD = 2 << 30, 16
COUNTERS = ("compact_stall", "pgmigrate_success", "thp_fault_alloc", "thp_fault_fallback")
libc = ctypes.CDLL(None, use_errno=True)


def advise(start: int, size: int, advice: int) -> None:
    if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice):
        raise OSError(ctypes.get_errno(), "madvise failed")


def ask_for_huge_pages(start: int, size: int) -> None:
    """Advise the part of a block that whole huge pages can hold."""
    first, last = -(-start // HUGE) * HUGE, (start + size) // HUGE * HUGE
    if first < last:
        advise(first, last - first, HUGEPAGE)


def counters() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return {name: int(value) for name, value in lines if name in COUNTERS}


def free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def take(size: int, advice: int) -> mmap.mmap:
    """Memory that is in use, in small or in huge pages."""
    taken = mmap.mmap(-1, size // HUGE * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    advise(address(taken), len(taken), advice)
    ctypes.memset(address(taken), 1, len(taken))
    return taken


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def fragment() -> list[mmap.mmap]:
    """Leave free only single pages between others: take all, give every second back."""
    small = take(free_memory() - SPARE, NOHUGEPAGE)
    for page in range(address(small), address(small) + len(small), 2 * mmap.PAGESIZE):
        advise(page, mmap.PAGESIZE, DONTNEED)
    return [small, *(take(whole_huge_pages(), HUGEPAGE) for _ in range(4)), mend()]


def mend() -> mmap.mmap:
    """Take huge pages where there are none, and print what making them costs."""
    before, start = counters(), time.perf_counter()
    taken = take(400 << 20, HUGEPAGE)
    each = (time.perf_counter() - start) * 1e3 / 400
    moved, refused = (counters()[name] - before[name] for name in COUNTERS[1::2])
    print(f"fragmented: {each:.3f} ms/MB, {moved} pages moved, {refused} huge pages refused")
    return taken


def whole_huge_pages() -> int:
    """Bytes of the free memory that lie in whole huge pages: the last columns are orders 9, 10."""
    rows = [line.split()[4:] for line in Path("/proc/buddyinfo").read_text().splitlines()]
    return sum(int(row[9]) * HUGE + int(row[10]) * 2 * HUGE for row in rows)


def first_writes(huge: bool, values: int, repeats: int) -> list[tuple[float, ...]]:
    """Of each fresh tensor's first write: milliseconds by the clock, of user and of system."""
    import torch

    rows: list[tuple[float, ...]] = []
    held: list[torch.Tensor] = []
    for _ in range(HELD + repeats):
        y = torch.empty(values)
        before = time.perf_counter(), *os.times()[:2]
        if huge:
            ask_for_huge_pages(y.data_ptr(), y.nbytes)
        y.fill_(1.0)
        after = time.perf_counter(), *os.times()[:2]
        rows.append(tuple((b - a) * 1e3 for a, b in zip(before, after, strict=True)))
        held = [*held, y] if len(held) < HELD else [y]
    return rows[HELD:]


def stolen() -> int:
    """Milliseconds for which the machine's host ran something else."""
    return int(Path("/proc/stat").read_text().split()[8]) * 1000 // os.sysconf("SC_CLK_TCK")


def measure(setting: str, values: int, repeats: int, threads: int) -> dict[str, float]:
    """One setting, in this process."""
    import torch

    import anynorm

    torch.set_num_threads(threads)
    if setting.startswith("tuned"):
        assert anynorm.tune_allocator()
    before, gone = counters(), stolen()
    rows = first_writes(setting.endswith("huge"), values, repeats)
    times = sorted(wall for wall, *_ in rows)
    median = statistics.median(times)
    stalls = [row for row in rows if row[0] > 5 * median]
    for wall, user, system in stalls:
        print(f"    stall: {wall:.0f} ms, user {user:.0f}, system {system:.0f}", file=sys.stderr)
    return {
        "median": median,
        "p99": times[int(0.99 * (repeats - 1))],
        "max": times[-1],
        "stalls": len(stalls),
        "stolen": stolen() - gone,
        **{name: value - before[name] for name, value in counters().items()},
    }


def show_what_the_host_takes() -> None:
    """Milliseconds per MB to write memory again that was free for a time."""
    for seconds in (0, 0, 5, 0):
        time.sleep(seconds)
        start = time.perf_counter()
        memory = take(1 << 30, HUGEPAGE)
        each = (time.perf_counter() - start) * 1e3 / 1024
        print(f"free for {seconds} s, written again: {each:.3f} ms/MB")
        memory.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fragment", action="store_true")
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--values", type=int, default=64 * 64 * 56 * 56)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--one", choices=SETTINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = options.values, options.repeats, options.threads
    if options.one:
        print(json.dumps(measure(options.one, *numbers)))
        return
    show_what_the_host_takes()
    taken = fragment() if options.fragment else []
    for setting in SETTINGS:
        arguments = ["--one", setting]
        for name, number in zip(("--values", "--repeats", "--threads"), numbers, strict=True):
            arguments += [name, str(number)]
        row = child.result("benchmarks.allocator_stalls", *arguments)
        print(f"{setting:12}", *(f"{name} {value:.5g}" for name, value in row.items()), sep="  ")
    del taken


if __name__ == "__main__":
    main()
