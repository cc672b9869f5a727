"""`convert` to anynorm of modules whose class says nothing, by what they compute."""

import re

import pytest
import torch
from torch import nn

import anynorm


class Rms(nn.Module):
    """As transformers write it: rounded before γ."""

    def __init__(self, channels, name="weight"):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.rand(channels) + 0.5))

    def forward(self, x):
        [gain] = self.parameters()
        wide = x.float()
        unit = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return gain * unit.to(x.dtype)


class Channels(nn.LayerNorm):
    """A subclass that normalizes another axis than its base."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Doubling(nn.LayerNorm):
    """A subclass that does more than normalize."""

    def forward(self, x):
        return 2 * x + super().forward(x)


class Negative(nn.Module):
    def forward(self, x):
        away = x - x.mean(-1, keepdim=True)
        return -away / (away.square().mean(-1, keepdim=True) + 1e-3).sqrt()


class Annotated(nn.Module):
    """As an often copied tutorial has it: n - 1 in σ, to which ε is added."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

    def forward(self, x):
        away = x - x.mean(-1, keepdim=True)
        return self.weight * away / (x.std(-1, keepdim=True) + 1e-6) + self.bias


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_and_the_state_dict_stay(dtype):
    model = nn.Sequential(nn.Linear(4, 8), Rms(8), nn.Linear(8, 8), Rms(8)).to(dtype)
    x = torch.randn(3, 5, 4, dtype=dtype)
    result = anynorm.convert(model, "anynorm", x)
    assert [note.layer for note in result.receipt.changed] == ["1", "3"]
    assert list(result.model.state_dict()) == list(model.state_dict())
    changed, original = result.model(x), model(x)
    if dtype == torch.bfloat16:
        assert torch.equal(changed, original)
    torch.testing.assert_close(changed, original)
    changed.float().square().sum().backward()
    original.float().square().sum().backward()
    for one, other in zip(result.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_norm_with_n_less_one_is_converted():
    model = nn.Sequential(nn.Linear(4, 8), Annotated())
    x = torch.randn(2, 3, 4)
    result = anynorm.convert(model, "anynorm", x)
    assert [note.layer for note in result.receipt.changed] == ["1"]
    torch.testing.assert_close(result.model(x), model(x))
    assert "constant" in repr(result.model[1])
    result.model.load_state_dict(model.state_dict())


def test_in_place_the_parameters_are_the_same_objects_and_ties_hold():
    tied = Rms(4)
    model = nn.Sequential(tied, nn.Linear(4, 4), tied)
    gain = tied.weight
    anynorm.convert(model, "anynorm", torch.randn(2, 4), inplace=True)
    assert isinstance(model[0], anynorm.Norm)
    assert model[0] is model[2]
    assert model[0].weight is gain


def test_subclasses_are_converted_if_their_outputs_say_so():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Channels(8), nn.Flatten(2), Doubling(16))
    result = anynorm.convert(model, "anynorm", torch.randn(2, 3, 4, 4))
    assert [note.layer for note in result.receipt.changed] == ["1"]
    assert result.model[1].spec.pattern.text == "n [c] ..."
    [refused] = result.receipt.refused
    assert refused.layer == "3"
    assert "may do more" in refused.text


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Negative(), "normalizes, but it matches no"),
        (Rms(8, "scale"), "would have {'weight': .8,.} in place of {'scale'"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(module, reason):
    model = nn.Sequential(nn.Linear(4, 8), module)
    result = anynorm.convert(model, "anynorm", torch.randn(2, 3, 4))
    assert not result.receipt.changed
    [refused] = result.receipt.refused
    assert refused.layer == "1"
    assert re.search(reason, refused.text), refused.text


def test_batch_statistics_without_memory_stay_so():
    class OfBatch(nn.Module):
        def forward(self, x):
            away = x - x.mean((0, 2, 3), keepdim=True)
            return away * (away.square().mean((0, 2, 3), keepdim=True) + 1e-5).rsqrt()

    model = nn.Sequential(nn.Conv2d(3, 8, 1), OfBatch()).eval()
    x = torch.randn(4, 3, 5, 5)
    result = anynorm.convert(model, "anynorm", x)
    assert [note.layer for note in result.receipt.changed] == ["1"]
    assert not list(result.model[1].buffers())
    torch.testing.assert_close(result.model(x), model(x))


def test_other_modules_are_left_alone_without_a_word():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x, scale):
            return x * self.weight * scale

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.norm = Gate(), Rms(8)

        def forward(self, x):
            return self.norm(self.gate(x, 2.0))

    result = anynorm.convert(Model(), "anynorm", torch.randn(2, 3, 8))
    assert [note.layer for note in result.receipt.changed] == ["norm"]
    assert not result.receipt.refused


@pytest.mark.parametrize(
    ("module", "cls"), [("llama", "Llama"), ("gemma3", "Gemma3"), ("qwen3", "Qwen3")]
)
def test_decoders_of_transformers_keep_their_bits(module, cls):
    modelling = pytest.importorskip(f"transformers.models.{module}.modeling_{module}")
    text = "Text" if module == "gemma3" else ""
    config = getattr(modelling, f"{cls}{text}Config")(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    torch.manual_seed(0)
    model = getattr(modelling, f"{cls}ForCausalLM")(config).eval().bfloat16()
    ids = {"input_ids": torch.randint(3, 64, (2, 12))}
    result = anynorm.convert(model, "anynorm", ids)
    assert not result.receipt.refused
    assert len(result.receipt.changed) == sum(
        "RMSNorm" in type(m).__name__ for m in model.modules()
    )
    assert list(result.model.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        assert torch.equal(result.model(**ids).logits, model(**ids).logits)


def test_models_of_transformers_are_saved_and_loaded_as_before(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(0.5, 1.5)
    x = {"input_ids": torch.arange(12).reshape(2, 6)}
    converted = anynorm.convert(model, "anynorm", x).model
    converted.save_pretrained(tmp_path)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded.model.norm).__name__ == "LlamaRMSNorm"
    with torch.no_grad():
        assert torch.equal(loaded(**x).logits, model(**x).logits)
    folded = anynorm.fold(model, x).model
    folded.save_pretrained(tmp_path / "folded")
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "folded").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**x).logits, model(**x).logits, rtol=1e-4, atol=1e-4)
