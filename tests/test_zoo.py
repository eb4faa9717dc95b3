"""The zoo against the papers' figures, and the named networks of the CNN literature against published counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from costmodel.sources import LoadedModel, resolve
from costmodel.zoo import entries

Count = Callable[[LoadedModel], int]

#: name -> (parameters, MACs in millions), at the network's own picture size. Parameters are exact, as counted from
#: the papers' tables by hand or stated by the libraries; MACs are given to the digits that are published.
PUBLISHED = {
    "alexnet": (61_100_840, 714.19),
    "vgg16": (138_357_544, 15_470),
    "vgg19": (143_667_240, 19_632),
    "googlenet": (13_004_888, 1_498),
    "resnet18": (11_689_512, 1_814),
    "resnet50": (25_557_032, 4_089),
    "resnet50_a": (25_557_032, 3_858),
    "resnet50_b": (25_557_032, 4_089),
    "resnet50_c": (25_576_264, 4_329),
    "resnet50_d": (25_576_264, 4_329),
    "se_resnet50": (28_088_024, 4_092),
    "densenet121": (7_978_856, 2_834),
    "squeezenet": (1_248_424, 818.9),
    "mobilenet_v1": (4_231_976, 568.7),
    "mobilenet_v2": (3_504_872, 300.8),
    "mobilenet_v3_large": (5_483_032, 216.6),
    "shufflenet_v2_x1_0": (2_278_604, 144.9),
    "ghostnet": (5_182_508, 141.2),
}

#: Parameters alone: their pictures are not 224x224.
PUBLISHED_PARAMS = {
    "xception": 22_855_952,
    "torchvision:inception_v3": 27_161_264,
    "inception_resnet_v2": 55_843_464,
    "nasnetalarge": 88_753_150,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
}


def digits(text: float) -> float:
    """Half a unit of the last digit given, as a tolerance: 714.19 -> 0.005.

    >>> digits(714.19), digits(4089)
    (0.005, 0.5)
    """
    decimals = len(repr(text).partition(".")[2])
    return 0.5 * 10**-decimals


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name: str, params: Count, torch_macs: Count) -> None:
    loaded = resolve(name)
    expected_params, expected_mmacs = PUBLISHED[name]
    assert params(loaded) == expected_params
    assert torch_macs(loaded) / 1e6 == pytest.approx(expected_mmacs, abs=digits(expected_mmacs))


@pytest.mark.parametrize("name", PUBLISHED_PARAMS)
def test_published_params(name: str, params: Count) -> None:
    assert params(resolve(name)) == PUBLISHED_PARAMS[name]


def conv(c_in: int, c_out: int, kernel: int, out: int, groups: int = 1) -> tuple[int, int]:
    """(parameters with bias, MACs) of a square convolution, from its definition."""
    weights = c_in // groups * c_out * kernel * kernel
    return weights + c_out, weights * out * out


def linear(c_in: int, c_out: int) -> tuple[int, int]:
    return c_in * c_out + c_out, c_in * c_out


HEAD = [linear(4096, 4096), linear(4096, 1000)]

#: Layer by layer, sizes of maps as the papers draw them.
BY_LAYER = {
    "alexnet_2012": [
        conv(3, 96, 11, 55), conv(96, 256, 5, 27, groups=2), conv(256, 384, 3, 13),
        conv(384, 384, 3, 13, groups=2), conv(384, 256, 3, 13, groups=2), linear(6 * 6 * 256, 4096), *HEAD,
    ],
    "zfnet": [
        conv(3, 96, 7, 110), conv(96, 256, 5, 26), conv(256, 512, 3, 13), conv(512, 1024, 3, 13),
        conv(1024, 512, 3, 13), linear(6 * 6 * 512, 4096), *HEAD,
    ],
    "nin": [
        conv(3, 96, 11, 54), conv(96, 96, 1, 54), conv(96, 96, 1, 54),
        conv(96, 256, 5, 26), conv(256, 256, 1, 26), conv(256, 256, 1, 26),
        conv(256, 384, 3, 12), conv(384, 384, 1, 12), conv(384, 384, 1, 12),
        conv(384, 1024, 3, 5), conv(1024, 1024, 1, 5), conv(1024, 1000, 1, 5),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BY_LAYER)
def test_textbook_networks_layer_by_layer(name: str, params: Count, torch_macs: Count) -> None:
    loaded = resolve(f"zoo:{name}")
    assert params(loaded) == sum(p for p, _ in BY_LAYER[name])
    assert torch_macs(loaded) == sum(m for _, m in BY_LAYER[name])


def test_shufflenet_v1_is_the_papers_140_million(torch_macs: Count) -> None:
    """Table 2 says 140 MFLOPs (multiply-adds): two digits, so 135 to 145."""
    assert 135e6 < torch_macs(resolve("shufflenet_v1")) < 145e6


def test_channel_shuffle_interleaves_the_groups() -> None:
    import torch

    from costmodel.zoo.shufflenet import channel_shuffle

    shuffled = channel_shuffle(torch.arange(6).view(1, 6, 1, 1), groups=2)
    assert shuffled.flatten().tolist() == [0, 3, 1, 4, 2, 5]


def weights(module: object) -> int:
    return sum(p.numel() for p in module.parameters())  # type: ignore[attr-defined]


def test_char_cnn_second_block_and_first_linear() -> None:
    """3*24*48 + 48 = 3504; 24*12 + 12 + 3*12*48 + 48 = 2076; 7200*128 + 128 = 921 728."""
    plain, bottleneck = resolve("char_cnn").module, resolve("char_cnn_bottleneck").module
    assert weights(plain.maps.second) == 3504
    assert weights(bottleneck.maps.second) == 2076
    assert weights(plain.head[0]) == 921_728


def test_char_cnn_pooled_heads() -> None:
    """Two heads with their batch normalisations: 54 and 1274 parameters, and any length of text."""
    loaded = resolve("char_cnn_gap", seq_len=77)
    assert (weights(loaded.module.head1), weights(loaded.module.head2)) == (54, 1274)
    args, kwargs = loaded.inputs({"batch": 3})
    assert loaded.module(*args, **kwargs).shape == (3, 2)


@pytest.mark.parametrize(
    "name", ["char_cnn", "char_cnn_bottleneck", "char_cnn_gap", "nin", "zfnet", "alexnet_2012", "shufflenet_v1"]
)
def test_outputs_are_scores_per_class(name: str) -> None:
    loaded = resolve(f"zoo:{name}")
    args, kwargs = loaded.inputs({"batch": 5})
    assert loaded.module(*args, **kwargs).shape == (5, 2 if name.startswith("char") else 1000)


def test_im2col_is_the_convolution() -> None:
    import torch

    from costmodel.zoo.im2col import Im2colConv2d

    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    by_matrix = Im2colConv2d(4, 6, kernel=3, stride=2, padding=1).double()
    by_conv = torch.nn.functional.conv2d(x, by_matrix.weight.view(6, 4, 3, 3), stride=2, padding=1)
    torch.testing.assert_close(by_matrix(x), by_conv)


@pytest.mark.parametrize("guideline", ["g1", "g2", "g3", "g4"])
def test_micro_networks_of_a_guideline_cost_equal_macs(guideline: str, torch_macs: Count) -> None:
    """ShuffleNet V2 compares at equal FLOPs; channel counts are whole, so the tables' own differ by up to 6 %."""
    macs = [torch_macs(resolve(f"zoo:{n}")) for n in entries() if n.startswith(f"shufflenetv2_{guideline}_")]
    assert len(macs) >= 4
    assert max(macs) / min(macs) < 1.06


def test_micro_networks_by_their_definition(torch_macs: Count) -> None:
    """Ten blocks on 56x56: G1 2*c1*c2; G2 c*c/g; G4 c=128 outside, 32 inside, 3x3 = 9*32*32."""
    area = 56 * 56
    assert torch_macs(resolve("zoo:shufflenetv2_g1_1to12")) == 10 * 2 * 36 * 432 * area
    assert torch_macs(resolve("zoo:shufflenetv2_g2_8groups")) == 10 * 360 * 360 // 8 * area
    assert torch_macs(resolve("zoo:shufflenetv2_g3_4fragment_parallel")) == 10 * 4 * 64 * 64 * area
    assert torch_macs(resolve("zoo:shufflenetv2_g4_plain")) == 10 * (2 * 128 * 32 + 9 * 32 * 32) * area


@pytest.mark.parametrize("name", list(entries()))
def test_every_network_builds_on_meta_cites_a_paper_and_runs(name: str) -> None:
    loaded = resolve(f"zoo:{name}")
    assert all(t.is_meta for t in (*loaded.module.parameters(), *loaded.module.buffers()))
    assert any(year in entries()[name].paper for year in map(str, range(1998, 2026)))
    args, kwargs = loaded.inputs({"batch": 2})
    output = loaded.module(*args, **kwargs)
    assert output.shape[0] == 2
    assert math.prod(output.shape) > 2
