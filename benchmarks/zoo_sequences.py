"""Speech and time series: the models of the zoo with batch normalization in one dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.zoo_parts import WAVE, Architecture, config, floats, pretrained

__all__ = ["SEQUENCES"]

_WAVE: dict[str, Any] = {**WAVE, "intermediate_size": 64}
_SERIES: dict[str, Any] = {
    "num_input_channels": 3,
    "context_length": 32,
    "patch_length": 4,
    "patch_stride": 4,
    "prediction_length": 8,
    "d_model": 32,
}


def _phonemes(n: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, 30, (n, 9))}


SEQUENCES = (
    Architecture(
        "wav2vec2-conformer",
        pretrained(
            "Wav2Vec2ConformerModel",
            config("Wav2Vec2ConformerConfig", conv_depthwise_kernel_size=7, **_WAVE),
        ),
        floats("input_values", 1600),
    ),
    Architecture(
        "hubert-batch-norm",
        pretrained("HubertModel", config("HubertConfig", conv_pos_batch_norm=True, **_WAVE)),
        floats("input_values", 1600),
    ),
    Architecture(
        "parakeet",
        pretrained(
            "ParakeetEncoder",
            config(
                "ParakeetEncoderConfig",
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                subsampling_conv_channels=16,
                num_mel_bins=32,
                layerdrop=0.0,
            ),
        ),
        floats("input_features", 64, 32),
    ),
    Architecture(
        "lasr",
        pretrained(
            "LasrEncoder",
            config(
                "LasrEncoderConfig",
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                subsampling_conv_channels=16,
                num_mel_bins=32,
                conv_kernel_size=7,
                layerdrop=0.0,
            ),
        ),
        floats("input_features", 64, 32),
    ),
    Architecture(
        "granite-speech",
        pretrained(
            "GraniteSpeechCTCEncoder",
            config(
                "GraniteSpeechEncoderConfig",
                input_dim=24,
                num_layers=2,
                hidden_dim=32,
                feedforward_mult=2,
                num_heads=4,
                dim_head=8,
                output_dim=12,
                context_size=16,
                max_pos_emb=32,
            ),
        ),
        floats("hidden_states", 32, 24),
    ),
    Architecture(
        "fastspeech2-conformer",
        pretrained(
            "FastSpeech2ConformerModel",
            config(
                "FastSpeech2ConformerConfig",
                hidden_size=32,
                vocab_size=30,
                num_mel_bins=16,
                encoder_layers=1,
                encoder_linear_units=64,
                decoder_layers=1,
                decoder_linear_units=64,
                decoder_kernel_size=7,
                speech_decoder_postnet_layers=2,
                speech_decoder_postnet_units=16,
                duration_predictor_channels=16,
                energy_predictor_channels=16,
                pitch_predictor_channels=16,
            ),
        ),
        _phonemes,
    ),
    Architecture(
        "patchtst",
        pretrained(
            "PatchTSTForPrediction",
            config("PatchTSTConfig", num_attention_heads=4, ffn_dim=64, loss="mse", **_SERIES),
        ),
        floats("past_values", 32, 3),
    ),
    Architecture(
        "patchtsmixer",
        pretrained(
            "PatchTSMixerForPrediction",
            config("PatchTSMixerConfig", norm_mlp="batchnorm", loss="mse", **_SERIES),
        ),
        floats("past_values", 32, 3),
    ),
    Architecture(
        "clap-audio",
        pretrained(
            "ClapAudioModel",
            config(
                "ClapAudioConfig",
                num_mel_bins=16,
                spec_size=64,
                window_size=4,
                hidden_size=32,
                patch_embeds_hidden_size=16,
                depths=(1, 1),
                num_hidden_layers=2,
                num_attention_heads=(2, 4),
            ),
        ),
        floats("input_features", 1, 256, 16),
    ),
)
