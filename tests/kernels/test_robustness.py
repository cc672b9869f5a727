"""Odd memory, threads, processes and values: the kernels stay right, and the same bit by bit."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import (
    FUSED,
    LAYOUTS,
    LONG,
    TENSORS,
    Case,
    Draw,
    Sample,
    backward,
    forward,
    make,
    near_jump,
    needs_kernels,
    run,
    same,
    threads,
)
from torch import Tensor
from torch.testing._internal.common_utils import DeterministicGuard

pytestmark = needs_kernels

ON_LINUX = sys.platform == "linux"


@pytest.fixture(params=LONG, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.mark.parametrize("given", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_poisoned_memory_is_overwritten(case: Case, dtype: torch.dtype, given: bool) -> None:
    sample = make(case, FUSED._replace(dtype=dtype), given)
    expected = run(sample)
    with DeterministicGuard(True, fill_uninitialized_memory=True):
        assert torch.empty(1).isnan()
        found = run(sample)
    assert not any(value.isnan().any() for value in found.values())
    assert same(found, expected)


@pytest.mark.parametrize("scale", ["std", "l1", "linf"])
def test_the_number_of_threads_changes_no_bit(case: Case, scale: str) -> None:
    sample = make(case._replace(scale=scale), FUSED if scale == "std" else Draw())
    expected = run(sample)
    for count in range(1, 9):
        with threads(count):
            assert same(run(sample), expected), f"{count} threads"


@pytest.mark.parametrize("count", [1, 4])
def test_repeated_calls_give_the_same_bits(case: Case, count: int) -> None:
    sample = make(case, FUSED)
    with threads(count):
        expected = run(sample)
        assert all(same(run(sample), expected) for _ in range(10))


def test_several_threads_of_python_at_once() -> None:
    samples = [make(case, FUSED) for case in LONG]
    expected = [run(sample) for sample in samples]
    with threads(2), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, samples * 4))
    assert all(map(same, found, expected * 4))


def process(code: str, **environment: str) -> str:
    """What a Python process prints; one that hangs fails."""
    setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
import os, torch
from samples import FUSED, LONG, make, run, same
torch.set_num_threads({before})
samples = [make(case, FUSED) for case in LONG]
expected = [run(sample) for sample in samples]
child = os.fork()
if child == 0:
    torch.set_num_threads({after})
    right = all(same(run(sample), results) for sample, results in zip(samples, expected))
    os._exit(0 if right else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert all(same(run(sample), results) for sample, results in zip(samples, expected))
"""


# Two threads after two would hang in torch's own pool, which does not outlive a fork.
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1)])
def test_fork_after_use(before: int, after: int) -> None:
    process(FORK.format(before=before, after=after))


DIGEST = """
import hashlib, torch
from samples import FUSED, LONG, make, run
digest = hashlib.sha256()
for case in LONG:
    results = run(make(case, FUSED))
    for name, value in results.items():
        shown = value[:-8] if name == "sign_mask" else value
        digest.update(shown.detach().contiguous().view(-1).view(torch.uint8).numpy())
print(digest.hexdigest())
"""


@pytest.mark.skipif(not ON_LINUX, reason="MALLOC_PERTURB_ is glibc's")
def test_scratch_memory_is_written_before_it_is_read() -> None:
    clean, perturbed = (process(DIGEST, MALLOC_PERTURB_=fill) for fill in ("0", "128"))
    assert clean == perturbed


EMPTY = [
    Case("batch", (0, 3)),
    Case("batch", (3, 0)),
    *(Case("batch", tuple(0 if k == axis else 3 for k in range(4))) for axis in range(4)),
    *(Case("instance", tuple(0 if k == axis else 3 for k in range(3))) for axis in range(3)),
    *(Case("group", tuple(0 if k == axis else 3 for k in range(4))) for axis in range(4)),
    Case("last", (0, 3)),
    Case("last", (3, 0)),
    Case("last two", (0, 0, 0)),
]


@pytest.mark.parametrize("given", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("draw", [Draw(), FUSED, Draw(phi="silu", added=True)], ids=str)
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_empty_tensors(case: Case, draw: Draw, given: bool) -> None:
    sample = empty(case, draw)
    if given:
        ones = sample.x.new_ones([1 if s else 0 for s in case.shape], dtype=torch.float32)
        sample = sample._replace(given=(ones, ones))
    torch.testing.assert_close(run(sample), run(sample, "_formula"), rtol=0, atol=0, equal_nan=True)


def empty(case: Case, draw: Draw) -> Sample:
    """The arguments for a tensor without values, of which nothing need be kept off."""
    one = make(case._replace(shape=tuple(max(size, 1) for size in case.shape)), draw)

    def cut(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        sizes = zip(tensor.shape, case.shape, strict=True)
        return tensor.new_empty([0 if wanted == 0 else size for size, wanted in sizes])

    tensors: dict[str, Any] = {name: cut(getattr(one, name)) for name in TENSORS}
    return one._replace(**tensors)


BAD = [
    Case("batch", (5, 7, 9)),
    Case("batch", (5, 35, 4), "channels last"),
    Case("batch", (19, 33)),
    Case("instance", (3, 5, 4), "channels last"),
    Case("group", (2, 3, 4, 5)),
    Case("group", (2, 3, 4, 5), "groups last"),
    Case("last", (7, 35)),
]


WHERE = ["x", "residual", "weight", "dy"]


def spoilt(case: Case, where: str, value: float) -> Sample:
    sample = make(case, Draw(added=True))
    bad = getattr(sample, where)
    bad[tuple(size // 2 for size in bad.shape)] = value
    return sample


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("scale", ["std", "rms", "l1", "linf"])
@pytest.mark.parametrize("case", BAD, ids=str)
def test_not_a_number_spreads_like_in_the_formula(case: Case, scale: str, where: str) -> None:
    """No further, and no less far: neighbours in memory keep their values."""
    sample = spoilt(case._replace(scale=scale), where, math.nan)
    found, expected = run(sample), run(sample, "_formula")
    for name, truth in expected.items():
        assert torch.equal(found[name].isnan(), truth.isnan()), name
    # The rest is as near as float32 is: sums of up to 140 values, some of which cancel.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("scale", ["std", "rms", "l1", "linf"])
@pytest.mark.parametrize("case", BAD, ids=str)
def test_infinity_stays_visible_and_in_its_set(
    case: Case, scale: str, where: str, value: float
) -> None:
    """It may become NaN, as in any sum with its opposite, but spreads no further than NaN does."""
    case = case._replace(scale=scale)
    sample = spoilt(case, where, value)
    found, least = run(sample), run(sample, "_formula")
    most = run(spoilt(case, where, math.nan), "_formula")
    for name in found:
        bad = ~found[name].isfinite()
        assert (bad | least[name].isfinite()).all(), name
        assert (most[name].isnan() | ~bad).all(), name


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("case", BAD, ids=str)
def test_relu_lets_not_a_number_through(case: Case, added: bool) -> None:
    sample = make(case, Draw(phi="relu", added=added))
    sample.x[tuple(size // 2 for size in case.shape)] = math.nan
    y, y_formula = (forward(sample, suffix)[0] for suffix in ("", "_formula"))
    assert y.isnan().any()
    assert torch.equal(y.isnan(), y_formula.isnan())


FAR = [
    Case("batch", (64, 48)),
    Case("batch", (1031, 37)),
    Case("batch", (8, 6, 24, 24)),
    Case("batch", (16, 12, 7, 7)),
    Case("batch", (8, 6, 24, 24), "channels last"),
    Case("instance", (8, 6, 24, 24)),
    Case("instance", (8, 6, 24, 24), "channels last"),
    Case("group", (8, 2, 3, 24, 24)),
    Case("group", (8, 2, 3, 24, 24), "groups last"),
    Case("group", (2, 4, 16, 5, 5)),
    Case("last", (33, 1024)),
    Case("last", (3, 35_003)),
    Case("pixel", (3, 37, 11, 9)),
]


@pytest.mark.parametrize("case", FAR, ids=str)
def test_a_mean_far_from_zero_costs_no_digits(case: Case) -> None:
    sample = make(case, Draw(affine="none"))
    x = LAYOUTS[case.layout]((sample.x - 0.5) / 1.5 + 1e4)
    sample = sample._replace(x=x)
    found, truth = run(sample), run(sample.widened(), "_formula")
    # x − μ is exact but for μ's own error, 1e-7 of a deviation; σ and two products add 3e-7.  The
    # gradient adds two sums, which are its size or smaller, and are found to the same digits.
    for name, bound in {"y": 1e-6, "dx": 1e-6}.items():
        assert rms(found[name] - truth[name]) <= bound * rms(truth[name]), name
    torch.testing.assert_close(found["mean"], truth["mean"], rtol=0, atol=1e-6)


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


# The squares of 1e17 can be added up in float32, whose largest is 3e38, as torch's operators do.
SIZES = [
    Case("batch", (4, 5, 15)),
    Case("batch", (4, 35, 15), "channels last"),
    Case("batch", (60, 33)),
    Case("group", (3, 2, 4, 15)),
    Case("last", (5, 60)),
    Case("last", (5, 60), "contiguous", "rms"),
    Case("last", (5, 60), "contiguous", "l1"),
    Case("last", (5, 60), "contiguous", "linf"),
]


@pytest.mark.parametrize("size", [1e17, 1e-17])
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_huge_and_tiny_values(case: Case, size: float) -> None:
    ordinary = make(case, Draw(affine="none"))
    statistic = ordinary.statistic._replace(eps=0.0)
    sample = ordinary._replace(x=LAYOUTS[case.layout](ordinary.x * size), statistic=statistic)
    found, truth = run(sample), run(sample.widened(), "_formula")
    # Some roundings of float32; the square of the smallest has few digits, which matter to nobody.
    torch.testing.assert_close(found["y"].double(), truth["y"], rtol=1e-5, atol=1e-5)
    dx, expected = found["dx"].double() * size, truth["dx"] * size
    torch.testing.assert_close(dx, expected, rtol=1e-5, atol=1e-5)


def free_memory() -> int:
    if not ON_LINUX:
        return 0
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


LARGE = [
    Case("last", (64, 1025)),
    Case("batch", (64, 1025)),
    Case("batch", (16, 3, 1367)),
    Case("instance", (16, 33, 125), "channels last"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_tensors_above_two_to_the_31_values(case: Case) -> None:
    """One block, over and over: the statistics are the block's, and so is each of its copies.

    dy and the residual are x: with the bits and two gradients there are 13 GB at once.
    """
    if free_memory() < 15 << 30:
        pytest.skip("needs 15 GB of free memory")
    block = make(case, Draw(torch.bfloat16, "relu"))
    block = block._replace(residual=block.x, dy=block.x)
    assert not near_jump(block)[0].any()
    expected = run(block.widened(), "_formula")
    copies = (1 << 31) // block.x.numel() + 2
    x = repeated(block.x, copies)
    assert x.numel() > 1 << 31
    sample = block._replace(x=x, residual=x, dy=x)
    with threads(os.cpu_count() or 1):
        y, mean, square, sign_mask = forward(sample)
        assert_copies(y, expected["y"])
        del y
        dx, dresidual, dweight, dbias = backward(sample, mean, square, sign_mask)
    assert_copies(dx, expected["dx"])
    assert_copies(dresidual, expected["dresidual"])
    # Rounded to bfloat16, by 2⁻⁸ at most.
    torch.testing.assert_close(dweight.double() / copies, expected["dweight"], rtol=4e-3, atol=1e-3)
    torch.testing.assert_close(dbias.double() / copies, expected["dbias"], rtol=4e-3, atol=1e-3)


def repeated(x: Tensor, copies: int) -> Tensor:
    """`x` many times along its first axis, in its layout."""
    if x.is_contiguous():
        return x.repeat(copies, *[1] * (x.dim() - 1))
    return x.movedim(1, -1).repeat(copies, *[1] * (x.dim() - 1)).movedim(-1, 1)


def assert_copies(values: Tensor, block: Tensor) -> None:
    """Of each of many copies: the outer ones, and those before and after the value 2^31.

    Float32 adds up 256 rows; their roundings, 6e-8 each, are the same in every copy and so do not
    average out.
    """
    copies = values.unflatten(0, (-1, len(block)))
    for number in (0, 1, len(copies) // 2, -3, -2, -1):
        torch.testing.assert_close(copies[number].double(), block, rtol=4e-3, atol=1e-4)
