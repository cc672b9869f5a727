import math
from dataclasses import replace

import numpy as np
import pytest

from anynorm.errors import AnynormError, UnknownNameError
from anynorm.spec import SCALES, Dialect, Learned, Renorm, Scale, Spec


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


@pytest.mark.parametrize(
    ("spec", "pools", "estimates", "keeps"),
    [
        (Spec.of("[n] c [...]"), True, True, True),
        (Spec.of("[n ...] c"), True, True, True),
        (Spec.of("[n] ..."), True, True, True),
        (Spec.of("[n] (g c) [...]"), True, True, True),
        (Spec.of("(k [n]) c [...]"), False, True, True),
        (Spec.of("[n] c ..."), False, False, True),
        (Spec.of("[n] (g [c]) [...]"), False, False, True),
        (Spec.of("[n] c [...]", scale="l1"), False, False, True),
        (Spec.of("[n] c [...]", scale="lp", p=3.0), False, False, True),
        (Spec.of("[n] c [...]", scale=None), False, False, True),
        (Spec.of("[n] (g c) [...]", scale="zca"), False, False, False),
        (Spec.of("n c [...]"), False, False, False),
        (Spec.of("... [c]"), False, False, False),
    ],
    ids=str,
)
def test_what_running_statistics_are(spec, pools, estimates, keeps):
    found = spec.pools_batch, spec.estimates_population, spec.keeps_moments
    assert found == (pools, estimates, keeps)


def test_which_gamma_scale_single_channels():
    scaled = ["[n] c [...]", "n c [...]", "(k [n]) c [...]", "[n ...] c"]
    assert all(Spec.of(pattern).scales_channels for pattern in scaled)
    mixed = ["... [c]", "n [c] ...", "n (g [c]) [...]", "[n c] ...", "[n] ..."]
    assert not any(Spec.of(pattern).scales_channels for pattern in mixed)
    assert not Spec.of("[n] (g c) [...]", scale="zca").scales_channels


def test_what_is_not_said_is_as_usual():
    plain = Spec.of("[n] c [...]")
    said = Spec.of("[n] c [...]", learned=Learned(bias=True), dialect=Dialect(), source="batch")
    assert (plain, hash(plain), plain.is_plain) == (said, hash(said), True)
    assert plain.learned.bias
    assert not Spec.of("... [c]", center=False, scale="rms").learned.bias
    assert not Spec.of("... [c]", learned=Learned("none")).learned.bias
    assert not Spec.of("o [i ...]", on="weight").learned.bias


UNUSUAL = [
    Spec.of("[n] c [...]", learned=Learned(offset=1.0)),
    Spec.of("[n] c [...]", learned=Learned("scalar")),
    Spec.of("[n] c [...]", source=Renorm()),
    Spec.of("... [c]", dialect=Dialect(cast="before")),
]


@pytest.mark.parametrize("spec", UNUSUAL, ids=str)
def test_specifications_differ_in_each_answer(spec):
    plain = Spec.of(spec.pattern)
    assert not spec.is_plain
    assert len({plain, spec, *UNUSUAL}) == 1 + len(UNUSUAL)
    assert not spec.normalizes_as(plain)
    without = replace(spec, learned=replace(spec.learned, gain="none", bias=False))
    assert without.normalizes_as(spec)


def test_renorm_keeps_the_moments_of_batch_norm_and_none_of_its_invariances():
    spec = Spec.of("[n] c [...]", source=Renorm(r_max=2.0))
    assert (spec.pools_batch, spec.estimates_population, spec.keeps_moments) == (True,) * 3
    assert not any(spec.invariances)
    assert spec.tuned(d_max=1.0).source == Renorm(r_max=2.0, d_max=1.0)
    with pytest.raises(UnknownNameError, match='Did you mean "d_max"'):
        spec.tuned(dmax=1.0)
