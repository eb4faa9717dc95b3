"""The models over which predictions for a CPU are judged: name -> family, and which half served development."""

from __future__ import annotations

import zlib

__all__ = ["FAMILIES", "is_development"]

_TORCHVISION = {
    "alexnet": "alexnet", "vgg11": "vgg", "vgg16_bn": "vgg", "squeezenet1_1": "squeezenet", "googlenet": "googlenet",
    "inception_v3": "inception", "shufflenet_v2_x1_0": "shufflenetv2", "mnasnet1_0": "mnasnet",
    "mobilenet_v2": "mobilenetv2", "mobilenet_v3_large": "mobilenetv3", "densenet121": "densenet",
    "resnet18": "resnet", "resnet50": "resnet", "resnext50_32x4d": "resnext", "wide_resnet50_2": "resnet",
    "regnet_y_400mf": "regnet", "efficientnet_b0": "efficientnet", "convnext_tiny": "convnext", "vit_b_16": "vit",
    "swin_t": "swin",
}  # fmt: skip
_TIMM = {
    "vgg13": "vgg", "resnet34": "resnet", "resnet26d": "resnet", "seresnet50": "senet", "resnetv2_50": "resnetv2",
    "skresnet18": "sknet", "resnest14d": "resnest", "res2net50_14w_8s": "res2net", "ese_vovnet19b_dw": "vovnet",
    "dla34": "dla", "hrnet_w18_small": "hrnet", "cspresnet50": "cspnet", "cspdarknet53": "cspnet", "dpn68": "dpn",
    "mobilenetv3_small_100": "mobilenetv3", "mobilenetv3_large_100": "mobilenetv3",
    "mobilenetv4_conv_small": "mobilenetv4", "efficientnet_lite0": "efficientnet",
    "tf_efficientnetv2_b0": "efficientnetv2", "ghostnet_100": "ghostnet", "hardcorenas_a": "hardcorenas",
    "fbnetc_100": "fbnet", "lcnet_100": "lcnet", "tinynet_c": "tinynet", "rexnet_100": "rexnet",
    "regnetx_008": "regnet", "regnety_008": "regnet", "repvgg_a0": "repvgg", "convnext_atto": "convnext",
    "convnextv2_atto": "convnextv2", "mixer_s32_224": "mlp_mixer", "resmlp_12_224": "resmlp",
    "gmlp_ti16_224": "gmlp", "vit_tiny_patch16_224": "vit", "deit_small_patch16_224": "vit",
    "vit_base_patch32_224": "vit", "swin_tiny_patch4_window7_224": "swin", "coat_lite_tiny": "coat",
    "levit_128s": "levit", "pit_ti_224": "pit", "pvt_v2_b0": "pvt", "twins_svt_small": "twins",
    "cait_xxs24_224": "cait", "xcit_nano_12_p16_224": "xcit", "tnt_s_patch16_224": "tnt",
    "edgenext_xx_small": "edgenext", "mobilevit_xxs": "mobilevit", "mobileone_s0": "mobileone",
    "efficientformer_l1": "efficientformer", "fastvit_t8": "fastvit", "poolformer_s12": "metaformer",
    "caformer_s18": "metaformer", "visformer_tiny": "visformer", "inception_next_atto": "inception_next",
    "repvit_m0_9": "repvit", "hgnetv2_b0": "hgnet", "selecsls42": "selecsls", "starnet_s1": "starnet",
}  # fmt: skip
#: Request -> family.
FAMILIES: dict[str, str] = {
    **{f"torchvision:{name}": family for name, family in _TORCHVISION.items()},
    **{f"timm:{name}": family for name, family in _TIMM.items()},
}
_DEVELOPMENT = frozenset(sorted(FAMILIES, key=lambda name: zlib.crc32(name.encode()))[: len(FAMILIES) // 2])


def is_development(model: str) -> bool:
    """Whether the structure of the time model was chosen with this model's timings in view; the other half tests it."""
    return model in _DEVELOPMENT
