"""What the rules say that each counter prints is what it prints, to the last MAC, on a dozen models."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import costmodel
from costmodel.reconcile import TOOLS, Account, reconcile
from costmodel.sources.torchvision_ops import make_importable

# -- models ------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Transposed convolutions, a group in one of them, batch norm, instance norm, PReLU, leaky ReLU, resampling."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, groups=4, bias=False), nn.InstanceNorm2d(16, affine=True), nn.PReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1),
            nn.AvgPool2d(2), nn.Conv2d(16, 3, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class Standardized(nn.Module):
    """A convolution whose weight is standardized by batch norm in train mode, as networks without norms have it."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.gain = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.ones(8))

    def forward(self, x):
        weight = F.batch_norm(self.filters.reshape(1, 8, -1), None, None, weight=self.gain, training=True)
        return F.silu(F.conv2d(x, weight.reshape_as(self.filters)))


class Tagger(nn.Module):
    """Recurrent layers of all kinds, in both directions, and a head on every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(48, 20, batch_first=True)
        self.rnn = nn.RNN(20, 12, batch_first=True, bias=False)
        self.head = nn.Linear(12, 7)

    def forward(self, x):
        for layer in (self.lstm, self.gru, self.rnn):
            x = layer(x)[0]
        return F.softmax(self.head(x), -1)


class Attending(nn.Module):
    """Attention as a layer, as a function, and as products with a sign."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm, self.after = nn.LayerNorm(32), nn.LayerNorm(32, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x):
        x = x + self.layer(x, x, x, need_weights=False)[0]
        y = self.norm(x)
        y = F.scaled_dot_product_attention(y, y, y)
        y = (y @ y.transpose(1, 2)).softmax(-1) @ y
        return self.after(x + self.mlp(y))


class Shared(nn.Module):
    """Layers that are called more than once, that hang in two places, and in four."""

    def __init__(self) -> None:
        super().__init__()
        act, conv = nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        block = nn.Sequential(conv, nn.BatchNorm2d(8), act, nn.Sequential(nn.Conv2d(8, 8, 1), nn.LeakyReLU(), act))
        self.stages = nn.ModuleDict({"one": block, "same": block, "two": nn.Sequential(block, nn.AvgPool2d(2))})
        self.act, self.again = act, conv
        self.up, self.norm = nn.Upsample(scale_factor=2), nn.LayerNorm(8)
        self.gate = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1))] * 2)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.decode = nn.Sequential(self.attend)

    def forward(self, x):
        x = self.act(self.stages["two"](self.stages["same"](self.stages["one"](x))))
        x = self.norm(self.again(self.up(x)).flatten(2).transpose(1, 2))
        x = self.decode[0](x, x, x, need_weights=False)[0] + self.attend(x, x, x, need_weights=False)[0]
        return self.gate[1](self.gate[0](x)) @ x.transpose(1, 2)


def library(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        make_importable()
        import torchvision

        return torchvision.models.get_model(name, weights=None, **options)

    return make


def timm(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        make_importable()
        import timm

        return timm.create_model(name, **options)

    return make


PICTURE = (1, 3, 64, 64)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (library("resnet18"), PICTURE),
    "vgg11": (library("vgg11", init_weights=False), PICTURE),
    "mobilenet_v3_small": (library("mobilenet_v3_small"), PICTURE),
    "googlenet": (library("googlenet", init_weights=False, aux_logits=False), PICTURE),
    "densenet121": (library("densenet121"), PICTURE),
    "shufflenet_v2_x0_5": (library("shufflenet_v2_x0_5"), PICTURE),
    "convnext_tiny": (library("convnext_tiny"), PICTURE),
    "swin_t": (library("swin_t"), PICTURE),
    "vit_tiny": (timm("vit_tiny_patch16_224", img_size=64), PICTURE),
    "efficientnet_b0": (timm("efficientnet_b0"), PICTURE),
    "generator": (Generator, (1, 16, 4, 4)),
    "standardized": (Standardized, (1, 3, 16, 16)),
    "tagger": (Tagger, (1, 11, 16)),
    "attending": (Attending, (1, 10, 32)),
    "shared": (Shared, (1, 8, 8, 8)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request) -> tuple[nn.Module, torch.Tensor, dict[str, Account]]:
    """A model, an input, and what the rules say, by tool."""
    make, shape = MODELS[request.param]
    module, x = make().eval(), torch.randn(shape)
    analysis = costmodel.analyze(module, x, hw="a100")
    accounts = reconcile(analysis.bound, analysis.node_costs)
    return module, x, {f"{account.tool.name} {account.tool.prints}": account for account in accounts}


# -- the tools themselves ----------------------------------------------------------------------


def by_torch(module: nn.Module, x: torch.Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module.to("meta")(x.to("meta"))
    return counter.get_total_flops()


def by_fvcore(module: nn.Module, x: torch.Tensor) -> int:
    fvcore = pytest.importorskip("fvcore.nn")
    counted = fvcore.FlopCountAnalysis(module, (x,))
    return int(counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def by_thop(module: nn.Module, x: torch.Tensor) -> int:
    return int(pytest.importorskip("thop").profile(module, inputs=(x,), verbose=False)[0])


def by_ptflops(module: nn.Module, x: torch.Tensor) -> int:
    ptflops = pytest.importorskip("ptflops")
    options = {"as_strings": False, "print_per_layer_stat": False, "input_constructor": lambda _: x}
    return int(ptflops.get_model_complexity_info(module, (1,), **options)[0])


def by_torchinfo(module: nn.Module, x: torch.Tensor) -> int:
    return int(pytest.importorskip("torchinfo").summary(module, input_data=x, verbose=0).total_mult_adds)


def by_calflops(module: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    calflops = pytest.importorskip("calflops")
    options = {"print_results": False, "print_detailed": False, "output_as_string": False}
    flops, macs, _ = calflops.calculate_flops(module, args=[x], **options)
    return int(flops), int(macs)


RUN: dict[str, Callable[[nn.Module, torch.Tensor], int]] = {
    "FlopCounterMode total FLOPs": by_torch,
    "fvcore flops": by_fvcore,
    "thop MACs": by_thop,
    "ptflops MACs": by_ptflops,
    "torchinfo mult-adds": by_torchinfo,
    "calflops MACs": lambda module, x: by_calflops(module, x)[1],
    "calflops FLOPs": lambda module, x: by_calflops(module, x)[0],
}


def printed(tool: str, module: nn.Module, x: torch.Tensor) -> int:
    """What a tool prints for a copy of the model; its own talk is swallowed."""
    make_importable()  # ptflops and calflops import torchvision
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return RUN[tool](copy.deepcopy(module), x)


@pytest.mark.parametrize("tool", RUN)
def test_the_rules_give_what_the_tool_prints(model, tool):
    module, x, accounts = model
    account, found = accounts[tool], printed(tool, module, x)
    more = [difference.amount for difference in account.openly]
    allowed = {account.total + sum(some) for n in range(len(more) + 1) for some in combinations(more, n)}
    assert found in allowed, [(d.amount, d.reason) for d in account.differences]
    if tool in ("FlopCounterMode total FLOPs", "fvcore flops", "thop MACs", "torchinfo mult-adds"):
        assert not account.openly  # these say one number


def test_reasons_add_up_from_our_count(model):
    *_, accounts = model
    assert len(accounts) == len(TOOLS)
    for account in accounts.values():
        assert account.ours + sum(difference.amount for difference in account.differences) == account.total
        assert all(difference.amount and difference.count for difference in account.differences)


# -- published figures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "gmacs"),
    [  # timm's results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv, to two decimals
        ("vit_base_patch16_224", 224, 17.58),
        ("resnet50", 224, 4.11),
        ("efficientnet_b0", 224, 0.40),
    ],
)
def test_the_table_of_timm_is_fvcore_with_attention(name, size, gmacs):
    analysis = costmodel.analyze(name, hw="a100", image_size=size)
    account = next(a for a in reconcile(analysis.bound, analysis.node_costs) if a.tool.name == "timm's table")
    assert account.total / 1e9 == pytest.approx(gmacs, abs=0.006)
