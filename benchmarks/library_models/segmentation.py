"""Dense prediction: segmentation-models-pytorch, MONAI (medical, 3-d), torchvision."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, family

SMP = "Unet UnetPlusPlus MAnet Linknet FPN PSPNet DeepLabV3 DeepLabV3Plus PAN UPerNet Segformer".split()


@family("segmentation-models-pytorch", SMP)
def smp(name: str) -> Built:
    import segmentation_models_pytorch

    model = getattr(segmentation_models_pytorch, name)("resnet18", encoder_weights=None, classes=4)
    return model.eval(), torch.zeros(1, 3, 128, 128)


@family("segmentation-models-pytorch", ["mit_b0", "efficientnet-b0", "mobileone_s0"], prefix="Unet-")
def smp_encoder(name: str) -> Built:
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet(name, encoder_weights=None).eval(), torch.zeros(1, 3, 128, 128)


@family("segmentation-models-pytorch", ["DPT"])
def dpt(name: str) -> Built:
    import segmentation_models_pytorch

    model = segmentation_models_pytorch.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=4)
    return model.eval(), torch.zeros(1, 3, 224, 224)


@family("torchvision", ["deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"])
def torchvision_segmentation(name: str) -> Built:
    from torchvision.models import segmentation

    return getattr(segmentation, name)(weights=None, weights_backbone=None).eval(), torch.zeros(1, 3, 256, 256)


def _volume(side: int = 64) -> torch.Tensor:
    return torch.zeros(1, 1, side, side, side)


_SPATIAL = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}

MONAI: dict[str, Any] = {
    "UNet": lambda n: (n.UNet(**_SPATIAL, channels=(16, 32, 64), strides=(2, 2), num_res_units=2), _volume()),
    "BasicUNet": lambda n: (n.BasicUNet(**_SPATIAL), _volume()),
    "BasicUNetPlusPlus": lambda n: (n.BasicUNetPlusPlus(**_SPATIAL, features=(16, 16, 32, 32, 64, 16)), _volume(32)),
    "AttentionUnet": lambda n: (n.AttentionUnet(**_SPATIAL, channels=(16, 32, 64), strides=(2, 2)), _volume()),
    "SegResNet": lambda n: (n.SegResNet(**_SPATIAL), _volume()),
    "VNet": lambda n: (n.VNet(), _volume()),
    "UNETR": lambda n: (n.UNETR(1, 2, (64, 64, 64), hidden_size=192, mlp_dim=384, num_heads=4), _volume()),
    "SwinUNETR": lambda n: (n.SwinUNETR(in_channels=1, out_channels=2, feature_size=12), _volume()),
    "DynUNet": lambda n: (
        n.DynUNet(**_SPATIAL, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2]),
        _volume(),
    ),
    "HighResNet": lambda n: (n.HighResNet(**_SPATIAL), _volume(32)),
    "DenseNet121": lambda n: (n.DenseNet121(spatial_dims=3, in_channels=1, out_channels=2), _volume()),
    "SEResNet50": lambda n: (n.SEResNet50(spatial_dims=3, in_channels=1, num_classes=2), _volume()),
    "ViT": lambda n: (n.ViT(1, (64, 64, 64), (16, 16, 16), hidden_size=192, mlp_dim=384, num_layers=3, num_heads=4),
        _volume()),
    "AutoencoderKL": lambda n: (
        n.AutoencoderKL(**_SPATIAL, channels=(8, 16), num_res_blocks=1, attention_levels=(False, True),
            norm_num_groups=8, latent_channels=4),
        _volume(32),
    ),
    "VQVAE": lambda n: (n.VQVAE(3, 1, 1, channels=(16, 16), num_res_channels=(16, 16), num_res_layers=1,
        downsample_parameters=((2, 4, 1, 1),) * 2, upsample_parameters=((2, 4, 1, 1, 0),) * 2, num_embeddings=32,
        embedding_dim=16), _volume(32)),
    "DiffusionModelUNet": lambda n: (
        n.DiffusionModelUNet(2, 1, 1, num_res_blocks=1, channels=(16, 32), attention_levels=(False, True),
            num_head_channels=8, norm_num_groups=8),
        {"x": torch.zeros(1, 1, 32, 32), "timesteps": torch.zeros(1)},
    ),
    "MedNeXtS": lambda n: (n.MedNeXtS(spatial_dims=3, in_channels=1, out_channels=2), _volume(32)),
    "Restormer": lambda n: (n.restormer.Restormer(2, 1, 1, dim=16, num_blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2)),
        torch.zeros(1, 1, 64, 64)),
    "HoVerNet": lambda n: (n.HoVerNet(out_classes=5), torch.zeros(1, 3, 256, 256)),
    "VoxelMorph": lambda n: (n.VoxelMorphUNet(3, 2, 16, (16, 32), (32, 16)), torch.zeros(1, 2, 32, 32, 32)),
}  # fmt: skip


@family("monai", MONAI)
def monai(name: str) -> Built:
    from monai.networks import nets

    module, inputs = MONAI[name](nets)
    return module.eval(), inputs
