"""Detection, segmentation, depth and reading: the models of the zoo that answer for each place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.zoo_parts import Architecture, Config, config, floats, images, pretrained

__all__ = ["DENSE"]

SIZE = 64
LABELS = 5
Example = Callable[[int], dict[str, Tensor]]


def _row(
    name: str, model: str, settings: Config, example: Example | None = None, fault: str = ""
) -> Architecture:
    build = pretrained(model, settings)
    return Architecture(name, build, example or images(SIZE), fault=fault)


def _family(family: str, suffix: str, **settings: Any) -> tuple[str, Config]:
    """The model and the configuration of one family, as `_row` takes them."""
    return family + suffix, config(f"{family}Config", num_labels=LABELS, **settings)


def _resnet(*stages: str, kind: str = "ResNet", **more: Any) -> Config:
    """A backbone with strides 4, 8, 16 and 32 and 8, 16, 24 and 32 channels."""
    return config(
        f"{kind}Config",
        embedding_size=8,
        hidden_sizes=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        out_features=list(stages),
        **more,
    )


_LAST = _resnet("stage4")
_THREE = ("stage2", "stage3", "stage4")
_ALL = ("stage1", *_THREE)
_HGNET = config(
    "HGNetV2Config",
    stem_channels=(3, 8, 8),
    stage_in_channels=(8, 8, 16, 24),
    stage_mid_channels=(8, 8, 12, 16),
    stage_out_channels=(8, 16, 24, 32),
    stage_num_blocks=(1, 1, 1, 1),
    stage_numb_of_layers=(2, 2, 2, 2),
    embedding_size=8,
    hidden_sizes=(8, 16, 24, 32),
    depths=(1, 1, 1, 1),
    out_features=list(_THREE),
)
_LCNET = [
    [[3, 8, 8, 1, False]],
    [[3, 8, 16, 2, False]],
    [[3, 16, 24, 2, False]],
    [[3, 24, 32, 2, False], [5, 32, 32, 1, False]],
    [[5, 32, 32, 2, True]],
]


def _lcnet(version: str = "V3") -> Config:
    """The same strides and channels."""
    stages = [f"stage{number}" for number in (2, 3, 4, 5)]
    settings = {"block_configs": _LCNET, "stem_channels": 8, "out_features": stages}
    return config(f"PPLCNet{version}Config", **settings)


_TOKENS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIZE,
}
_ENCODER: dict[str, Any] = {
    "encoder_layers": 1,
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_layers": 2,
    "decoder_ffn_dim": 64,
    "decoder_attention_heads": 4,
    "num_queries": 12,
}
_DETR: dict[str, Any] = {**_ENCODER, "d_model": 32, "backbone_config": _LAST}
_HYBRID: dict[str, Any] = {
    **_ENCODER,
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 24, 32],
    "decoder_in_channels": [32, 32, 32],
    "decoder_n_points": 2,
}
_RT: dict[str, Any] = {**_HYBRID, "backbone_config": _resnet(*_THREE, kind="RTDetrResNet")}
_HG: dict[str, Any] = {**_HYBRID, "backbone_config": _HGNET}

_DETECTORS = (
    _row("detr", *_family("Detr", "ForObjectDetection", **_DETR)),
    _row(
        "detr-segmentation",
        *_family(
            "Detr",
            "ForSegmentation",
            **{**_DETR, "backbone_config": _resnet(*_ALL), "encoder_attention_heads": 8},
        ),
    ),
    _row("conditional-detr", *_family("ConditionalDetr", "ForObjectDetection", **_DETR)),
    _row("table-transformer", *_family("TableTransformer", "ForObjectDetection", **_DETR)),
    _row(
        "dab-detr",
        *_family(
            "DabDetr", "ForObjectDetection", hidden_size=32, backbone_config=_LAST, **_ENCODER
        ),
    ),
    _row(
        "deformable-detr",
        *_family(
            "DeformableDetr",
            "ForObjectDetection",
            **{**_DETR, "backbone_config": _resnet(*_THREE), "num_feature_levels": 4},
        ),
    ),
    _row("rt-detr", *_family("RTDetr", "ForObjectDetection", **_RT)),
    _row(
        "rt-detr-training-norms",
        *_family("RTDetr", "ForObjectDetection", freeze_backbone_batch_norms=False, **_RT),
    ),
    _row("rt-detr-v2", *_family("RTDetrV2", "ForObjectDetection", **_RT)),
    _row("d-fine", *_family("DFine", "ForObjectDetection", **_HG)),
    _row("deim-v2", *_family("Deimv2", "ForObjectDetection", **_HG)),
    _row(
        "lw-detr",
        *_family(
            "LwDetr",
            "ForObjectDetection",
            backbone_config=config(
                "LwDetrViTConfig",
                **_TOKENS,
                pretrain_image_size=SIZE,
                patch_size=8,
                num_windows=4,
                window_block_indices=[0, 2],
                out_indices=[2, 4],
            ),
            projector_scale_factors=[1.0],
            d_model=32,
            decoder_ffn_dim=64,
            decoder_layers=2,
            decoder_n_points=2,
            decoder_self_attention_heads=4,
            decoder_cross_attention_heads=4,
            num_queries=12,
            group_detr=2,
        ),
    ),
)

_SEGMENTATION = "ForSemanticSegmentation"
_VIT: dict[str, Any] = {**_TOKENS, "intermediate_size": 64, "patch_size": 8}
_PYRAMID: dict[str, Any] = {
    "depths": (1, 1, 1, 1),
    "hidden_sizes": (8, 16, 24, 32),
    "num_attention_heads": (1, 2, 3, 4),
    "mlp_ratios": (2, 2, 2, 2),
}
_SEGMENTERS = (
    _row(
        "segformer-segmentation",
        *_family("Segformer", _SEGMENTATION, decoder_hidden_size=32, **_PYRAMID),
    ),
    _row(
        "mobilenet-v2-segmentation",
        *_family("MobileNetV2", _SEGMENTATION, depth_multiplier=0.25, finegrained_output=False),
        fault="momentum 0.997, TensorFlow's convention",
    ),
    _row(
        "mobilevit-segmentation",
        *_family(
            "MobileViT",
            _SEGMENTATION,
            image_size=SIZE,
            hidden_sizes=(16, 24, 32),
            neck_hidden_sizes=(8, 8, 16, 16, 24, 32, 64),
            expand_ratio=2.0,
            output_stride=16,
            aspp_out_channels=24,
            atrous_rates=(1, 2, 3),
        ),
    ),
    _row(
        "mobilevit-v2-segmentation",
        *_family(
            "MobileViTV2",
            _SEGMENTATION,
            image_size=SIZE,
            width_multiplier=0.125,
            n_attn_blocks=(1, 1, 1),
            output_stride=16,
            aspp_out_channels=24,
            atrous_rates=(1, 2, 3),
        ),
    ),
    _row(
        "beit-segmentation",
        *_family("Beit", _SEGMENTATION, out_indices=[1, 2, 3, 4], auxiliary_channels=16, **_VIT),
    ),
    _row(
        "data2vec-segmentation",
        *_family(
            "Data2VecVision", _SEGMENTATION, out_indices=[0, 1, 2, 3], auxiliary_channels=16, **_VIT
        ),
    ),
    _row(
        "upernet-resnet",
        *_family(
            "UperNet",
            _SEGMENTATION,
            backbone_config=_resnet(*_ALL),
            hidden_size=24,
            auxiliary_in_channels=24,
            auxiliary_channels=16,
        ),
    ),
    _row(
        "upernet-convnext",
        *_family(
            "UperNet",
            _SEGMENTATION,
            backbone_config=config(
                "ConvNextConfig",
                hidden_sizes=[8, 16, 24, 32],
                depths=[1, 1, 1, 1],
                layer_scale_init_value=0.1,
                out_features=list(_ALL),
            ),
            hidden_size=24,
            auxiliary_in_channels=24,
            auxiliary_channels=16,
        ),
    ),
    _row(
        "maskformer",
        "MaskFormerForInstanceSegmentation",
        config(
            "MaskFormerConfig",
            num_labels=LABELS,
            backbone_config=_resnet(*_ALL),
            decoder_config=config("DetrConfig", **_DETR),
            fpn_feature_size=32,
            mask_feature_size=32,
        ),
    ),
    _row(
        "mask2former",
        "Mask2FormerForUniversalSegmentation",
        config(
            "Mask2FormerConfig",
            num_labels=LABELS,
            backbone_config=_resnet(*_ALL),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=64,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=4,
            dim_feedforward=64,
            num_queries=12,
        ),
    ),
)

_NECK: dict[str, Any] = {
    "neck_hidden_sizes": [8, 16, 24, 32],
    "fusion_hidden_size": 16,
    "use_batch_norm_in_fusion_residual": True,
}
_DPT: dict[str, Any] = {
    **_NECK,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": SIZE,
}
_PLAIN: dict[str, Any] = {**_DPT, "patch_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
_BIT = config(
    "BitConfig",
    embedding_size=8,
    num_groups=4,
    hidden_sizes=(8, 16, 24),
    depths=(1, 1, 1),
    layer_type="bottleneck",
    out_features=["stage1", "stage2", "stage3"],
)
_LAYERS = ["stage1", "stage2", "stage3", "stage4"]

_DEPTH = (
    _row("dpt-depth", *_family("DPT", "ForDepthEstimation", **_PLAIN)),
    _row("dpt-segmentation", *_family("DPT", _SEGMENTATION, **_PLAIN)),
    _row(
        "dpt-hybrid",
        *_family(
            "DPT",
            "ForDepthEstimation",
            is_hybrid=True,
            backbone_config=_BIT,
            backbone_featmap_shape=[1, 24, 4, 4],
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            **_DPT,
        ),
    ),
    _row("glpn", *_family("GLPN", "ForDepthEstimation", decoder_hidden_size=16, **_PYRAMID)),
    _row(
        "zoedepth",
        "ZoeDepthForDepthEstimation",
        config(
            "ZoeDepthConfig",
            backbone_config=config(
                "BeitConfig", out_features=_LAYERS, reshape_hidden_states=False, **_VIT
            ),
            bottleneck_features=16,
            num_relative_features=16,
            num_attractors=[4, 2, 1, 1],
            bin_embedding_dim=16,
            bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
            **_NECK,
        ),
    ),
    _row(
        "depth-anything",
        "DepthAnythingForDepthEstimation",
        config(
            "DepthAnythingConfig",
            backbone_config=config(
                "Dinov2Config",
                mlp_ratio=2,
                patch_size=8,
                out_features=_LAYERS,
                reshape_hidden_states=False,
                **_TOKENS,
            ),
            patch_size=8,
            reassemble_hidden_size=32,
            neck_hidden_sizes=[8, 16, 24, 32],
            fusion_hidden_size=16,
            head_hidden_size=8,
        ),
    ),
)


def _characters(n: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(2, 90, (n, 7)), "pixel_values": torch.randn(n, 3, 32, 32)}


_OTHERS = (
    _row(
        "vitmatte",
        "VitMatteForImageMatting",
        config(
            "VitMatteConfig",
            backbone_config=config(
                "VitDetConfig", num_channels=4, patch_size=16, out_features=["stage4"], **_TOKENS
            ),
            hidden_size=32,
            convstream_hidden_sizes=[8, 16, 24],
            fusion_hidden_sizes=[24, 16, 16, 8],
        ),
        floats("pixel_values", 4, SIZE, SIZE),
    ),
    _row(
        "vitpose",
        *_family(
            "VitPose",
            "ForPoseEstimation",
            use_simple_decoder=False,
            backbone_config=config(
                "VitPoseBackboneConfig",
                **{**_TOKENS, "image_size": (SIZE, SIZE)},
                mlp_ratio=2,
                out_features=["stage4"],
            ),
        ),
    ),
    _row(
        "superpoint",
        "SuperPointForKeypointDetection",
        config(
            "SuperPointConfig",
            encoder_hidden_sizes=[8, 8, 16, 16],
            decoder_hidden_size=16,
            descriptor_decoder_dim=16,
        ),
    ),
    _row(
        "uvdoc",
        "UVDocModel",
        config(
            "UVDocConfig",
            backbone_config=config(
                "UVDocBackboneConfig",
                resnet_head=((3, 8), (8, 8)),
                resnet_configs=(((8, 8, 1, False),), ((8, 16, 1, True), (16, 16, 3, False))),
                stage_configs=(((16, 1),), ((16, 2), (16, 1))),
                out_features=["stage1", "stage2"],
            ),
            bridge_connector=(16, 16),
            out_point_positions2D=((16, 8), (8, 2)),
        ),
    ),
    _row(
        "groupvit",
        "GroupViTModel",
        config(
            "GroupViTConfig",
            text_config=config(
                "GroupViTTextConfig",
                vocab_size=99,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=4,
                eos_token_id=98,
            ),
            vision_config=config(
                "GroupViTVisionConfig",
                hidden_size=32,
                intermediate_size=64,
                depths=(1, 1),
                num_hidden_layers=2,
                num_group_tokens=(8, 0),
                num_output_groups=(8, 8),
                num_attention_heads=4,
                image_size=32,
                patch_size=8,
            ),
            projection_dim=16,
            projection_intermediate_dim=64,
        ),
        _characters,
    ),
    _row(
        "mgp-str",
        "MgpstrForSceneTextRecognition",
        config(
            "MgpstrConfig",
            image_size=(32, 64),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_token_length=8,
            num_bpe_labels=60,
            num_wordpiece_labels=50,
        ),
        images(32, 64),
    ),
    _row(
        "pp-ocr-mobile-det",
        "PPOCRV5MobileDetForObjectDetection",
        config(
            "PPOCRV5MobileDetConfig",
            backbone_config=_lcnet(),
            neck_out_channels=16,
            layer_list_out_channels=[8, 12, 16, 24],
        ),
    ),
    _row(
        "pp-ocr-mobile-rec",
        "PPOCRV5MobileRecForTextRecognition",
        config(
            "PPOCRV5MobileRecConfig",
            backbone_config=_lcnet(),
            hidden_size=24,
            num_attention_heads=4,
            head_out_channels=40,
        ),
        images(96, 128),
    ),
    _row(
        "slanet",
        "SLANetForTableRecognition",
        config(
            "SLANetConfig",
            backbone_config=_lcnet(""),
            post_conv_out_channels=16,
            hidden_size=16,
            out_channels=12,
            max_text_length=6,
        ),
    ),
)

DENSE = (*_DETECTORS, *_SEGMENTERS, *_DEPTH, *_OTHERS)
