import pytest

from anynorm.errors import PatternError, ShapeError
from anynorm.pattern import Pattern


@pytest.mark.parametrize(
    ("text", "rank", "view", "dims"),
    [
        ("[n] c [...]", 4, [6, 4, 2, 3], (0, 2, 3)),
        ("[n] ...", 4, [6, 4, 2, 3], (0,)),
        ("(k [n]) c [...]", 4, [3, 2, 4, 2, 3], (1, 3, 4)),
        ("... [c]", 4, [6, 4, 2, 3], (3,)),
        ("n [c h w]", 4, [6, 4, 2, 3], (1, 2, 3)),
        ("n [c] ...", 4, [6, 4, 2, 3], (1,)),
        ("n c [...]", 4, [6, 4, 2, 3], (2, 3)),
        ("n (g [c]) [...]", 4, [6, 2, 2, 2, 3], (2, 3, 4)),
        ("[n] (g c) [...]", 4, [6, 2, 2, 2, 3], (0, 3, 4)),
        ("o [i ...]", 4, [6, 4, 2, 3], (1, 2, 3)),
    ],
)
def test_a_pattern_becomes_a_view_and_its_reduced_axes(text, rank, view, dims):
    plan = Pattern.parse(text).plan(rank)
    assert plan.view((6, 4, 2, 3), {"g": 2, "n": 2}) == view
    assert plan.dims == dims


@pytest.mark.parametrize(
    ("text", "channels", "shape"),
    [
        ("[n] c [...]", (4,), [1, 4, 1, 1]),
        ("[n] ...", (4, 2, 3), [1, 4, 2, 3]),
        ("... [c]", (3,), [1, 1, 1, 3]),
        ("n [c h w]", (4, 2, 3), [1, 4, 2, 3]),
        ("n (g [c]) [...]", (4,), [1, 2, 2, 1, 1]),
        ("(k [n]) c [...]", (4,), [1, 1, 4, 1, 1]),
        ("o [i ...]", (6,), [6, 1, 1, 1]),
    ],
)
def test_the_affine_parameters_start_at_the_channels(text, channels, shape):
    assert Pattern.parse(text).plan(4).affine_view(channels, {"g": 2, "n": 2}) == shape


@pytest.mark.parametrize(
    ("text", "column", "fault"),
    [
        ("[n] q [...]", 4, "unknown axis 'q'"),
        ("[n] chan", 4, "unknown axis 'chan'"),
        ("[n] c [n]", 7, "axis 'n' stands here a second time"),
        ("... c ...", 6, "axis '...' stands here a second time"),
        ("[n c", 0, "never closed"),
        ("n (g [c]", 2, "never closed"),
        ("n ] c", 2, "never opened"),
        ("n ) c", 2, "never opened"),
        ("[[n]] c", 1, "bracket inside a bracket"),
        ("n ((g [c]))", 3, "parenthesis inside a parenthesis"),
        ("n c []", 5, "nothing in these brackets"),
        ("n (c) w", 4, "split an axis in two or more"),
        ("n (g ...)", 5, "cannot be part of a split axis"),
        ("n g c", 2, "is a part of an axis"),
        ("n (g [c) w]", 7, "a bracket is still open"),
        ("[n (g c] )", 7, "closes inside a parenthesis"),
        ("", 0, "names no axis"),
        ("[n] c*", 5, "unknown axis '*'"),
    ],
)
def test_errors_put_a_caret_under_the_fault(text, column, fault):
    with pytest.raises(PatternError) as caught:
        Pattern.parse(text)
    message, shown, caret, *_ = str(caught.value).split("\n")
    assert fault in message
    assert shown == "    " + text
    assert caret.index("^") == 4 + column


def test_an_unknown_axis_gets_a_list_of_the_known_ones():
    with pytest.raises(PatternError, match=r"known: n \(samples\), c \(channels\)"):
        Pattern.parse("[n] x")


@pytest.mark.parametrize(("text", "rank"), [("n c l", 2), ("n c l", 4), ("n c [...]", 1)])
def test_a_rank_that_does_not_fit_is_refused(text, rank):
    with pytest.raises(ShapeError, match=f"an input of {rank} axes does not fit"):
        Pattern.parse(text).plan(rank)


def test_sizes_that_do_not_divide_name_those_that_do():
    plan = Pattern.parse("n (g [c]) [...]").plan(3)
    with pytest.raises(ShapeError, match=r"g=4 does not divide.*Possible sizes: 1, 2, 3, 6\."):
        plan.view((2, 6, 5), {"g": 4})


def test_a_split_needs_all_sizes_but_one():
    with pytest.raises(ShapeError, match="give g= or c="):
        Pattern.parse("n (g [c]) [...]").plan(3).view((2, 6, 5), {})


def test_patterns_are_cached_and_spaces_do_not_matter():
    assert Pattern.parse("[n] c [...]") is Pattern.parse("[n] c [...]")
    assert Pattern.parse(" [ n ]  c[...]").axes == Pattern.parse("[n] c [...]").axes
