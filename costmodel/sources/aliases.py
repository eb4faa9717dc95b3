"""Names that people use for networks which a library calls otherwise."""

from __future__ import annotations

__all__ = ["ALIASES"]

#: Looked up after every library's own names, so an alias never hides a model.
ALIASES: dict[str, str] = {
    "alexnet_2gpu": "zoo:alexnet_2012",
    "charcnn": "zoo:char_cnn",
    "ghostnet": "timm:ghostnet_100",
    "ghostnet_v1": "timm:ghostnet_100",
    "inception_v1": "torchvision:googlenet",
    "inceptionresnetv2": "timm:inception_resnet_v2",
    "inceptionnext_tiny": "timm:inception_next_tiny",
    "mobilenet": "timm:mobilenetv1_100",
    "mobilenet_v1": "timm:mobilenetv1_100",
    "mobilenetv1": "timm:mobilenetv1_100",
    "mobilenetv2": "timm:mobilenetv2_100",
    "mobilenet_v4_conv_small": "timm:mobilenetv4_conv_small",
    "mobilenetv3_large": "timm:mobilenetv3_large_100",
    "mobilenetv3_small": "timm:mobilenetv3_small_100",
    "nasnet_a_large": "timm:nasnetalarge",
    "nasnet_large": "timm:nasnetalarge",
    "network_in_network": "zoo:nin",
    "preact_resnet50": "timm:resnetv2_50",
    "resnet50_b": "timm:resnet50",
    "resnet50_c": "timm:resnet50c",
    "resnet50_d": "timm:resnet50d",
    "resnet50b": "timm:resnet50",
    "se_resnet50": "timm:seresnet50",
    "shufflenet": "zoo:shufflenet_v1",
    "shufflenet_v2": "torchvision:shufflenet_v2_x1_0",
    "shufflenetv2": "torchvision:shufflenet_v2_x1_0",
    "squeezenet": "torchvision:squeezenet1_0",
    "vit_b_16_224": "timm:vit_base_patch16_224",
    "wide_resnet50": "timm:wide_resnet50_2",
    "xception": "timm:legacy_xception",
}
