"""Statistics alone on the GPU kernels: the running ones, and those of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from on_device import DEVICE, dispatched, needs_triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OPERATORS = torch.ops.anynorm
pytestmark = [
    needs_triton,
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore:Warning only once for all operators"),  # of the override
]


class Handed(TorchDispatchMode):
    """Notes which formulas are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names += [func.name()] if "_formula" in func.name() else []
        return func(*args, **(kwargs or {}))


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(device=DEVICE, dtype=dtype)


def statistics(
    shape: tuple[int, ...], running: torch.dtype, counted: bool
) -> tuple[list[Tensor | None], list[Tensor]]:
    """Running mean, variance and number, and a batch's mean and variance."""
    torch.manual_seed(0)
    count = torch.tensor(3, device=DEVICE) if counted else None
    own = [drawn(*shape, dtype=running), drawn(*shape, dtype=running).square(), count]
    return own, [drawn(*shape), drawn(*shape).square()]


def both(
    own: list[Tensor | None], batch: list[Tensor], momentum: float | None, over: bool = False
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The running statistics after the kernel (or what it hands `over` to) and the formula."""
    from anynorm.kernels.triton import operators

    found, wanted = ([t if t is None else t.clone() for t in own] for _ in "ab")
    with Handed() as handed:
        operators.track_(*found, *batch, momentum, 1.25)
    assert handed.names == (["anynorm::track_formula_"] if over else [])
    OPERATORS.track_formula_(*wanted, *batch, momentum, 1.25)
    return found, wanted


def agree(found: list[Tensor | None], wanted: list[Tensor | None]) -> None:
    for one, other in zip(found, wanted, strict=True):
        if other is None:
            assert one is None
        else:  # each step rounds by half a unit; the momentum of a kernel is in float32
            counts = one.dtype == torch.int64
            rounding = 0.0 if counts else max(2 * torch.finfo(one.dtype).eps, 2**-23)
            torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("running", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("momentum", "counted"), [(0.1, True), (0.1, False), (None, True)])
@pytest.mark.parametrize("channels", [37, 2500])  # one warp walks along blocks of 1024
def test_running_statistics_are_those_of_the_formula(running, momentum, counted, channels):
    own, batch = statistics((channels,), running, counted)
    found, wanted = both(own, batch, momentum)
    agree(found, wanted)
    assert not torch.equal(found[0], own[0])


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("place", [0, 1], ids=["mean", "variance"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_channels_that_are_not_finite_are_left_out(bad, place, momentum):
    own, batch = statistics((1100,), torch.float32, True)
    batch[place][[3, 1090]] = bad
    found, wanted = both(own, batch, momentum)
    agree(found, wanted)
    for statistic, before in zip(found[:2], own[:2], strict=True):
        assert torch.equal(statistic[[3, 1090]], before[[3, 1090]])
    assert found[2].item() == 4


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_batch_with_nothing_finite_leaves_no_trace(momentum):
    own, batch = statistics((5,), torch.float32, True)
    batch[0].fill_(math.nan)
    found, wanted = both(own, batch, momentum)
    agree(found, wanted)
    agree(found, own)


def test_what_is_too_large_for_the_running_type_is_not_finite():
    own, batch = statistics((4,), torch.float16, True)
    batch[1][2] = 1e6  # finite in float64
    found, wanted = both(own, batch, 0.5)
    agree(found, wanted)
    assert torch.equal(found[1][2], own[1][2])


@pytest.mark.parametrize("case", ["covariances", "several counts", "gaps"])
def test_other_shapes_are_handed_over(case):
    own, (mean, var) = statistics((2, 4), torch.float32, True)
    if case == "covariances":
        own[0], mean = own[0][0], mean[0]
        own[1], var = (drawn(2, 2, 2, dtype=kind).square() for kind in (torch.float32, var.dtype))
    elif case == "several counts":
        own[2] = torch.tensor([3, 5], device=DEVICE)
    else:
        mean = torch.stack((mean, mean), -1)[..., 0]
    agree(*both(own, [mean, var], 0.1, over=True))


def test_any_shape_has_a_kernel_if_it_is_that_of_all():
    agree(*both(*statistics((2, 3), torch.float32, True), 0.1))


STATISTICS = {
    "std": (True, True, 2.0, 1.0),
    "rms": (False, False, 2.0, 1.0),
    "l1": (True, True, 1.0, 1.25),
    "std, not about the mean": (True, False, 2.0, 1.0),
}
LAYOUTS = {
    "rows": ((5, 700), [1]),
    "channels first": ((3, 4, 130), [0, 2]),
    "channels last": ((70, 9), [0]),
    "everything": ((3, 50), [0, 1]),
}


def errors(
    x: Tensor, dims: list[int], statistic: tuple[object, ...], over: bool = False
) -> tuple[float, float]:
    """Those of μ in deviations and of s² relative to it, at worst; `over`: is it handed over."""
    from anynorm.kernels.triton import operators

    with Handed() as handed:
        mean, square = operators.moments(x, dims, *statistic)
    assert handed.names == (["anynorm::moments_formula"] if over else [])
    truth, level = OPERATORS.moments_formula(x.double(), dims, *statistic)
    assert mean.dtype == square.dtype == torch.float64
    assert mean.shape == square.shape == truth.shape
    away = ((mean - truth) / level.sqrt(), (square - level) / level)
    return away[0].abs().max().item(), away[1].abs().max().item()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_are_those_of_the_formula(layout, name, dtype):
    shape, dims = LAYOUTS[layout]
    torch.manual_seed(0)
    x = drawn(*shape, dtype=dtype) + 0.5
    assert max(errors(x, dims, STATISTICS[name])) < 2e-6  # a dozen roundings of float32


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["std", "l1"])
def test_moments_of_values_far_from_zero(layout, name):
    """No difference of large sums: E[x²] − E[x]² would be off by ten times s² here."""
    shape, dims = LAYOUTS[layout]
    torch.manual_seed(0)
    x = drawn(*shape, dtype=torch.float32) + 1e4
    assert max(errors(x, dims, STATISTICS[name])) < 1e-5


@pytest.mark.parametrize(
    ("statistic", "dtype"),
    [
        ((True, True, math.inf, 0.4), torch.float32),
        ((True, True, 3.0, 1.0), torch.float32),
        ((True, True, 2.0, 1.0), torch.float64),
    ],
)
def test_moments_that_no_kernel_takes_are_handed_over(statistic, dtype):
    assert max(errors(drawn(4, 6, dtype=dtype), [1], statistic, over=True)) < 1e-6


@pytest.fixture
def calls():
    torch.use_deterministic_algorithms(True)  # which fills the spare bytes behind the bits, too
    try:
        with dispatched() as seen:
            yield seen
    finally:
        torch.use_deterministic_algorithms(False)


def test_opcheck(calls):
    torch.manual_seed(0)
    x, residual, dy = (drawn(4, 3, 8, dtype=torch.float32).requires_grad_() for _ in range(3))
    weight, bias = (drawn(1, 3, 1, dtype=torch.float32).requires_grad_() for _ in range(2))
    statistic = ([0, 2], True, True, 2.0, 1.0, 1e-5)
    forward = (x, residual, weight, bias, *statistic, "relu")
    _, mean, square, sign_mask = OPERATORS.standardize(*forward)
    saved = (dy.detach(), x, None, sign_mask, mean, square, weight, bias)
    for name, arguments in {
        "standardize": forward,
        "normalize": (x, residual, mean, square, weight, bias, 1e-5, "relu"),
        "standardize_backward": (*saved, *statistic, "relu"),
        "normalize_backward": (*saved, 1e-5, "relu"),
    }.items():
        torch.library.opcheck(getattr(OPERATORS, name).default, arguments)
        assert calls is None or name in calls


def test_opcheck_of_statistics(calls):
    own, batch = statistics((3,), torch.float32, True)
    torch.library.opcheck(OPERATORS.track_.default, (*own, *batch, 0.1, 1.25))
    x = drawn(4, 3, dtype=torch.float32)
    torch.library.opcheck(OPERATORS.moments.default, (x, [0], True, True, 2.0, 1.0))
    assert calls is None or {"track_", "moments"} <= set(calls)
