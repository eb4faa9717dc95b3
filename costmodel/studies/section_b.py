"""Section B: published networks, each by its name; parameters, MACs, and what is said of their shares."""

from __future__ import annotations

from collections.abc import Iterator

from costmodel.analysis import Analysis
from costmodel.rows import Row
from costmodel.studies.bench import Bench, kind_of
from costmodel.studies.claim_lines import Line

__all__ = ["lines", "share_lines"]

#: name -> (title, published parameters, published MACs or timm's GMACs); what was not published is empty.
NETWORKS: dict[str, tuple[str, str, str]] = {
    "alexnet": ("AlexNet (torchvision)", "61,100,840", "714.19 M"),
    "alexnet_2012": ("AlexNet, two groups (2012)", "", ""),
    "zfnet": ("ZFNet", "", ""),
    "nin": ("Network in Network", "", ""),
    "vgg16": ("VGG-16", "138,357,544", "15.470 G"),
    "vgg19": ("VGG-19", "143,667,240", "19.632 G"),
    "googlenet": ("GoogLeNet (parameters with auxiliary heads)", "13,004,888", "1.498 G"),
    "resnet18": ("ResNet-18", "11,689,512", "1.814 G"),
    "resnet50": ("ResNet-50", "25,557,032", "4.089 G"),
    "resnet50_a": ("ResNet-50-A, stride in the first 1x1", "", "3.858 G"),
    "resnet50_b": ("ResNet-50-B, stride in the 3x3", "", "4.089 G"),
    "resnet50_c": ("ResNet-50-C, stem of three 3x3", "", "4.329 G"),
    "resnet50_d": ("ResNet-50-D, average pool in the shortcut", "25,576,264", "4.329 G"),
    "preact_resnet50": ("ResNet-50 with pre-activation", "", ""),
    "se_resnet50": ("SE-ResNet-50", "28,088,024", "4.092 G"),
    "densenet121": ("DenseNet-121", "7,978,856", "2.834 G"),
    "squeezenet": ("SqueezeNet 1.0", "1,248,424", "818.9 M"),
    "mobilenet_v1": ("MobileNet V1", "4,231,976", "568.7 M"),
    "mobilenet_v2": ("MobileNet V2", "3,504,872", "300.8 M"),
    "mobilenet_v3_large": ("MobileNet V3 large", "5,483,032", "216.6 M"),
    "shufflenet_v1": ("ShuffleNet V1, g = 3", "", "140 M"),
    "shufflenet_v2_x1_0": ("ShuffleNet V2 1.0x", "2,278,604", "144.9 M"),
    "ghostnet": ("GhostNet 1.0", "5,182,508", "141.2 M"),
    "xception": ("Xception, 299", "22,855,952", "8.40 G, timm"),
    "torchvision:inception_v3": ("Inception-v3, 299", "27,161,264", "5.73 G, timm"),
    "inception_resnet_v2": ("Inception-ResNet-v2, 299", "55,843,464", "13.18 G, timm"),
    "nasnetalarge": ("NASNet-A large, 331", "88,753,150", "23.89 G, timm"),
    "resnext50_32x4d": ("ResNeXt-50 32x4d", "25,028,904", "4.26 G, timm"),
    "wide_resnet50_2": ("Wide-ResNet-50-2", "68,883,240", "11.43 G, timm"),
    "char_cnn": ("Char-CNN, fully connected", "", ""),
    "char_cnn_bottleneck": ("Char-CNN, 1x1 bottleneck", "", ""),
    "char_cnn_gap": ("Char-CNN, global average pooling", "", ""),
}

_SCALE = {"M": 1e6, "G": 1e9}


def rounded_like(value: float, published: str) -> str:
    """``value`` in the unit and to the digits of a published figure.

    >>> rounded_like(714_188_480, "714.19 M"), rounded_like(137_460_672, "140 M")
    ('714.19 M', '140 M')
    """
    number, _, prefix = published.partition(" ")
    decimals = len(number.partition(".")[2])
    zeros = 0 if decimals else len(number) - len(number.rstrip("0"))
    return f"{round(value / _SCALE[prefix], decimals or -zeros):.{decimals}f} {prefix}"


def as_timm_counts(analysis: Analysis) -> int:
    """MACs as in timm's table, counted by fvcore: 2 for each element that a batch normalization takes in besides,
    and 1 for each that is averaged over a whole map."""
    graph = analysis.bound

    def taken_in(*ops: str) -> int:
        nodes = (node for node in graph.nodes if node.op.removeprefix("aten.") in ops)
        return sum(int(graph.specs[graph.tensors[node.inputs[0]].spec].numel) for node in nodes)

    return analysis.totals.macs + 2 * taken_in("batch_norm") + taken_in("adaptive_avg_pool2d", "mean")


def lines(bench: Bench) -> list[Line]:
    """One line a network."""
    return [_network(bench.analysis(name), name, *NETWORKS[name]) for name in NETWORKS]


def _network(found: Analysis, name: str, title: str, params: str, macs: str) -> Line:
    by_timm = macs.endswith(", timm")
    macs = macs.removesuffix(", timm")
    counted = as_timm_counts(found) if by_timm else found.totals.macs
    right = [f"{found.totals.params:,}" == params] * bool(params)
    right += [rounded_like(counted, macs) == macs] if macs else []
    shown = f"{found.totals.macs / 1e6:,.2f} M"
    how = f"timm's table adds batch normalization: {counted / 1e9:.2f} G" if by_timm else ""
    right += [] if found.coverage.uncosted == () else [False]
    return Line(
        number=name.partition(":")[2] or name, claim=title,
        published="; ".join(filter(None, (params, f"{macs} MAC" if macs else ""))) or "not published",
        ours=f"{found.totals.params:,}; {shown} MAC", agrees=all(right) if right else None, derivation=how,
    )  # fmt: skip


def share_lines(bench: Bench) -> list[Line]:
    """What the literature says of shares and ratios."""
    return [*_alexnet(bench), *_vgg(bench), *_abcd(bench), *_squeezenet(bench), *_mobilenet(bench)]


def _alexnet(bench: Bench) -> Iterator[Line]:
    found = bench.analysis("alexnet")
    rows = found.rows()
    linear = [row for row in rows if row.op == "aten.linear"]
    convs = [row for row in rows if row.op == "aten.conv2d"]
    weights = sum(row.params for row in linear)
    share = 100 * weights / found.totals.params
    macs = sum(row.macs for row in convs) / found.totals.macs
    memory = [row.activation_bytes for row in rows if row.activation_bytes]
    early = sum(memory[:3]) / sum(memory)
    yield Line(
        number="AlexNet",
        claim="parameters in the FC layers, MACs in the convolutions, activation memory in the first ones",
        published="95.96 % (58,631,144)",
        ours=f"{share:.2f} % ({weights:,}); {100 * macs:.1f} % of the MACs; {100 * early:.0f} %",
        agrees=round(share, 2) == 95.96 and weights == 58_631_144 and macs > 0.9 and early > 0.5,
        derivation="activation memory of the first two convolutions and the pool between, of all layers",
    )  # fmt: skip


def _vgg(bench: Bench) -> Iterator[Line]:
    vgg, alexnet = bench.analysis("vgg16").totals, bench.analysis("alexnet").totals
    params, macs = vgg.params / alexnet.params, vgg.macs / alexnet.macs
    yield Line(
        number="VGG-16", claim="over AlexNet", published="2.26 times the params, 21.7 times the MACs",
        ours=f"{params:.2f}, {macs:.1f}", agrees=(round(params, 2), round(macs, 1)) == (2.26, 21.7),
    )  # fmt: skip


def _abcd(bench: Bench) -> Iterator[Line]:
    a, d = (bench.analysis(f"resnet50_{v}").totals.macs for v in "ad")
    truncated = (int(a / 1e8) / 10, int(d / 1e8) / 10)
    yield Line(
        number="ResNet-50-D", claim="FLOPs over -A", published="+13 % (3.8 to 4.3 G)",
        ours=f"+{100 * (d / a - 1):.1f} % ({a / 1e9:.3f} to {d / 1e9:.3f} G)",
        agrees=truncated == (3.8, 4.3) and round(100 * (truncated[1] / truncated[0] - 1)) == 13,
        derivation="13 % is the ratio of the published figures, which are cut to one digit",
    )  # fmt: skip


def _squeezenet(bench: Bench) -> Iterator[Line]:
    squeezenet, alexnet = bench.analysis("squeezenet").totals, bench.analysis("alexnet").totals
    fewer, more = alexnet.params / squeezenet.params, squeezenet.macs / alexnet.macs
    yield Line(
        number="SqueezeNet", claim="parameters against AlexNet", published="50 times fewer",
        ours=f"{fewer:.1f} times fewer", agrees=round(fewer / 10) * 10 == 50,
    )  # fmt: skip
    yield Line(
        number="SqueezeNet", claim="computation against AlexNet", published="1/510",
        ours=f"{more:.2f} times", agrees=round(1 / more) == 510,
        derivation="510 is the ratio of the model files after compression (0.47 MB for 240 MB); the MACs are not fewer",
    )  # fmt: skip


def _mobilenet(bench: Bench) -> Iterator[Line]:
    found = bench.analysis("mobilenet_v1")
    kinds = kind_of(found)
    groups: dict[str, list[Row]] = {"1x1 convolution": [], "depthwise convolution": [], "linear": []}
    for row in found.rows():
        groups.get(kinds[row.name], []).append(row)
    biases = 1000  # of the classifier; the paper counts weights alone
    weights = sum(row.params for row in found.rows() if row.op != "aten.batch_norm") - biases
    for what, published, key in (
        ("MACs: 1x1, depthwise, FC", "94.86 %, 3.06 %, 0.18 %", "macs"),
        ("params: 1x1, depthwise, FC", "74.59 %, 1.06 %, 24.33 %", "params"),
    ):
        whole = found.totals.macs if key == "macs" else weights
        parts = [sum(getattr(row, key) for row in rows) for rows in groups.values()]
        parts[2] -= biases * (key == "params")
        ours = ", ".join(f"{100 * part / whole:.2f} %" for part in parts)
        yield Line(
            number="MobileNet V1", claim=f"share of the {what}", published=published, ours=ours,
            agrees=ours == published,
            derivation="" if key == "macs" else "of the weights: no biases, no batch normalization",
        )  # fmt: skip
