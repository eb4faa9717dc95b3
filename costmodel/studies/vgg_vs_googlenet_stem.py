"""A lecture's table, line by line: the stems of GoogLeNet and VGG-16 from 224x224 to 28x28. Section C."""

from __future__ import annotations

import math
from typing import NamedTuple

from costmodel.analysis import Analysis
from costmodel.report.columns import number_column, text_column
from costmodel.report.document import Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import bars
from costmodel.rows import Row
from costmodel.studies.bench import Bench
from costmodel.studies.claim_lines import Line, lines_table
from costmodel.studies.registry import Report, study

__all__ = ["Stem", "lines", "report", "stems"]

PUBLISHED_GOOGLENET_MMAC = 418


class Layer(NamedTuple):
    """One layer of a stem. Bytes of activations after it, weights without bias, MACs, comparisons of a pool."""

    name: str
    maps: str
    sees: int
    activation_bytes: int
    weights: int
    macs: int
    comparisons: int


class Stem(NamedTuple):
    """Layers up to 28x28 maps."""

    layers: tuple[Layer, ...]

    @property
    def kibibytes(self) -> list[float]:
        """Activation memory after each layer, KiB."""
        return [layer.activation_bytes / 1024 for layer in self.layers]

    @property
    def mebibytes(self) -> float:
        """Activation memory, MiB."""
        return sum(layer.activation_bytes for layer in self.layers) / 2**20

    @property
    def convolutions(self) -> tuple[Layer, ...]:
        """The layers with weights."""
        return tuple(layer for layer in self.layers if layer.macs)

    @property
    def weights(self) -> int:
        """Weights without biases."""
        return sum(layer.weights for layer in self.layers)

    @property
    def mmacs(self) -> float:
        """MACs in millions."""
        return sum(layer.macs for layer in self.layers) / 1e6


def _layer(row: Row, size: str, sees: int, taps: int) -> Layer:
    """A layer; a lecture counts an operation for each of the ``taps`` of a pool's window."""
    kind = "max pool" if "pool" in row.op else "convolution"
    channels = row.outputs.split("x")[1]
    height, width = (int(n) for n in size.split("x"))
    outputs = int(channels) * height * width
    return Layer(
        name=f"{row.name}: {kind} to {channels}", maps=size, sees=sees, activation_bytes=row.activation_bytes,
        weights=row.macs // (height * width), macs=row.macs, comparisons=taps * outputs if "pool" in row.op else 0,
    )  # fmt: skip


def _stem(analysis: Analysis) -> Stem:
    """Convolutions and pools of the stem."""
    found = []
    for row, node, (size, fields) in list(
        zip(analysis.rows(), analysis.bound.nodes, analysis.feature_maps, strict=True)
    )[: _end(analysis)]:
        if (row.op == "aten.conv2d" or "max_pool" in row.op) and fields:
            window = analysis.bound.arguments(analysis.bound.calls[node.call]).get("kernel_size", ())
            edges = (window, window) if isinstance(window, int) else tuple(window)  # type: ignore[arg-type]
            found.append(_layer(row, size, fields[0].size, math.prod(edges * 2 if len(edges) == 1 else edges)))
    return Stem(tuple(found))


def _end(analysis: Analysis) -> int:
    """Operators of a stem: all up to the pool that brings maps to 28x28."""
    rows = zip(analysis.rows(), analysis.feature_maps, strict=True)
    return next(i for i, (row, (size, _)) in enumerate(rows, start=1) if "max_pool" in row.op and size == "28x28")


def stems(bench: Bench) -> dict[str, Stem]:
    """Both stems with their pools, and VGG-16's as published: six convolutions, no pool."""
    google, vgg = _stem(bench.analysis("googlenet")), _stem(bench.analysis("vgg16"))
    return {"GoogLeNet": google, "VGG-16 as published": Stem(vgg.convolutions[:6]), "VGG-16": vgg}


def lines(bench: Bench) -> list[Line]:
    """The lecture's table as claims."""
    found = stems(bench)
    google, six, vgg = found["GoogLeNet"], found["VGG-16 as published"], found["VGG-16"]
    kib = " + ".join(f"{k:,.0f}" for k in google.kibibytes)
    comparisons = sum(layer.comparisons for layer in google.layers) / 1e6
    convs = " + ".join(f"{layer.macs / 1e6:.1f}" for layer in google.layers if layer.macs)
    left_out = vgg.convolutions[-1].name.partition(":")[0]
    return [
        Line(number="C1", claim="GoogLeNet: memory", published="7.5 MB", ours=f"{google.mebibytes:.2f} MiB",
             agrees=f"{google.mebibytes:.1f}" == "7.5", derivation=f"{kib} KiB"),
        Line(number="C2", claim="GoogLeNet: params", published="124 K", ours=f"{google.weights:,}",
             agrees=round(google.weights / 1000) == 124,
             derivation=" + ".join(f"{layer.weights:,}" for layer in google.layers if layer.weights)),
        Line(number="C3", claim="GoogLeNet: MMAC", published=str(PUBLISHED_GOOGLENET_MMAC), ours=f"{google.mmacs:.1f}",
             agrees=round(google.mmacs) == PUBLISHED_GOOGLENET_MMAC,
             derivation=f"{convs}; with {comparisons:.1f} M comparisons in the pools {google.mmacs + comparisons:.1f}: "
             f"{round(google.mmacs + comparisons)} with two digits swapped"),
        Line(number="C4", claim="VGG-16: memory", published="42.9 MB (5.7 times)",
             ours=f"{vgg.mebibytes:.2f} MiB ({vgg.mebibytes / google.mebibytes:.1f} times)",
             agrees=f"{vgg.mebibytes:.1f}" == "42.9",
             derivation=f"{six.mebibytes:.3f} MiB of six convolutions; the third of stage 3 ({left_out}) and all pools "
             f"are left out, though GoogLeNet's {google.mebibytes:.2f} MiB hold its own"),
        Line(number="C5", claim="VGG-16: params", published="1.1 M (8.9 times)",
             ours=f"{vgg.weights:,} ({vgg.weights / google.weights:.1f} times)",
             agrees=f"{vgg.weights / 1e6:.1f}" == "1.1", derivation=f"{six.weights:,} of six convolutions"),
        Line(number="C6", claim="VGG-16: MMAC", published="7,485 (17.8 times)",
             ours=f"{vgg.mmacs:,.1f} ({vgg.mmacs / google.mmacs:.1f} times)", agrees=int(vgg.mmacs) == 7485,
             derivation=f"{six.mmacs:,.1f} of six convolutions"),
    ]  # fmt: skip


@study("vgg_vs_googlenet_stem")
def report(bench: Bench) -> Report:
    """Both stems, layer by layer, and what the lecture's two errors are."""
    found = stems(bench)
    chapters = [
        _opening(found),
        *(_chapter(name, found[name]) for name in ("GoogLeNet", "VGG-16")),
        _claims(bench),
        _time(bench),
    ]
    return Report(tuple(chapters), {"vgg_vs_googlenet_stem.svg": _figure(found)})


def _opening(found: dict[str, Stem]) -> Document:
    google, six, vgg = found["GoogLeNet"], found["VGG-16 as published"], found["VGG-16"]
    comparisons = sum(layer.comparisons for layer in google.layers) / 1e6
    text = (
        "A well-known lecture compares how GoogLeNet and VGG-16 bring a picture from 224x224 to 28x28, and a reader "
        'wrote beside its table: "I did not understand how this was computed." Here is how. GoogLeNet\'s stem is '
        f"{google.mmacs:.1f} MMAC; the table says {PUBLISHED_GOOGLENET_MMAC}, which no way of counting gives. With "
        f"the {comparisons:.1f} M comparisons of its two pools it comes to {google.mmacs + comparisons:.1f}: 481 "
        f"with two digits swapped. VGG-16 has {len(vgg.convolutions)} convolutions before 28x28 and the table counts "
        f"{len(six.layers)}: {six.mmacs:,.1f} MMAC instead of {vgg.mmacs:,.1f}. The published ratio of 17.8 is "
        f"really {vgg.mmacs / google.mmacs:.1f}."
    )
    figure = Figure("figures/vgg_vs_googlenet_stem.svg", "MACs of both stems, layer by layer")
    return Document("Stems of VGG-16 and GoogLeNet: a table with two errors", (Paragraph(text), figure))


def _chapter(name: str, stem: Stem) -> Document:
    rows = [
        {"name": layer.name, "maps": layer.maps, "sees": layer.sees, "kib": layer.activation_bytes / 1024,
         "weights": layer.weights, "mmac": layer.macs / 1e6, "comparisons": layer.comparisons / 1e6}
        for layer in stem.layers
    ]  # fmt: skip
    total = {"name": "sum", "kib": sum(stem.kibibytes), "weights": stem.weights, "mmac": stem.mmacs,
             "comparisons": sum(row["comparisons"] for row in rows)}  # type: ignore[misc]  # fmt: skip
    has_pools = any(layer.comparisons for layer in stem.layers)
    pools = [number_column("comparisons", "comparisons", "M", decimals=1)] if has_pools else []
    columns = (
        text_column("name", "layer"), text_column("maps", "maps"),
        number_column("sees", "receptive field", decimals=0), number_column("kib", "memory", "KiB", decimals=0),
        number_column("weights", "weights", decimals=0), number_column("mmac", "MMAC", decimals=1), *pools,
    )  # fmt: skip
    conventions = [
        "memory: activations after each layer, fp32; ReLU works in place; the lecture's MB are 2^20 B, hence MiB",
        "weights without biases; MACs of convolutions, padding positions counted",
    ] + ["comparisons: one a tap of a pool's window, as the lecture counts (one less would do)"] * has_pools
    table = Table(columns=columns, rows=tuple(rows), footer=(total,))
    text = f"{stem.mebibytes:.2f} MiB of activations, {stem.weights:,} weights, {stem.mmacs:,.1f} MMAC."
    return Document(f"{name}, line by line", (Paragraph(text), table, Notes(tuple(conventions))))


def _claims(bench: Bench) -> Document:
    return Document("Published against counted", (lines_table(lines(bench)),))


def _time(bench: Bench) -> Document:
    """What the two stems take on an A100."""
    found, texts, per_byte = stems(bench), [], []
    for batch in (1, 64):
        google, vgg = (_stem_rows(bench, name, batch) for name in ("googlenet", "vgg16"))
        ratio = sum(row.latency_s for row in vgg) / sum(row.latency_s for row in google)
        texts.append(f"{ratio:.1f} times at batch {batch}")
    for rows in (google, vgg):
        per_byte.append(sum(row.macs for row in rows) / sum(row.bytes_read + row.bytes_written for row in rows))
    text = (
        f"VGG-16's stem has {found['VGG-16'].mmacs / found['GoogLeNet'].mmacs:.1f} times the MACs of GoogLeNet's. On "
        "an A100, in autocast fp16 and channels_last, with everything counted that runs up to the pool that "
        f"brings maps to 28x28, it takes {' and '.join(texts)} the time. "
        f"GoogLeNet's is {len(google)} operators and VGG-16's "
        f"{len(vgg)}, which is what counts while the host sets the pace; in bytes GoogLeNet's gets {per_byte[0]:.0f} "
        f"MACs out of each that it moves and VGG-16's {per_byte[1]:.0f}."
    )
    return Document("And in time?", (Paragraph(text),))


def _stem_rows(bench: Bench, name: str, batch: int) -> list[Row]:
    """All operators of the stem."""
    analysis = bench.analysis(name, batch=batch, dtype="amp_fp16", layout="nhwc")
    return analysis.rows()[: _end(analysis)]


def _figure(found: dict[str, Stem]) -> str:
    parts = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
    rows = {}
    for name, stem in found.items():
        convolutions = [layer for layer in stem.layers if layer.macs]
        rows[name] = {f"{part} convolution": c.macs / 1e6 for part, c in zip(parts, convolutions, strict=False)}
    return bars(rows, "MMAC", "From 224x224 to 28x28")
