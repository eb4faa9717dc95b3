"""What no prediction accounts for yet: the one list that reports show."""

from __future__ import annotations

__all__ = ["NOT_MODELLED"]

#: (what, what that means for a prediction).
NOT_MODELLED: tuple[tuple[str, str], ...] = (
    (
        "compiled training steps",
        "backward passes that torch.compile fuses, and captured steps; eager ones are modelled",
    ),
    (
        "gradients of some narrow groups",
        "grouped convolutions of 16 channels a group train two times slower in BotNeXt and HaloNeXt than predicted",
    ),
    (
        "in-place activated batch norm",
        "timm's files train TResNets with a package of its own, up to five times slower than torch's operators",
    ),
    (
        "what a training step allocates",
        "NeuSight's forward passes on an A100 take up to two times those without training; backward passes do not",
    ),
    ("several devices", "data, tensor or pipeline parallelism and what their communication costs"),
    ("data-dependent routing", "mixtures of experts run as if every token gathered its own experts' weights"),
    ("kernels fused by hand", "other than attention: apex, xformers, TensorRT and other engines"),
    (
        "attention over a latent cache",
        "MLA as serving libraries decode it is timed by published figures and by kernels like it; no row has it",
    ),
    (
        "TensorRT-LLM's generation",
        "its rows read half of their cache from DRAM, taken as values that lie where the keys do",
    ),
    ("FlashAttention 4", "its rows follow no rule of sizes and are refused"),
    (
        "quantized models",
        "products of float8, int8 and packed weights are; a --dtype that quantizes a model is not yet",
    ),
    ("power and temperature", "clocks that fall under load, but for the sustained clock of a profile"),
    ("weights made by the input", "CondConv's grouped products of one image each take a third longer than predicted"),
    (
        "group norm in channels_last",
        "the copies around it, and the mixed layouts behind it, take up to 1.5 times longer",
    ),
    (
        "narrow depthwise kernels",
        "1x5 and 5x1 windows beside up-sampling (GhostNetV2, V3): predicted 25 to 30 % too fast",
    ),
    ("depthwise beyond 2^31 elements", "on an RTX 3090 up to four times slower above 192 channels than predicted"),
    ("autocast that a model switches off", "known for timm's norms and EfficientViT's attention only"),
    (
        "what cuDNN picks for one shape",
        "vgg13_bn and vgg16 in NCHW on an RTX 3090 take 1.4 times as long as vgg11_bn suggests",
    ),
    ("loading of data", "inputs are on the device before the step begins"),
)
