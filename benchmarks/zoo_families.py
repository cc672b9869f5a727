"""Families of transformers and diffusion models with random weights, many norms written by hand.

Nothing is downloaded.  Rows that are in the zoo already are taken from there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo import Architecture, find
from benchmarks.zoo_parts import WAVE, Batch, config, floats, pretrained, redrawn

__all__ = ["FAMILIES"]

_WORDS = 64
_TEXT: dict[str, Any] = {
    "vocab_size": _WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_HEADS: dict[str, Any] = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
_LOW_RANK: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
}
_SHORT_STATE: dict[str, Any] = {"state_size": 8, "use_cache": False}
_SCANS: dict[str, Any] = {**_SHORT_STATE, "num_heads": 8, "head_dim": 8, "n_groups": 2}
_LINEAR: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_TWO_STACKS: dict[str, Any] = {
    "vocab_size": _WORDS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
_T5: dict[str, Any] = {
    "vocab_size": _WORDS,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_PATCHES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_WAVE: dict[str, Any] = {**WAVE, "intermediate_size": 48}


def _words(n: int, length: int = 12) -> Tensor:
    return torch.randint(3, _WORDS, (n, length))


def _text(n: int) -> Batch:
    return {"input_ids": _words(n)}


def _pair(n: int) -> Batch:
    return {"input_ids": _words(n), "decoder_input_ids": _words(n, 7)}


def _transformer(
    name: str,
    model: str,
    kind: str,
    example: Callable[[int], Batch] = _text,
    **settings: Any,
) -> Architecture:
    return Architecture(name, pretrained(model, config(f"{kind}Config", **settings)), example)


def _decoder(kind: str, head: str = "ForCausalLM", **settings: Any) -> Architecture:
    """A decoder with grouped attention and its own size of a head."""
    return _transformer(kind.lower(), kind + head, kind, **{**_HEADS, **settings})


def _older(kind: str, head: str = "ForCausalLM", **settings: Any) -> Architecture:
    """A decoder whose heads share the width evenly."""
    return _transformer(kind.lower(), kind + head, kind, **{**_TEXT, **settings})


def _encoder(kind: str, **settings: Any) -> Architecture:
    return _transformer(kind.lower(), f"{kind}Model", kind, **{**_TEXT, **settings})


def _two(kind: str, **settings: Any) -> Architecture:
    return _transformer(kind.lower(), f"{kind}Model", kind, _pair, **settings)


def _diffusion(
    name: str, model: str, example: Callable[[int], Batch], **settings: Any
) -> Architecture:
    """A model of diffusers."""

    def build() -> nn.Module:
        return redrawn(getattr(importlib.import_module("diffusers"), model)(**settings))

    return Architecture(name, build, example)


def _noisy(*shape: int) -> Callable[[int], Batch]:
    """Images with noise, and how much of it."""
    return lambda n: {"sample": torch.randn(n, *shape), "timestep": torch.arange(1, n + 1)}


def _prompted(*shape: int, width: int = 16) -> Callable[[int], Batch]:
    """Noisy images, and a text that says what is in them."""
    noisy = _noisy(*shape)
    return lambda n: {**noisy(n), "encoder_hidden_states": torch.randn(n, 5, width)}


def _latent(*shape: int) -> Callable[[int], Batch]:
    """Noisy latents, with a text and its summary."""
    return lambda n: {
        "hidden_states": torch.randn(n, *shape),
        "timestep": torch.arange(1, n + 1),
        "encoder_hidden_states": torch.randn(n, 5, 32),
    }


def _of_class(n: int) -> Batch:
    return {
        "hidden_states": torch.randn(n, 4, 8, 8),
        "timestep": torch.arange(1, n + 1),
        "class_labels": torch.arange(n) % 10,
    }


def _flux(n: int) -> Batch:
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(4.0))
    return {
        "hidden_states": torch.randn(n, 12, 16),
        "encoder_hidden_states": torch.randn(n, 5, 32),
        "pooled_projections": torch.randn(n, 32),
        "timestep": torch.linspace(0.1, 0.9, n),
        "img_ids": places,
        "txt_ids": torch.zeros(5, 3),
    }


def _stable(n: int) -> Batch:
    return {**_latent(4, 8, 8)(n), "pooled_projections": torch.randn(n, 32)}


def _masked(*shape: int) -> Callable[[int], Batch]:
    """Noisy latents, with a text that may be padded."""
    latent, mask = _latent(*shape), {"encoder_attention_mask": torch.ones(1, 5, dtype=torch.bool)}
    return lambda n: {**latent(n), **{name: one.expand(n, -1) for name, one in mask.items()}}


def _video(n: int) -> dict[str, Any]:
    return {**_masked(8, 4)(n), "num_frames": 2, "height": 2, "width": 2}


def _pixart(n: int) -> dict[str, Any]:
    return {**_latent(4, 8, 8)(n), "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


_DECODERS = (
    _decoder("Llama"),
    _decoder("Mistral"),
    _decoder("Mixtral", num_local_experts=4),
    _decoder("Qwen2"),
    _decoder("Qwen3"),
    _decoder("Qwen3Moe", **_EXPERTS),
    _decoder("Qwen3Next", **_EXPERTS, **_LINEAR, shared_expert_intermediate_size=16),
    _decoder("Gemma"),
    _decoder("Gemma2"),
    _decoder("Gemma3Text", "Model"),
    _decoder("Phi", qk_layernorm=True),
    _decoder("Phi3"),
    _older("GPT2", "LMHeadModel"),
    _older("GPTNeoX"),
    _older("GPTJ", rotary_dim=4),
    _older("OPT", ffn_dim=48, word_embed_proj_dim=32),
    _older("Bloom"),
    _older("Falcon"),
    _older("Mpt"),
    _older("Mamba", **_SHORT_STATE),
    _older("FalconMamba", **_SHORT_STATE),
    _older("Mamba2", **_SCANS),
    _decoder("Cohere", use_qk_norm=True),
    _decoder("Olmo"),
    _decoder("Olmo2"),
    _decoder("StableLm", qk_layernorm=True),
    _decoder("Starcoder2"),
    _older("DeepseekV3", **_LOW_RANK),
    _decoder("Granite"),
    _decoder("Glm"),
    _decoder("Glm4"),
    _decoder("Nemotron"),
    _decoder("Persimmon"),
    _decoder("RecurrentGemma", num_hidden_layers=3, lru_width=32, use_cache=False),
    _older("Rwkv", attention_hidden_size=32, use_cache=False),
    _decoder("Exaone4"),
    _decoder("Helium"),
    _decoder("GptOss", num_local_experts=4),
    _decoder("NanoChat"),
    _decoder("BitNet"),
    _decoder("DiffLlama"),
    _decoder("MiniMax", num_local_experts=4),
    _decoder("Lfm2"),
    _decoder("Doge"),
    _decoder("Olmo3"),
    _decoder("Apertus"),
    _transformer(
        "llama4",
        "Llama4ForCausalLM",
        "Llama4Text",
        **_HEADS,
        num_local_experts=2,
        intermediate_size_mlp=32,
    ),
    _transformer(
        "gemma3n",
        "Gemma3nTextModel",
        "Gemma3nText",
        **_HEADS,
        num_kv_shared_layers=0,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=_WORDS,
        layer_types=["full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 2,
        laurel_rank=4,
    ),
    _older(
        "Bamba",
        num_key_value_heads=2,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        attn_layer_indices=[1],
        use_cache=False,
    ),
    _older(
        "Jamba",
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=4,
        use_cache=False,
        use_mamba_kernels=False,
    ),
    _older("xLSTM", num_heads=4, use_cache=False),
    _transformer("imagegpt", "ImageGPTModel", "ImageGPT", **_TEXT),
)
_ENCODERS = (
    _transformer("squeezebert", "SqueezeBertModel", "SqueezeBert", **_TEXT, embedding_size=32),
    _encoder("Bert"),
    _encoder("Roberta"),
    _encoder("Deberta"),
    _encoder("DebertaV2"),
    _encoder("ModernBert"),
    _encoder("Electra"),
    _encoder("MobileBert", embedding_size=16, intra_bottleneck_size=16),
)
_VISION = (
    *map(find, ("vit", "swin", "convnext-v2", "dinov2", "bit-bottleneck", "poolformer")),
    *map(find, ("detr", "rt-detr", "deim-v2")),
    _transformer(
        "siglip", "SiglipVisionModel", "SiglipVision", floats("pixel_values", 3, 32, 32), **_PATCHES
    ),
    _transformer(
        "clip", "CLIPVisionModel", "CLIPVision", floats("pixel_values", 3, 32, 32), **_PATCHES
    ),
    _transformer(
        "vitdet",
        "VitDetModel",
        "VitDet",
        floats("pixel_values", 3, 32, 32),
        **_PATCHES,
        window_block_indices=[0],
        residual_block_indices=[1],
    ),
)
_AUDIO = (
    find("hubert-batch-norm"),
    _transformer("wav2vec2", "Wav2Vec2Model", "Wav2Vec2", floats("input_values", 1600), **_WAVE),
    _transformer(
        "hubert",
        "HubertModel",
        "Hubert",
        floats("input_values", 1600),
        **{**_WAVE, "feat_extract_norm": "layer"},
    ),
    _transformer(
        "whisper",
        "WhisperModel",
        "Whisper",
        lambda n: {"input_features": torch.randn(n, 16, 32), "decoder_input_ids": _words(n, 7)},
        **_TWO_STACKS,
        num_mel_bins=16,
        max_source_positions=16,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
)
_TWO_STACKED = (
    _two("T5", **_T5),
    _two("MT5", **_T5),
    _two("Bart", **_TWO_STACKS),
    _two("Pegasus", **_TWO_STACKS),
)
_DIFFUSION = (
    _diffusion(
        "unet-2d",
        "UNet2DModel",
        _noisy(3, 16, 16),
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ),
    _diffusion(
        "unet-2d-condition",
        "UNet2DConditionModel",
        _prompted(4, 16, 16),
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    ),
    _diffusion(
        "dit",
        "DiTTransformer2DModel",
        _of_class,
        num_attention_heads=4,
        attention_head_dim=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=10,
    ),
    _diffusion(
        "autoencoder-kl",
        "AutoencoderKL",
        floats("sample", 3, 16, 16),
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    ),
    _diffusion(
        "flux",
        "FluxTransformer2DModel",
        _flux,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    ),
    _diffusion(
        "stable-diffusion-3",
        "SD3Transformer2DModel",
        _stable,
        sample_size=8,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    ),
    _diffusion(
        "sana",
        "SanaTransformer2DModel",
        _latent(4, 8, 8),
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=8,
        qk_norm="rms_norm_across_heads",
    ),
    _diffusion(
        "lumina-2",
        "Lumina2Transformer2DModel",
        _masked(4, 8, 8),
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(16, 16, 16),
        cap_feat_dim=32,
    ),
    _diffusion(
        "wan",
        "WanTransformer3DModel",
        _latent(4, 2, 8, 8),
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=16,
        ffn_dim=48,
        num_layers=2,
        rope_max_seq_len=32,
    ),
    _diffusion(
        "wan-autoencoder",
        "AutoencoderKLWan",
        floats("sample", 3, 5, 16, 16),
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ),
    _diffusion(
        "cogvideox",
        "CogVideoXTransformer3DModel",
        _latent(2, 4, 8, 8),
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=32,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=5,
    ),
    _diffusion(
        "mochi",
        "MochiTransformer3DModel",
        _masked(4, 2, 8, 8),
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        max_sequence_length=5,
    ),
    _diffusion(
        "ltx-video",
        "LTXVideoTransformer3DModel",
        _video,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    ),
    _diffusion(
        "pixart",
        "PixArtTransformer2DModel",
        _pixart,
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=8,
    ),
    _diffusion(
        "autoencoder-dc",
        "AutoencoderDC",
        floats("sample", 3, 16, 16),
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
    ),
)

FAMILIES: tuple[Architecture, ...] = (
    *_DECODERS,
    *_ENCODERS,
    *_VISION,
    *_AUDIO,
    *_TWO_STACKED,
    *_DIFFUSION,
)
