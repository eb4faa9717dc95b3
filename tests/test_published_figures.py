"""Sections B and C of the published figures, as the analyzer gives them by name (section A: tests/claims)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from costmodel.analysis import Analysis
from costmodel.api import analyze
from costmodel.rows import Row


@pytest.fixture(scope="module")
def analyzed() -> Callable[[str], Analysis]:
    """A network at batch 1 and its own size; costs and counts do not depend on the machine."""
    known: dict[str, Analysis] = {}
    return lambda name: known[name] if name in known else known.setdefault(name, analyze(name, hw="a100"))


# -- B: networks -----------------------------------------------------------------------------------

#: name -> (parameters, MACs as published). Exact parameters; MACs to the digits that were published.
NETWORKS = {
    "alexnet": (61_100_840, "714.19 M"),
    "vgg16": (138_357_544, "15.470 G"),
    "vgg19": (143_667_240, "19.632 G"),
    "googlenet": (13_004_888, "1.498 G"),
    "resnet18": (11_689_512, "1.814 G"),
    "resnet50": (25_557_032, "4.089 G"),
    "resnet50_a": (25_557_032, "3.858 G"),
    "resnet50_b": (25_557_032, "4.089 G"),
    "resnet50_c": (25_576_264, "4.329 G"),
    "resnet50_d": (25_576_264, "4.329 G"),
    "resnet50d": (25_576_264, "4.329 G"),
    "se_resnet50": (28_088_024, "4.092 G"),
    "densenet121": (7_978_856, "2.834 G"),
    "squeezenet": (1_248_424, "818.9 M"),
    "mobilenet_v1": (4_231_976, "568.7 M"),
    "mobilenet_v2": (3_504_872, "300.8 M"),
    "mobilenet_v3_large": (5_483_032, "216.6 M"),
    "shufflenet_v2_x1_0": (2_278_604, "144.9 M"),
    "ghostnet": (5_182_508, "141.2 M"),
    "xception": (22_855_952, None),
    "torchvision:inception_v3": (27_161_264, None),
    "inception_resnet_v2": (55_843_464, None),
    "nasnetalarge": (88_753_150, None),
    "resnext50_32x4d": (25_028_904, None),
    "wide_resnet50_2": (68_883_240, None),
}

#: timm's own table (results-imagenet): GMACs by fvcore, which counts 2 for each element that a batch normalization
#: and 1 for each that a pooling over the whole map takes in, besides the multiply-accumulates.
TIMM_GMACS = {
    "resnet50": "4.11",
    "xception": "8.40",
    "torchvision:inception_v3": "5.73",
    "inception_resnet_v2": "13.18",
    "nasnetalarge": "23.89",
    "resnext50_32x4d": "4.26",
    "wide_resnet50_2": "11.43",
}


def to_digits(value: float, published: str) -> str:
    """``value`` in the unit and to the digits of the published figure."""
    number, _, prefix = published.partition(" ")
    decimals = len(number.partition(".")[2])
    return f"{value / {'': 1, 'M': 1e6, 'G': 1e9}[prefix]:.{decimals}f} {prefix}".strip()


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, analyzed: Callable[[str], Analysis]) -> None:
    found, (params, macs) = analyzed(name), NETWORKS[name]
    assert found.totals.params == params
    assert macs is None or to_digits(found.totals.macs, macs) == macs
    assert found.coverage.uncosted == ()


@pytest.mark.parametrize("name", ["alexnet_2012", "zfnet", "nin", "preact_resnet50", "shufflenet_v1", "char_cnn",
                                  "char_cnn_bottleneck", "char_cnn_gap"])  # fmt: skip
def test_networks_built_from_papers_analyze_by_name_with_full_coverage(
    name: str, analyzed: Callable[[str], Analysis]
) -> None:
    found = analyzed(name)
    assert found.coverage.uncosted == ()
    assert found.totals.macs > 0


def sum_of(analysis: Analysis, op: str) -> int:
    """Elements that operators of this name take in."""
    graph = analysis.bound
    return sum(graph.specs[graph.tensors[n.inputs[0]].spec].numel for n in graph.nodes if n.op == op)


@pytest.mark.parametrize("name", TIMM_GMACS)
def test_gmacs_of_timms_table(name: str, analyzed: Callable[[str], Analysis]) -> None:
    found = analyzed(name)
    normalized = sum_of(found, "aten.batch_norm")
    pooled = sum_of(found, "aten.adaptive_avg_pool2d") + sum_of(found, "aten.mean")
    assert to_digits((found.totals.macs + 2 * normalized + pooled) / 1e9, TIMM_GMACS[name]) == TIMM_GMACS[name]


def test_alexnet_weighs_in_its_fully_connected_layers(analyzed: Callable[[str], Analysis]) -> None:
    rows = analyzed("alexnet").rows()
    linear, convs = [r for r in rows if r.op == "aten.linear"], [r for r in rows if r.op == "aten.conv2d"]
    assert sum(r.params for r in linear) == 58_631_144
    assert round(100 * 58_631_144 / 61_100_840, 2) == 95.96
    assert sum(r.macs for r in convs) > 9 * sum(r.macs for r in linear)
    layers = [r.activation_bytes for r in rows if r.activation_bytes]
    assert sum(layers[:3]) > sum(layers) / 2, "activation memory is in the first two convolutions and their pool"
    assert max(layers) == layers[0] == 4 * 64 * 55 * 55


def test_vgg16_over_alexnet(analyzed: Callable[[str], Analysis]) -> None:
    vgg, alexnet = analyzed("vgg16").totals, analyzed("alexnet").totals
    assert round(vgg.params / alexnet.params, 2) == 2.26
    assert round(vgg.macs / alexnet.macs, 1) == 21.7


def test_squeezenet_is_smaller_but_not_cheaper_than_alexnet(analyzed: Callable[[str], Analysis]) -> None:
    """50 times fewer parameters agrees; "1/510 of the computation" does not: 510 is the ratio of compressed sizes."""
    squeezenet, alexnet = analyzed("squeezenet").totals, analyzed("alexnet").totals
    assert round(alexnet.params / squeezenet.params, 1) == 48.9
    assert round(squeezenet.macs / alexnet.macs, 2) == 1.15


def test_shares_of_mobilenet_v1(analyzed: Callable[[str], Analysis]) -> None:
    """Table 2 of arXiv:1704.04861, whose shares are of the weights alone: no batch normalization, no bias."""
    found = analyzed("mobilenet_v1")
    kinds: dict[str, list[Row]] = {"1x1": [], "depthwise": [], "fc": []}
    for row in found.rows():
        kind = "fc" if row.op == "aten.linear" else "1x1" if "conv_pw" in row.name else "depthwise"
        if row.op == "aten.linear" or (row.op == "aten.conv2d" and "blocks" in row.name):
            kinds[kind].append(row)
    macs = {kind: round(100 * sum(r.macs for r in rows) / found.totals.macs, 2) for kind, rows in kinds.items()}
    weights = sum(r.params for r in found.rows() if r.op != "aten.batch_norm") - 1000
    params = {kind: sum(r.params - 1000 * (kind == "fc") for r in rows) for kind, rows in kinds.items()}
    assert macs == {"1x1": 94.86, "depthwise": 3.06, "fc": 0.18}
    assert {kind: f"{100 * n / weights:.2f}" for kind, n in params.items()} == {
        "1x1": "74.59", "depthwise": "1.06", "fc": "24.33",
    }  # fmt: skip


def test_squeeze_and_excitation_adds_what_the_formula_says(analyzed: Callable[[str], Analysis]) -> None:
    plain, squeezed = analyzed("resnet50").totals, analyzed("se_resnet50").totals
    assert squeezed.params - plain.params == 2_530_992
    gates = [r for r in analyzed("se_resnet50").rows() if ".se.fc" in r.name]
    assert sum(r.macs for r in gates) == squeezed.macs - plain.macs == 2_514_944, "a MAC a weight at 1x1"


def test_resnet_variants_differ_as_the_paper_says(analyzed: Callable[[str], Analysis]) -> None:
    """3.8 to 4.3 GFLOPs (multiply-adds): the published +13 % are of the rounded figures; exactly it is 12.2 %."""
    a, d = analyzed("resnet50_a").totals.macs, analyzed("resnet50_d").totals.macs
    assert (int(a / 1e8) / 10, int(d / 1e8) / 10) == (3.8, 4.3)
    assert round(100 * (4.3 / 3.8 - 1)) == 13
    assert round(100 * (d / a - 1), 1) == 12.2


def test_shufflenet_v1_is_the_papers_140_million(analyzed: Callable[[str], Analysis]) -> None:
    assert round(analyzed("shufflenet_v1").totals.macs, -7) == 140_000_000


# -- C: a lecture's table of stems -----------------------------------------------------------------


def stem(analysis: Analysis, smallest: int, *, pools: bool) -> list[Row]:
    """Convolutions and pools whose maps are at least ``smallest`` pixels wide, in order."""
    wanted = ("aten.conv2d", "aten.max_pool2d") if pools else ("aten.conv2d",)
    rows = zip(analysis.rows(), analysis.feature_maps, strict=True)
    return [r for r, (size, _) in rows if r.op in wanted and int(size.partition("x")[0] or 0) >= smallest]


def weights(row: Row) -> int:
    """Weights of a convolution without its bias: each is used once at every position."""
    shape = row.outputs.split("x")
    return row.macs // (int(shape[2]) * int(shape[3]))


def test_googlenet_stem_line_by_line(analyzed: Callable[[str], Analysis]) -> None:
    layers = stem(analyzed("googlenet"), 28, pools=True)[:5]
    assert [layer.op.removeprefix("aten.") for layer in layers] == [
        "conv2d",
        "max_pool2d",
        "conv2d",
        "conv2d",
        "max_pool2d",
    ]
    assert [layer.activation_bytes / 1024 for layer in layers] == [3136, 784, 784, 2352, 588]
    assert round(sum(layer.activation_bytes for layer in layers) / 2**20, 2) == 7.46
    assert sum(map(weights, layers)) == 124_096
    assert [round(layer.macs / 1e6, 1) for layer in layers if layer.macs] == [118.0, 12.8, 346.8]
    assert round(sum(layer.macs for layer in layers) / 1e6, 1) == 477.7, "published as 418"


def test_googlenet_stem_with_the_comparisons_of_its_pools(analyzed: Callable[[str], Analysis]) -> None:
    """The lecture counts 9 an output of a 3x3 pool, 3.2 M; a maximum of nine takes eight comparisons."""
    layers = stem(analyzed("googlenet"), 28, pools=True)[:5]
    comparisons = sum(layer.vector_flops for layer in layers if "pool" in layer.op) / 8 * 9
    assert round(comparisons / 1e6, 1) == 3.2
    assert round((sum(layer.macs for layer in layers) + comparisons) / 1e6, 1) == 480.8


@pytest.mark.parametrize(
    ("count", "mebibytes", "parameters", "mmacs"),
    [(6, "42.875", 1_144_512, "7485.5"), (7, "45.9375", 1_734_336, "9335.1")],
)
def test_vgg16_stem(
    count: int, mebibytes: str, parameters: int, mmacs: str, analyzed: Callable[[str], Analysis]
) -> None:
    """Six convolutions are what was published; seven stand before 28x28."""
    layers = stem(analyzed("vgg16"), 56, pools=False)
    assert len(layers) == 7
    counted = layers[:count]
    assert str(sum(layer.activation_bytes for layer in counted) / 2**20) == mebibytes
    assert sum(map(weights, counted)) == parameters
    assert f"{sum(layer.macs for layer in counted) / 1e6:.1f}" == mmacs


def test_ratios_of_the_stems(analyzed: Callable[[str], Analysis]) -> None:
    """Published: 5.7 times the memory, which agrees, and 17.8 times the MACs; all of them are 19.5 times."""
    google, vgg = stem(analyzed("googlenet"), 28, pools=True)[:5], stem(analyzed("vgg16"), 56, pools=False)
    google_macs = sum(layer.macs for layer in google)
    six = vgg[:6]
    assert round(sum(r.activation_bytes for r in six) / sum(r.activation_bytes for r in google), 1) == 5.7
    assert round(sum(layer.macs for layer in vgg) / google_macs, 1) == 19.5
