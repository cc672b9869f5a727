import math

import numpy as np
import pytest

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.spec import SCALES, Scale, Spec


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_the_gaussian_constant_makes_s_estimate_the_standard_deviation(p):
    x = np.random.default_rng(0).standard_normal(1_000_000) * 3
    s = Scale(p=p, constant="gaussian").factor(x.size) * np.mean(np.abs(x) ** p) ** (1 / p)
    assert s == pytest.approx(3, rel=0.01)


def test_the_constants_of_the_papers():
    assert SCALES["l1"].factor(10) == pytest.approx(math.sqrt(math.pi / 2))
    assert SCALES["linf"].factor(10) == pytest.approx(1 / math.sqrt(2 * math.log(10)))
    assert SCALES["norm"].factor(9) == 3.0


def test_sharing_samples_means_running_statistics():
    assert Spec.of("[n] c [...]").uses_batch
    assert Spec.of("(k [n]) c [...]").uses_batch
    assert not Spec.of("n c [...]").uses_batch
    assert not Spec.of("o [i ...]", on="weight").uses_batch


def test_bad_scales_are_refused():
    with pytest.raises(UnknownNameError, match='Did you mean "std"'):
        Spec.of("[n] c", scale="sdt")
    for p in (0.5, "x", float("nan"), True):
        with pytest.raises(AnynormError, match="a number of at least 1"):
            Spec.of("[n] c", scale="lp", p=p)
    for constant in (0, -1.0, float("inf"), "gauss"):
        with pytest.raises(AnynormError, match="a positive number, 'gaussian' or 'sum'"):
            Spec.of("[n] c", scale="l1", constant=constant)
