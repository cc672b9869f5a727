"""`recognize`: modules are what they compute, whatever their names are."""

import functools
import re
from importlib import import_module

import pytest
import torch
from torch import nn

import anynorm
from anynorm.activations import ACTIVATIONS
from anynorm.spec import Dialect, Learned, Spec
from anynorm.surgery import recognize

LAST = (2, 5, 16)
IMAGE = (2, 16, 6, 6)


class Written(nn.Module):
    """A norm as model code writes it, by a function of x, γ and β."""

    def __init__(self, formula, *names, size=16):
        super().__init__()
        self.formula = formula
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(size)))

    def forward(self, x):
        return self.formula(x, *self.parameters())


def rms(x, dims=-1, eps=1e-6):
    return x * (x.pow(2).mean(dims, keepdim=True) + eps).rsqrt()


def centred(x, dims=-1, eps=1e-5):
    away = x - x.mean(dims, keepdim=True)
    return away * (away.pow(2).mean(dims, keepdim=True) + eps).rsqrt()


# By what it is: the module, its input, and its specification with ε.
WRITTEN = {
    "rms": (Written(lambda x, g: g * rms(x), "scale"), LAST, ("... [c]", False, "rms"), 1e-6),
    "rms without γ": (Written(rms), LAST, ("... [c]", False, "rms"), 1e-6),
    "a large ε": (
        Written(lambda x, g: g * rms(x, eps=0.01), "scale"),
        LAST,
        ("... [c]", False, "rms"),
        0.01,
    ),
    "β stored before γ": (
        Written(lambda x, b, g: g * centred(x) + b, "shift", "scale"),
        LAST,
        ("... [c]", True, "std"),
        1e-5,
    ),
    "β alone": (
        Written(lambda x, b: centred(x) + b, "shift"),
        LAST,
        ("... [c]", True, "std"),
        1e-5,
    ),
    "layer norm over channels": (
        Written(lambda x, g, b: g[:, None, None] * centred(x, 1) + b[:, None, None], "g", "b"),
        IMAGE,
        ("n [c] ...", True, "std"),
        1e-5,
    ),
    "instance": (
        Written(functools.partial(centred, dims=(2, 3))),
        IMAGE,
        ("n c [...]", True, "std"),
        1e-5,
    ),
    "all of a sample": (
        Written(functools.partial(centred, dims=(1, 2, 3))),
        IMAGE,
        ("n [c ...]", True, "std"),
        1e-5,
    ),
    "batch": (
        Written(lambda x: centred(x, (0, 2, 3))),
        IMAGE,
        ("[n] c [...]", True, "std"),
        1e-5,
    ),
    "L2 norm": (
        Written(lambda x: nn.functional.normalize(x, dim=-1, eps=1e-5)),
        LAST,
        ("... [c]", False, "norm"),
        1e-5,
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_norms_are_found(name):
    module, shape, (pattern, center, scale), eps = WRITTEN[name]
    found = recognize(module, torch.randn(shape))
    assert found, found.evidence
    right = Spec.of(
        pattern, center=center, scale=scale, learned=found.spec.learned, dialect=found.spec.dialect
    )
    assert found.spec == right
    assert found.eps == pytest.approx(eps, rel=1e-5)


def test_which_parameters_are_gain_and_bias():
    found = recognize(WRITTEN["β stored before γ"][0], torch.randn(LAST))
    assert (found.weight, found.bias) == ("scale", "shift")
    found = recognize(WRITTEN["β alone"][0], torch.randn(LAST))
    assert (found.weight, found.bias) == (None, "shift")


def test_a_gain_of_one_plus_w_and_one_of_all_channels():
    stored = Written(lambda x, w: (1 + w) * rms(x), "w")
    assert recognize(stored, torch.randn(LAST)).spec.learned.offset == 1.0
    single = Written(lambda x, g: g * rms(x), "g", size=1)
    assert recognize(single, torch.randn(LAST)).spec.learned.gain == "scalar"


def test_where_epsilon_stands():
    found = recognize(WRITTEN["L2 norm"][0], torch.randn(LAST))
    assert found.spec.dialect == Dialect(eps="max")
    outside = Written(lambda x: x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-3))
    found = recognize(outside, torch.randn(LAST))
    assert (found.spec.dialect.eps, found.eps) == ("outside", 1e-3)
    clamped = Written(lambda x: x / x.pow(2).mean(-1, keepdim=True).clamp(min=1e-6).sqrt())
    found = recognize(clamped, torch.randn(LAST))
    assert (found.spec.dialect.eps, found.eps) == ("max", pytest.approx(1e-3))


DEFAULT = functools.partial(nn.functional.normalize, dim=-1)  # σ is at least 1e-12
UNBIASED = (16 / 15) ** 0.5


def deviation(x):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


# By what it is: the module, σ's constant and ε, where ε stands, and what γ is more than stored.
FACTORS = {
    "n - 1": (
        Written(lambda x, g, b: g * deviation(x) + b, "a", "b"),
        UNBIASED,
        1e-6,
        "outside",
        0,
    ),
    "the root of n": (Written(lambda x, g: 4 * g * DEFAULT(x), "g"), 1.0, 2.5e-13, "max", 0),
    "that and 1 + w": (Written(lambda x, g: 4 * (1 + g) * DEFAULT(x), "g"), 1.0, 2.5e-13, "max", 1),
    "a vector's norm": (Written(DEFAULT), "sum", 1e-12, "max", 0),
    "a half": (Written(lambda x, g: 0.5 * g * rms(x), "g"), 2.0, 4e-6, "inside", 0),
    "1 + w with β": (
        Written(lambda x, w, b: (1 + w) * centred(x) + b, "w", "b"),
        1,
        1e-5,
        "inside",
        1,
    ),
}


@pytest.mark.parametrize("name", FACTORS)
def test_factors_and_epsilons_with_gradients(name):
    module, constant, eps, stands, offset = FACTORS[name]
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-1, 1)
    found = recognize(module, torch.randn(LAST, dtype=torch.float64))
    assert found, found.evidence
    scale = found.spec.scale.constant
    assert scale == (constant if constant == "sum" else pytest.approx(constant))
    assert (found.eps, found.spec.dialect.eps) == (pytest.approx(eps), stands)
    assert found.spec.learned.offset == offset
    check_gradients(module, found)


def check_gradients(module, found):
    """The specification with the module's parameters has the module's outputs and gradients."""
    made = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(LAST, generator=made, dtype=torch.float64) for _ in range(2))
    for size in (1e-7, 1.0, 1e4):
        own = (x * size).requires_grad_()
        stored = [
            None if n is None else module.get_parameter(n) for n in (found.weight, found.bias)
        ]
        y = anynorm.functional.normalize(
            *(own, found.spec, *stored), eps=found.eps, activation=found.activation
        )
        right = module(own)
        torch.testing.assert_close(y, right)
        wanted = [own, *module.parameters()]
        pairs = (torch.autograd.grad(out, wanted, dy) for out in (y, right))
        torch.testing.assert_close(*pairs)


@pytest.mark.parametrize("phi", [name for name in ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("center", [True, False])
def test_an_activation_after_the_norm(phi, center):
    function = ACTIVATIONS[phi].module()

    def formula(x, g, b=None):
        return function(g * (rms(x) if b is None else centred(x)) + (0 if b is None else b))

    module = Written(formula, *(["g", "b"] if center else ["g"]))
    found = recognize(module, torch.randn(LAST), activation=True)
    assert found, found.evidence
    assert found.activation == phi
    assert found.spec.center == center
    assert found.eps == (1e-5 if center else 1e-6)
    plain = recognize(module, torch.randn(LAST))
    assert not plain
    assert plain.normalizes
    assert f"applies {phi}" in plain.evidence[0]
    check_gradients(module.double(), found)


def test_no_activation_is_named_where_there_is_none():
    assert recognize(nn.LayerNorm(16), torch.randn(LAST), activation=True).activation is None


def test_a_constant_buffer_that_is_not_stored_plays_no_part():
    class Weightless(nn.Module):
        def __init__(self, persistent):
            super().__init__()
            self.register_buffer("gain", torch.ones(16), persistent=persistent)

        def forward(self, x):
            return self.gain * rms(x)

    class Counting(Weightless):
        def forward(self, x):
            self.gain += 1
            return rms(x)

    assert recognize(Weightless(False), torch.randn(LAST)).weight is None
    assert "state in buffers" in recognize(Weightless(True), torch.randn(LAST)).evidence[0]
    assert "changes its buffers" in recognize(Counting(False), torch.randn(LAST)).evidence[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("module", "name", "learned", "cast"),
    [
        ("llama", "LlamaRMSNorm", Learned(bias=False), "before"),
        ("t5", "T5LayerNorm", Learned(bias=False), "before"),
        ("gemma", "GemmaRMSNorm", Learned(offset=1.0, bias=False), "after"),
        ("gemma3", "Gemma3RMSNorm", Learned(offset=1.0, bias=False), "after"),
        ("qwen3", "Qwen3RMSNorm", Learned(bias=False), "before"),
        ("olmo2", "Olmo2RMSNorm", Learned(bias=False), "after"),
    ],
)
def test_norms_of_transformers_to_the_bit(module, name, learned, cast, dtype):
    modelling = pytest.importorskip(f"transformers.models.{module}.modeling_{module}")
    norm = getattr(modelling, name)(16).to(dtype)
    found = recognize(norm, torch.randn(LAST, dtype=dtype))
    assert found.exact, found.evidence
    assert found.spec.learned == learned
    assert found.spec.is_root_mean_square
    assert found.eps == 1e-6
    if dtype != torch.float32:
        assert found.spec.dialect.cast == cast


@pytest.mark.parametrize("name", ["layer", "rms", "group", "scale", "pixel", "instance"])
def test_our_own_layers_are_recognized(name):
    options = {"groups": 4} if name == "group" else {}
    layer = anynorm.create(name, 16, **options)
    found = recognize(layer, torch.randn(LAST if name in ("layer", "rms", "scale") else IMAGE))
    assert found.exact
    assert found.spec.normalizes_as(layer.spec)
    assert (found.eps, found.sizes or {}) == (pytest.approx(layer.eps), layer.sizes)


@pytest.mark.parametrize(
    ("shape", "dims", "text", "channels"),
    [
        ((2, 6, 16), 1, "n [l] c", 16),
        ((2, 5, 6, 16), (1, 2), "n [h w] c", 16),
        ((2, 5, 6, 7), 2, "n c [h] w", 5),
        ((2, 16, 3, 4, 5), (1, 3, 4), "n [c] t [h w]", 16),
        ((3, 6, 16), (0, 1), "[n l] c", 16),
        ((3, 6, 5), (0, 1, 2), "[n c l]", 6),
    ],
)
def test_any_axes_of_an_input_are_named(shape, dims, text, channels):
    axis = text.replace("[", "").replace("]", "").split().index("c")
    view = [-1 if i == axis else 1 for i in range(len(shape))]
    module = Written(lambda x, g: g.view(view) * rms(x, dims), "weight", size=channels)
    found = recognize(module, torch.randn(shape))
    assert found, found.evidence
    assert (found.spec.pattern.text, found.eps) == (text, 1e-6)
    with torch.no_grad():
        module.weight.uniform_()
    x = torch.randn(shape)
    y = anynorm.functional.normalize(x, found.spec, module.weight, eps=found.eps)
    torch.testing.assert_close(y, module(x))


def test_groups_of_each_frame():
    def frames(x, g, b):
        each = nn.functional.group_norm(x.movedim(2, 1).flatten(0, 1), 4, g, b)
        return each.unflatten(0, (x.shape[0], -1)).movedim(1, 2)

    found = recognize(Written(frames, "g", "b"), torch.randn(2, 16, 3, 4, 4))
    assert (found.spec.pattern.text, found.sizes) == ("n (g [c]) t [h w]", {"g": 4})


def test_norms_of_heads_in_one_axis():
    def heads(x, g):
        return (g * rms(x.unflatten(-1, (4, 4))).flatten(-2)) if len(g) == 16 else x

    found = recognize(Written(heads, "g"), torch.randn(LAST))
    assert (found.spec.pattern.text, found.sizes) == ("... (g [c])", {"c": 4})


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.ReLU(), "depends on the scale"),
        (nn.Linear(16, 16), "other parameters"),
        (nn.Dropout(), "two calls"),
        (nn.Softmax(-1), "depends on the scale"),
        (nn.Flatten(), "its output has shape"),
        (nn.RMSNorm(16, device="meta"), "meta device"),
        (nn.LayerNorm(8), "fails on an input of shape"),
        (nn.BatchNorm1d(5), "state in buffers"),
        (Written(lambda x: x.sign()), "own input at most"),
        (Written(lambda x: rms(x).cumsum(1)), "no block|matches no|along the axes"),
        (Written(lambda x: (x, x)), "type tuple"),
        (Written(lambda x: -rms(x)), "matches no"),
        (Written(lambda x, g: g.exp() * rms(x), "g"), "matches no"),
        (Written(lambda x, g: g.abs() * rms(x), "g"), "matches no|differ"),
        (Written(lambda x, g: rms(x), "g"), "'g' plays no part"),
        (Written(lambda x, g: g.exp() * rms(x), "g", size=1), "matches no"),
        (Written(lambda x, g, b: g * rms(x), "g", "b"), "'b' plays no part"),
        (
            Written(lambda x: x * x[..., :8].pow(2).mean(-1, keepdim=True).rsqrt()),
            "along the axes|matches no",
        ),
        (Written(lambda x: x / (x.std(1, keepdim=True) + 1e-5)), "number of values"),
        (Written(lambda x: rms(x) * torch.arange(1, 6)[:, None]), "matches no|fails"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_norm_says_why(module, reason):
    found = recognize(module, torch.randn(LAST))
    assert not found
    assert re.search(reason, " ".join(found.evidence)), found


def test_without_epsilon_zeros_are_no_numbers_and_it_is_found_all_the_same():
    found = recognize(nn.LayerNorm(16, eps=0.0), torch.randn(LAST))
    assert found.eps == 0.0
    assert found.spec.is_standard


@pytest.mark.parametrize(
    ("module", "x", "reason"),
    [
        (nn.LazyBatchNorm1d(), torch.randn(2, 3), "before the model is called once"),
        (nn.LayerNorm(3), torch.randn(0, 3), "has no values"),
        (nn.LayerNorm(3), torch.randn(3), "no axis beside"),
    ],
)
def test_inputs_and_modules_without_values(module, x, reason):
    assert reason in recognize(module, x).evidence[0]


def test_dropout_that_only_trains_is_seen_in_eval_mode_too():
    class Dropping(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(rms(x), 0.5, self.training)

    found = recognize(Dropping().eval(), torch.randn(LAST))
    assert "train mode" in found.evidence[0]


def test_a_wider_gain_makes_another_type():
    modelling = pytest.importorskip("transformers.models.llama.modeling_llama")
    found = recognize(modelling.LlamaRMSNorm(16), torch.randn(LAST, dtype=torch.bfloat16))
    assert found
    assert not found.exact
    assert "an output of type float32" in found.evidence[-1]


def test_a_gain_over_two_axes_normalizes_and_matches_nothing():
    class OfHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 16))

        def forward(self, x):
            return self.weight * centred(x)

    found = recognize(OfHeads(), torch.randn(2, 5, 4, 16))
    assert not found
    assert found.normalizes
    assert "other parameters" in found.evidence[0]


def test_a_backward_that_fails_is_no_error():
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return rms(x)

        @staticmethod
        def backward(ctx, dy):
            raise RuntimeError("on a GPU only")

    found = recognize(Written(Forward.apply), torch.randn(LAST))
    assert found.evidence == ("its backward fails: on a GPU only",)


def test_types_that_no_layer_takes_together_are_no_match():
    class Widening(nn.Module):
        """Takes float32 with a γ of 16 bits."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, dtype=torch.bfloat16))

        def forward(self, x):
            return self.weight.to(x.dtype) * centred(x)

    found = recognize(Widening(), torch.randn(LAST))
    assert not found
    assert found.normalizes
    assert "must have the same type" in found.evidence[0]


def test_the_module_and_the_random_state_are_left_as_they_are():
    norm = nn.LayerNorm(16, dtype=torch.bfloat16)
    calls = []
    norm.register_forward_hook(lambda *_: calls.append(1))
    before, state = {k: v.clone() for k, v in norm.state_dict().items()}, torch.get_rng_state()
    assert recognize(norm, torch.randn(LAST, dtype=torch.bfloat16, generator=torch.Generator()))
    assert not calls
    assert torch.equal(state, torch.get_rng_state())
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == torch.bfloat16
    assert norm.weight.grad is None


def test_a_class_of_one_configuration_is_measured_once(monkeypatch):
    surgery = import_module("anynorm.surgery.recognize")
    measured = []
    told = surgery._told
    monkeypatch.setattr(surgery, "_told", lambda *given: measured.append(1) or told(*given))
    monkeypatch.setattr(surgery, "_KNOWN", {})
    for eps in (1e-5, 1e-5, 1e-4):
        assert recognize(nn.LayerNorm(16, eps=eps), torch.randn(LAST)).eps == eps
    assert len(measured) == 2


def test_wrong_arguments():
    with pytest.raises(anynorm.AnynormError, match="takes a module"):
        recognize("norm", torch.randn(2, 3))
    with pytest.raises(anynorm.AnynormError, match="floating-point"):
        recognize(nn.LayerNorm(3), torch.ones(2, 3, dtype=torch.long))


def test_a_factor_of_the_number_of_positions_is_not_absorbed():
    class OfLength(nn.Module):
        def forward(self, x):
            unit = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
            return unit * (1 + 0.1 * x.shape[1])

    found = recognize(OfLength(), torch.randn(2, 4, 8))
    assert not found
    assert found.normalizes
    assert "differ by" in found.evidence[0]


def test_what_takes_one_length_only_is_recognized_or_refused_in_words():
    class OneLength(nn.Module):
        def forward(self, x):
            assert x.shape[1] == 4
            return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    assert recognize(OneLength(), torch.randn(2, 4, 8))
    refused = recognize(OneLength(), torch.randn(2, 9, 8))
    assert not refused
    assert refused.evidence
