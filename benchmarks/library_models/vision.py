"""Classifiers, features, matchers, optical flow, video, super-resolution."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, entry, family

IMAGE = (1, 3, 224, 224)

PRETRAINEDMODELS = {
    "nasnetamobile": 224, "inceptionresnetv2": 299, "inceptionv4": 299, "bninception": 224, "dpn68": 224,
    "xception": 299, "se_resnet50": 224, "se_resnext50_32x4d": 224, "fbresnet152": 224, "cafferesnet101": 224,
    "polynet": 331, "pnasnet5large": 331,
}  # fmt: skip


@family("pretrainedmodels", PRETRAINEDMODELS)
def pretrained(name: str) -> Built:
    import pretrainedmodels

    size = PRETRAINEDMODELS[name]
    return pretrainedmodels.__dict__[name](num_classes=1000, pretrained=None).eval(), torch.zeros(1, 3, size, size)


@entry("efficientnet_pytorch", "efficientnet-b0")
def efficientnet() -> Built:
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-b0").eval(), torch.zeros(IMAGE)


@entry("facenet-pytorch", "inception_resnet_v1")
def facenet() -> Built:
    from facenet_pytorch import InceptionResnetV1

    return InceptionResnetV1(pretrained=None).eval(), torch.zeros(1, 3, 160, 160)


@family("torchvision", ["raft_small", "raft_large"])
def optical_flow(name: str) -> Built:
    from torchvision.models import optical_flow

    frames = (torch.zeros(1, 3, 128, 192), torch.zeros(1, 3, 128, 192))
    return getattr(optical_flow, name)(weights=None).eval(), frames


@family("torchvision", ["r2plus1d_18", "mc3_18", "mvit_v2_s", "swin3d_t", "s3d"])
def video(name: str) -> Built:
    from torchvision.models import video

    return getattr(video, name)(weights=None).eval(), torch.zeros(
        1, 3, 16, *((224, 224) if name[0] in "ms" else (112, 112))
    )


@family("open_clip", ["ViT-B-32", "RN50", "coca_ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP-S1", "convnext_base"])
def clip(name: str) -> Built:
    import open_clip

    model = open_clip.create_model(name, pretrained=None, pretrained_hf=False, pretrained_image=False)
    size, length = model.visual.image_size, open_clip.get_model_config(name)["text_cfg"].get("context_length", 77)
    side = size[0] if isinstance(size, (tuple, list)) else size
    tokens = torch.zeros(1, length - 1 if name.startswith("coca") else length, dtype=torch.long)
    return model.eval(), (torch.zeros(1, 3, side, side), tokens)


KORNIA: dict[str, Any] = {
    "keynet": lambda: (_feature("KeyNet")(False), torch.zeros(1, 1, 128, 128)),
    "hardnet": lambda: (_feature("HardNet")(False), torch.zeros(8, 1, 32, 32)),
    "hynet": lambda: (_feature("HyNet")(False), torch.zeros(8, 1, 32, 32)),
    "sosnet": lambda: (_feature("SOSNet")(False), torch.zeros(8, 1, 32, 32)),
    "tfeat": lambda: (_feature("TFeat")(False), torch.zeros(8, 1, 32, 32)),
    "defmo": lambda: (_feature("DeFMO")(False), torch.zeros(1, 6, 64, 64)),
}


def _feature(name: str) -> Any:
    import kornia.feature

    return getattr(kornia.feature, name)


@family("kornia", KORNIA)
def kornia_feature(name: str) -> Built:
    module, inputs = KORNIA[name]()
    return module.eval(), inputs


@entry("kornia", "dexined")
def dexined() -> Built:
    from kornia.models.dexined import DexiNed

    return DexiNed(pretrained=False).eval(), torch.zeros(1, 3, 128, 128)


@entry("kornia", "xfeat_backbone")
def xfeat() -> Built:
    from kornia.feature.xfeat import XFeatModel

    return XFeatModel().eval(), torch.zeros(1, 3, 128, 128)


def _textured(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@entry("kornia", "disk", executed=True)
def disk() -> Built:
    torch.manual_seed(0)
    return _feature("DISK")().eval(), _textured(1, 3, 64, 96)


@entry("kornia", "loftr", executed=True)
def loftr() -> Built:
    from kornia.feature import LoFTR

    torch.manual_seed(0)
    pair = {"image0": _textured(1, 1, 64, 96), "image1": _textured(1, 1, 64, 96)}
    return LoFTR(pretrained=None).eval(), (pair,)


@entry("kornia", "lightglue", executed=True)
def lightglue() -> Built:
    from kornia.feature import LightGlue

    torch.manual_seed(0)
    points = {
        "keypoints": _textured(1, 64, 2) * 100,
        "descriptors": _textured(1, 64, 128),
        "image_size": torch.tensor([[128, 128]]),
    }
    model = LightGlue(None, input_dim=128, depth_confidence=-1, width_confidence=-1, flash=False)
    return model.eval(), ({"image0": points, "image1": {k: v.clone() for k, v in points.items()}},)


@entry("segment-anything", "image_encoder")
def sam_encoder() -> Built:
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=256, embed_dim=192, depth=4, num_heads=3, use_rel_pos=True, window_size=14, global_attn_indexes=(1, 3)
    )
    return encoder.eval(), torch.zeros(1, 3, 256, 256)


@entry("segment-anything", "mask_decoder")
def sam_decoder() -> Built:
    from segment_anything.modeling import MaskDecoder, TwoWayTransformer

    decoder = MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048))
    inputs = {
        "image_embeddings": torch.zeros(1, 256, 16, 16),
        "image_pe": torch.zeros(1, 256, 16, 16),
        "sparse_prompt_embeddings": torch.zeros(1, 2, 256),
        "dense_prompt_embeddings": torch.zeros(1, 256, 16, 16),
        "multimask_output": True,
    }
    return decoder.eval(), inputs


SPANDREL: dict[str, Any] = {
    "ESRGAN": ("ESRGAN", "ESRGAN", {"num_filters": 32, "num_blocks": 3, "in_nc": 3, "out_nc": 3}),
    "Compact": ("Compact", "Compact", {}),
    "SwinIR": ("SwinIR", "SwinIR", {"depths": [2, 2], "num_heads": [6, 6], "window_size": 8}),
    "HAT": ("HAT", "HAT", {"depths": [2], "num_heads": [6], "window_size": 16}),
    "NAFNet": ("NAFNet", "NAFNet", {"width": 16}),
    "SPAN": ("SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3}),
    "OmniSR": ("OmniSR", "OmniSR", {"res_num": 2}),
    "RCAN": ("RCAN", "RCAN", {"n_resgroups": 2, "n_resblocks": 2}),
}


@family("spandrel", SPANDREL)
def super_resolution(name: str) -> Built:
    import importlib
    import inspect

    package, kind, options = SPANDREL[name]
    root = importlib.import_module(f"spandrel.architectures.{package}")
    found = getattr(root, kind, None)
    known = inspect.signature(found.__init__).parameters
    model = found(**{k: v for k, v in options.items() if k in known})
    return model.eval(), torch.zeros(1, 3, 64, 64)
