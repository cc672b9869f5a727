"""Image classifiers of the zoo: convolutional networks, hybrids and transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.zoo_parts import CLASSES, Architecture, config, images, pretrained, with_head

__all__ = ["CLASSIFIERS"]

SIZE = 32
Build = Callable[[], nn.Module]


def _native(family: str, suffix: str = "ForImageClassification", **settings: Any) -> Build:
    """The classification model of transformers itself."""
    return pretrained(family + suffix, config(f"{family}Config", num_labels=CLASSES, **settings))


def _headed(family: str, suffix: str, features: int, **settings: Any) -> Build:
    """A backbone for which transformers has no classifier."""
    return with_head(family + suffix, config(f"{family}Config", **settings), features)


def _row(name: str, build: Build, epochs: int = 8, fault: str = "") -> Architecture:
    return Architecture(name, build, images(SIZE), epochs, fault)


_STAGES: dict[str, Any] = {"hidden_sizes": (16, 32, 48), "depths": (1, 1, 1)}
_TOKENS: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}
_PERCEPTRON: dict[str, Any] = {**_TOKENS, "intermediate_size": 96}
_WINDOWS: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 4,
    "embed_dim": 32,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
}
_PYRAMID: dict[str, Any] = {
    "num_encoder_blocks": 3,
    "depths": (1, 1, 1),
    "sr_ratios": (4, 2, 1),
    "hidden_sizes": (16, 32, 48),
    "patch_sizes": (3, 3, 3),
    "strides": (2, 2, 2),
    "num_attention_heads": (1, 2, 4),
    "mlp_ratios": (2, 2, 2),
}
_HG: dict[str, Any] = {
    "stem_channels": (3, 12, 16),
    "stem_strides": (2, 1, 1, 1, 1),
    "embedding_size": 16,
    "hidden_sizes": (24, 48, 64),
    "depths": (1, 1, 1),
    "stage_in_channels": (16, 24, 48),
    "stage_mid_channels": (12, 16, 24),
    "stage_out_channels": (24, 48, 64),
    "stage_num_blocks": (1, 2, 1),
    "stage_downsample": (False, True, True),
    "stage_downsample_strides": (2, 2, 2),
    "stage_light_block": (False, True, True),
    "stage_kernel_size": (3, 5, 5),
    "stage_numb_of_layers": (2, 2, 2),
}
_EFFICIENT: dict[str, Any] = {
    "image_size": SIZE,
    "width_coefficient": 0.5,
    "depth_coefficient": 1.0,
    "kernel_sizes": (3, 5, 3),
    "in_channels": (32, 16, 32),
    "out_channels": (16, 32, 48),
    "strides": (1, 2, 2),
    "num_block_repeats": (1, 2, 2),
    "expand_ratios": (1, 4, 4),
    "hidden_dim": 640,
    "batch_norm_momentum": 0.1,  # its default, 0.99, is TensorFlow's convention
}
_UVDOC = config(
    "UVDocBackboneConfig",
    resnet_head=((3, 12), (12, 12)),
    resnet_configs=(
        ((12, 12, 1, False), (12, 12, 3, False)),
        ((12, 24, 1, True), (24, 24, 3, False)),
    ),
    stage_configs=(((24, 1),), ((24, 2), (24, 1))),
)
# Kernel size, channels in and out, stride, squeeze and excitation.
_LCNET = [
    [[3, 16, 16, 1, False]],
    [[3, 16, 32, 2, False], [3, 32, 32, 1, False]],
    [[5, 32, 48, 1, True]],
    [[5, 48, 48, 2, False], [5, 48, 48, 1, True]],
]
_LAST = [[3, 48, 48, 1, False]]

_CONVOLUTIONAL = (
    _row("resnet-basic", _native("ResNet", embedding_size=16, layer_type="basic", **_STAGES)),
    _row("resnet-bottleneck", _native("ResNet", embedding_size=16, **_STAGES)),
    _row(
        "regnet-x", _native("RegNet", embedding_size=16, layer_type="x", groups_width=8, **_STAGES)
    ),
    _row(
        "regnet-y", _native("RegNet", embedding_size=16, layer_type="y", groups_width=8, **_STAGES)
    ),
    _row(
        "mobilenet-v1",
        _native("MobileNetV1", depth_multiplier=0.25, classifier_dropout_prob=0.1),
        epochs=16,
        fault="momentum 0.9997, TensorFlow's convention",
    ),
    _row(
        "mobilenet-v2",
        _native(
            "MobileNetV2",
            depth_multiplier=0.25,
            expand_ratio=4.0,
            output_stride=16,
            finegrained_output=False,
            classifier_dropout_prob=0.1,
        ),
        epochs=12,
        fault="momentum 0.997, TensorFlow's convention",
    ),
    _row("efficientnet", _native("EfficientNet", dropout_rate=0.2, **_EFFICIENT), 12),
    _row("hgnet-v2", _native("HGNetV2", **_HG)),
    _row("hgnet-v2-affine", _native("HGNetV2", use_learnable_affine_block=True, **_HG)),
    _row(
        "textnet",
        _native(
            "TextNet",
            image_size=(SIZE, SIZE),
            stem_out_channels=16,
            hidden_sizes=(16, 16, 24, 32, 48),
            conv_layer_kernel_sizes=[[[3, 3]], [[3, 3], [1, 3]], [[3, 1], [3, 3]], [[3, 3]]],
            conv_layer_strides=[[1], [2, 1], [1, 2], [1]],
        ),
    ),
    _row(
        "pp-lcnet",
        _native(
            "PPLCNet", block_configs=[*_LCNET, _LAST], class_expand=96, hidden_dropout_prob=0.1
        ),
    ),
    _row(
        "pp-lcnet-v3",
        _headed("PPLCNetV3", "Backbone", 48, block_configs=[*_LCNET, _LAST], conv_symmetric_num=2),
    ),
    _row(
        "pp-lcnet-v4",
        _headed(
            "PPLCNetV4",
            "Backbone",
            48,
            stem_channels=(3, 12, 16),
            stem_strides=(2, 1, 1, 1, 1),
            block_configs=_LCNET,
        ),
    ),
    _row("rt-detr-resnet", _headed("RTDetrResNet", "Backbone", 48, embedding_size=16, **_STAGES)),
    _row("align-vision", _headed("AlignVision", "Model", 24, **_EFFICIENT)),
    _row("uvdoc-backbone", with_head("UVDocBackbone", _UVDOC, 24)),
    _row("bit-preactivation", _native("Bit", embedding_size=16, num_groups=4, **_STAGES)),
    _row(
        "bit-bottleneck",
        _native("Bit", embedding_size=16, num_groups=4, layer_type="bottleneck", **_STAGES),
    ),
    _row(
        "convnext",
        _native(
            "ConvNext",
            num_stages=3,
            patch_size=2,
            image_size=SIZE,
            layer_scale_init_value=0.1,  # far smaller, and an untrained block would do nothing
            **_STAGES,
        ),
    ),
    _row("convnext-v2", _native("ConvNextV2", num_stages=3, patch_size=2, **_STAGES)),
    _row(
        "dinov3-convnext",
        _headed(
            "DINOv3ConvNext",
            "Model",
            48,
            hidden_sizes=[16, 24, 32, 48],
            depths=[1, 1, 1, 1],
            layer_scale_init_value=0.1,
        ),
    ),
)

_HYBRID = (
    _row(
        "levit",
        _native(
            "Levit",
            image_size=SIZE,
            patch_size=16,
            hidden_sizes=(32, 48, 64),
            num_attention_heads=(2, 3, 4),
            depths=(1, 1, 1),
            key_dim=(8, 8, 8),
        ),
    ),
    _row(
        "levit-teacher",
        _native(
            "Levit",
            "ForImageClassificationWithTeacher",
            image_size=SIZE,
            hidden_sizes=(32, 48, 64),
            num_attention_heads=(2, 3, 4),
            depths=(1, 1, 1),
            key_dim=(8, 8, 8),
        ),
    ),
    _row(
        "mobilevit",
        _native(
            "MobileViT",
            image_size=SIZE,
            hidden_sizes=(32, 40, 48),
            neck_hidden_sizes=(8, 16, 16, 24, 32, 40, 64),
            expand_ratio=2.0,
            output_stride=8,
        ),
    ),
    _row(
        "mobilevit-v2",
        _native(
            "MobileViTV2",
            image_size=SIZE,
            width_multiplier=0.125,
            base_attn_unit_dims=(256, 256, 256),
            n_attn_blocks=(1, 1, 1),
            output_stride=8,
        ),
    ),
    _row(
        "swiftformer",
        _native(
            "SwiftFormer",
            image_size=SIZE,
            depths=(1, 1, 1),
            embed_dims=(16, 32, 48),
            downsamples=(True, True, True),
            mlp_ratio=2,
            layer_scale_init_value=0.1,
        ),
    ),
    _row(
        "cvt",
        _native(
            "Cvt",
            patch_sizes=(3, 3, 3),
            patch_stride=(2, 2, 2),
            patch_padding=(1, 1, 1),
            embed_dim=(16, 32, 48),
            num_heads=(1, 2, 4),
            depth=(1, 2, 3),
            mlp_ratio=(2.0, 2.0, 2.0),
        ),
    ),
    _row(
        "perceiver-conv",
        _native(
            "Perceiver",
            "ForImageClassificationConvProcessing",
            num_latents=8,
            d_latents=64,
            cross_attention_shape_for_attention="q",  # fewer channels than the pixels have
            num_self_attends_per_block=1,
            num_self_attention_heads=4,
            num_cross_attention_heads=1,
        ),
        epochs=12,
    ),
)

_TRANSFORMERS = (
    _row("segformer", _native("Segformer", **_PYRAMID)),
    _row("pvt-v2", _native("PvtV2", image_size=SIZE, **_PYRAMID)),
    _row(
        "pvt",
        _native(
            "Pvt",
            image_size=SIZE,
            num_encoder_blocks=3,
            depths=(1, 1, 1),
            sequence_reduction_ratios=(4, 2, 1),
            hidden_sizes=(16, 32, 48),
            patch_sizes=(4, 2, 2),
            strides=(4, 2, 2),
            num_attention_heads=(1, 2, 4),
            mlp_ratios=(2, 2, 2),
        ),
    ),
    _row(
        "poolformer",
        _native(
            "PoolFormer",
            num_encoder_blocks=3,
            patch_sizes=(3, 3, 3),
            strides=(2, 2, 2),
            padding=(1, 1, 1),
            layer_scale_init_value=0.1,
            **_STAGES,
        ),
    ),
    _row(
        "focalnet",
        _native(
            "FocalNet",
            image_size=SIZE,
            patch_size=4,
            embed_dim=24,
            hidden_sizes=(24, 48),
            depths=(1, 1),
            focal_levels=(2, 2),
            focal_windows=(3, 3),
        ),
    ),
    _row("swin", _native("Swin", **_WINDOWS)),
    _row("swin-v2", _native("Swinv2", **_WINDOWS)),
    _row("donut-swin", _native("DonutSwin", **_WINDOWS)),
    _row(
        "hiera",
        _native(
            "Hiera",
            image_size=(SIZE, SIZE),
            embed_dim=16,
            patch_size=(3, 3),
            patch_stride=(2, 2),
            patch_padding=(1, 1),
            depths=(1, 1, 1),
            num_heads=(1, 2, 4),
            num_query_pool=2,
            masked_unit_size=(4, 4),
            masked_unit_attention=(True, True, False),
        ),
    ),
    _row("vit", _native("ViT", **_PERCEPTRON), 16),
    _row("deit", _native("DeiT", **_PERCEPTRON), 16),
    _row("vit-msn", _native("ViTMSN", **_PERCEPTRON), 16),
    _row("ijepa", _native("IJepa", **_PERCEPTRON), 16),
    _row("beit", _native("Beit", use_relative_position_bias=True, **_PERCEPTRON), 16),
    _row("data2vec-vision", _native("Data2VecVision", out_indices=(0, 1, 2), **_PERCEPTRON), 16),
    _row("dinov2", _native("Dinov2", mlp_ratio=2, **_TOKENS), 16),
    _row("dinov2-registers", _native("Dinov2WithRegisters", mlp_ratio=2, **_TOKENS), 16),
)

CLASSIFIERS = (*_CONVOLUTIONAL, *_HYBRID, *_TRANSFORMERS)
