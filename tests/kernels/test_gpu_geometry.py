"""How GPU kernels see tensors, and how work is cut into tiles: axes, operands, blocks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from on_device import DEVICE, needs_triton

from anynorm.kernels.triton import tiles
from anynorm.kernels.triton.geometry import Axes, Axis, find

NOTHING = Axis(1, (None,))
SIZES = st.sampled_from([1, 2, 3, 7, 8, 16, 31, 49, 64, 96, 130, 256, 257, 1000, 4096, 70_000])
UNITS = st.sampled_from([1, 4, 108, 132])
GAMMA = 1  # the index of its strides; those of x are the first
many = settings(max_examples=100, deadline=None)


def dense(shape, order):
    """Strides of a tensor that fills its memory, with the axes in that order from the outermost."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis], step = step, step * shape[axis]
    return tuple(strides)


def changing(shape, strides):
    return tuple(s if n > 1 and s else None for n, s in zip(shape, strides, strict=True))


def of(reduced, *tensors):
    """The axes of these tensors, of which all broadcast against the first."""
    shape = tuple(tensors[0].shape)
    strides = tuple(changing(tensor.shape, tensor.stride()) for tensor in tensors)
    return find(shape, tuple(reduced), strides)


@st.composite
def seen(draw, sizes=SIZES):
    """A shape, its reduced axes, and the axes of x and γ."""
    shape = tuple(draw(st.lists(sizes, min_size=1, max_size=4)))
    dims = st.integers(0, len(shape) - 1)
    reduced = tuple(draw(st.sets(dims, min_size=1)))
    along = draw(st.sets(dims))
    x = changing(shape, dense(shape, draw(st.permutations(range(len(shape))))))
    own = tuple(size if axis in along else 1 for axis, size in enumerate(shape))
    gamma = changing(own, dense(own, range(len(shape))))
    found = find(shape, reduced, (x, gamma))
    assume(found is not None and math.prod(shape) > 1)
    return shape, reduced, x, found


def places(axes):
    """The addresses of x, a row for each set."""
    lines = (torch.arange(axis.size) * (axis.strides[0] or 0) for axis in axes)
    p, a, b, c = lines
    grid = p[:, None, None, None] + b[:, None, None] + a[:, None] + c
    return grid.reshape(axes.sets, axes.length)


@many
@given(seen(st.integers(1, 4)))
def test_each_set_has_its_values_and_no_others(drawn):
    shape, reduced, strides, axes = drawn
    steps = [step or 0 for step in strides]
    x = torch.arange(math.prod(shape)).as_strided(shape, steps)
    kept = [axis for axis in range(x.dim()) if axis not in reduced]
    sets = x.permute(*kept, *reduced).reshape(axes.sets, -1)
    found, wanted = ({tuple(sorted(row)) for row in t.tolist()} for t in (places(axes), sets))
    assert found == wanted


@pytest.mark.parametrize(
    ("shape", "reduced", "wanted"),
    [
        ((8, 16), [0, 1], (1, 128, 1, 1)),  # neighbours of one kind are one axis
        ((2, 3, 4, 5), [0, 2, 3], (1, 2, 3, 20)),  # batch: A and C around the channels
        ((2, 3, 4, 5), [2, 3], (1, 20, 6, 1)),  # instance: one reduced axis is A, one kept is B
        ((2, 3, 4, 5), [1, 3], (2, 3, 4, 5)),
        ((2, 1, 4, 1), [1, 2], (1, 4, 2, 1)),  # axes of one value are none
        ((2, 3, 2, 3, 2), [1, 3], None),  # three that are kept
        ((2, 3, 2, 3, 2), [0, 2, 4], None),  # three that are reduced
    ],
)
def test_roles(shape, reduced, wanted):
    axes = of(reduced, torch.empty(shape))
    assert (axes and tuple(axis.size for axis in axes)) == wanted


def test_channels_last_is_read_in_its_order():
    x = torch.empty(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    axes = of([0, 2, 3], x)
    assert axes == Axes(NOTHING, Axis(40, (3,)), Axis(3, (1,)), NOTHING)


def test_axes_are_one_where_they_are_for_every_tensor():
    x = torch.empty(4, 6, 8)
    assert of([1, 2], x, x).a == Axis(48, (1, 1))
    beside = torch.empty(4, 8, 6).transpose(1, 2)
    apart = of([1, 2], x, beside)
    assert (apart.a, apart.c) == (Axis(6, (8, 1)), Axis(8, (1, 6)))
    along_one = of([1, 2], x, torch.empty(1, 6, 1))
    assert (along_one.a, along_one.c) == (Axis(6, (8, 1)), Axis(8, (1, None)))


def test_gaps_keep_axes_apart():
    axes = of([1, 2], torch.empty(4, 6, 10)[..., :8])
    assert (axes.a, axes.c) == (Axis(6, (10,)), Axis(8, (1,)))


def test_a_tensor_does_not_change_along_what_is_expanded():
    axes = of([0], torch.empty(1, 6).expand(5, 6), torch.empty(5, 6))
    assert axes.a == Axis(5, (None, 6))
    assert axes.b == Axis(6, (1, 1))


def is_power(size):
    return size > 0 and size & (size - 1) == 0


def is_cut_well(tile, axes):
    assert all(map(is_power, (tile.a, tile.b, tile.c)))
    assert is_power(tile.warps)
    assert tile.warps <= 32
    assert (tile.blocks(axes) - 1) * tile.b < axes.b.size <= tile.blocks(axes) * tile.b
    assert (tile.rows(axes) - 1) * tile.a < axes.a.size <= tile.rows(axes) * tile.a


@many
@given(seen(), UNITS, st.sampled_from([1 << 14, 1 << 16]), st.sampled_from([16, 32]))
def test_resident_tiles_hold_whole_sets(drawn, units, most, per_thread):
    *_, axes = drawn
    tile = tiles.resident(axes, most, per_thread, units)
    if axes.length > most:
        assert tile is None
    if tile is not None:
        is_cut_well(tile, axes)
        assert tile.a >= axes.a.size
        assert tile.c >= axes.c.size
        assert tile.a * tile.b * tile.c <= most


@given(st.integers(1, 1 << 14), st.integers(1, 4096))
def test_rows_that_fill_the_device_are_resident(width, rows):
    axes = of([1], torch.empty(rows, 4 * width, device="meta"))
    assume(4 * width <= 1 << 16)
    assert tiles.resident(axes, 1 << 16, 16, 1) is not None


@many
@given(seen())
def test_streaming_tiles_are_small_and_cover_the_axes(drawn):
    *_, axes = drawn
    tile = tiles.streaming(axes)
    is_cut_well(tile, axes)
    assert tile.a * tile.b * tile.c <= 4096
    assert tile.tails(axes) == (axes.c.size > tile.c and axes.a.size % tile.a > 0)


@many
@given(seen(), UNITS)
def test_every_split_has_rows_and_the_device_has_programs(drawn, units):
    *_, axes = drawn
    tile = tiles.streaming(axes)
    parts, programs = tiles.splits(axes, tile, units), axes.p.size * tile.blocks(axes)
    assert 1 <= parts <= min(512, tile.rows(axes))
    assert parts in (512, tile.rows(axes)) or parts * programs >= 4 * units


@many
@given(seen(), UNITS, st.sampled_from([1, 5, 1000]))
def test_columns_are_not_more_than_blocks(drawn, units, others):
    *_, axes = drawn
    tile = tiles.streaming(axes)
    assert 1 <= tiles.columns(axes, tile, others, units) <= tile.blocks(axes)


@many
@given(seen())
def test_gamma_lies_along_a_or_a_short_c(drawn):
    *_, axes = drawn
    turned = tiles.oriented(axes, GAMMA)
    if turned is None:
        ends = (axes.a, axes.c)
        assert all(axis.strides[GAMMA] is not None and axis.size > 256 for axis in ends)
    else:
        assert turned in (axes, axes._replace(a=axes.c, c=axes.a))
        assert turned.c.strides[GAMMA] is None or turned.c.size <= 256


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
def test_gradients_of_gamma_along_c_where_b_is_the_nearest():
    """They are added up over A and over tiles of B, but not over blocks of C."""
    from anynorm.kernels.triton import operators

    rest = ([0, 1], True, True, 2.0, 1.0, 1e-5, "identity")
    x, dy = (torch.randn(20, 31, 40, device=DEVICE) for _ in range(2))
    gamma = torch.randn(1, 31, 1, device=DEVICE)
    _, *statistics, sign_mask = torch.ops.anynorm.standardize_formula(x, None, gamma, gamma, *rest)
    saved = (x, None, sign_mask, *statistics, gamma, gamma)
    found = operators.standardize_backward(dy, *saved, *rest)
    wanted = torch.ops.anynorm.standardize_backward_formula(dy, *saved, *rest)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@needs_triton
@given(st.lists(st.none() | st.integers(1, 5000), min_size=4, max_size=4))
def test_operands_keep_their_strides(strides):
    from anynorm.kernels.triton.operand import Operand

    found = Operand.of("memory", strides)
    unit, near = found.unit.value, found.near.value
    assert 16 % unit == 0
    units = [1 if axis == near else unit for axis in (-1, 0, 1, 2)]
    steps = [s * unit for s, unit in zip(found[1:5], units, strict=True)]
    there = [bool(found.has.value & 1 << axis) for axis in range(4)]
    assert [s if has else None for s, has in zip(steps, there, strict=True)] == strides
    assert near == 3 if 1 not in strides[1:] else strides[1:][near] == 1


@needs_triton
@given(st.integers(1, 1 << 40))
def test_extents_keep_their_size(size):
    from anynorm.kernels.triton.operand import Extent

    found = Extent.of(size)
    assert found.units * found.unit.value == size
    assert found.unit.value == math.gcd(size, 16)


@needs_triton
@pytest.mark.parametrize(
    ("sizes", "strides", "tile", "wanted"),
    [
        ((4, 8, 16), (128, 16, 1), (4, 8, 16), 2),
        ((4, 16, 8), (16, 1, 64), (4, 8, 8), 1),
        ((16, 4, 4), (1, 16, 64), (8, 4, 4), 0),
        ((4, 8, 12), (96, 12, 1), (4, 8, 16), None),  # bytes with bits of two rows
        ((4, 8, 16), (128, 16, 1), (4, 8, 4), None),  # bytes of two programs
        ((4, 8, 16), (256, 32, 2), (4, 8, 16), None),  # neighbours lie apart
    ],
)
def test_bits_lie_along_the_axis_that_has_whole_bytes(sizes, strides, tile, wanted):
    from anynorm.kernels.triton import bits

    pairs = zip(sizes, strides, strict=True)
    axes = Axes(NOTHING, *(Axis(size, (stride,)) for size, stride in pairs))
    assert bits.axis(axes, tiles.Tile(*tile, 4), 0) == wanted
