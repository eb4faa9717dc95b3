"""Section A: convolution arithmetic, claim by claim, from the closed forms of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costmodel.claims import (
    LAYERS,
    build,
    channel_shuffle,
    conv,
    depthwise_separable,
    fully_connected,
    group_convolution_access,
    maps,
    memory_access_bound,
    pooled_head,
    ratio,
    sequence,
    squeeze_excitation,
)
from costmodel.claims.layers import depthwise
from costmodel.studies.bench import Bench
from costmodel.studies.claim_lines import Line
from costmodel.symbols import Dim, as_expr, symbol

__all__ = ["lines"]

#: ResNet-50: blocks and channels of its four stages (arXiv:1512.03385, table 1).
RESNET50_STAGES = ((3, 256), (4, 512), (6, 1024), (3, 2048))


def lines(bench: Bench) -> list[Line]:
    """A1 to A17."""
    return [
        *_weights(), *_separable(), *_stacks(), *_windows(), *_heads(), *_guidelines(), *_gates(bench), *_catalogue(),
    ]  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Whether two expressions are the same for all sizes."""
    import sympy

    return bool(sympy.simplify(as_expr(a) - as_expr(b)) == 0)


def text(expression: Dim) -> str:
    """An expression as people write it: ``1/C_out + 1/K²``."""
    import sympy

    from costmodel.symbols import is_symbolic

    if not is_symbolic(expression):
        return f"{int(expression):,}" if float(expression) == int(expression) else str(expression)
    shown = str(sympy.sympify(expression)).replace("**(-2)", "^-2").replace("**2", "²").replace("**4", "⁴")
    return shown.replace("K^-2", "1/K²").replace("*", "·")


def _weights() -> Iterator[Line]:
    c_in, c_out, k = symbol("C_in"), symbol("C_out"), symbol("K")
    layer = conv(c_out, k)(maps("C_in", "H", "W"))
    x = maps(24, 50, 50, batch=128)
    direct, both = conv(48, 3)(x), sequence(conv(12, 1), conv(48, 3))(x)
    yield Line(
        number="A1", claim="parameters of a convolution; 48 filters 3x3 on 24 channels", published="10,368",
        ours=f"{text(layer.params)}; {direct.params:,}",
        agrees=direct.params == 10_368 and same(layer.params, c_in * c_out * k**2),
        derivation="24·48·9, no bias",
    )  # fmt: skip
    squeeze, expand = conv(12, 1)(x), conv(48, 3)(maps(12, 50, 50))
    fewer = float(ratio(direct, both, "params"))
    yield Line(
        number="A2", claim="the same behind a 1x1 convolution to 12 channels",
        published="288 + 5,184 = 5,472, 1.895 times fewer",
        ours=f"{squeeze.params} + {expand.params:,} = {both.params:,}, {fewer:.3f} times fewer",
        agrees=(both.params, round(fewer, 3)) == (5_472, 1.895), derivation="24·12 + 12·48·9",
    )  # fmt: skip
    text_maps = maps(24, "L")
    one = conv(48, 3, bias=True)(text_maps)
    two = sequence(conv(12, 1, bias=True), conv(48, 3, bias=True))(text_maps)
    yield Line(
        number="A3", claim="Conv1d 24 to 48, k = 3, with bias; behind a 1x1 to 12", published="3,504, 2,076",
        ours=f"{one.params:,}, {two.params:,}", agrees=(one.params, two.params) == (3_504, 2_076),
        derivation="3·24·48 + 48; 24·12 + 12 + 3·12·48 + 48",
    )  # fmt: skip


def _separable() -> Iterator[Line]:
    c_out, k, g = symbol("C_out"), symbol("K"), symbol("g")
    small, x = maps(3, 5, 5), maps("C_in", "H", "W")
    parts = (conv(4, 3)(small), depthwise(3)(small), conv(4, 1)(small), depthwise_separable(4, 3)(small))
    counts = tuple(part.params for part in parts)
    yield Line(
        number="A4", claim="depthwise separable, (3, 5, 5) to 4 maps, 3x3", published="108; 27 + 12 = 39",
        ours=f"{counts[0]}; {counts[1]} + {counts[2]} = {counts[3]}", agrees=counts == (108, 27, 12, 39),
        derivation="3·4·9; 3·9 + 3·4",
    )  # fmt: skip
    found = ratio(depthwise_separable(c_out, k)(x), conv(c_out, k)(x), "macs")
    yield Line(
        number="A5", claim="MACs of depthwise separable over standard", published="1/C_out + 1/K²",
        ours=text(found), agrees=bool(found == 1 / c_out + 1 / k**2),
        derivation="H·W·C_in·(K² + C_out) / (H·W·C_in·C_out·K²), divided by sympy",
    )  # fmt: skip
    grouped = [ratio(conv(c_out, k, groups=g)(x), conv(c_out, k)(x), q) for q in ("params", "macs")]
    yield Line(
        number="A6", claim="grouped over standard convolution, params and MACs", published="1/g both",
        ours=", ".join(map(text, grouped)), agrees=grouped == [1 / g, 1 / g],
        derivation="a filter sees C_in/g channels",
    )  # fmt: skip


def _stacks() -> Iterator[Line]:
    c, h, w = symbol("C"), symbol("H"), symbol("W")
    x = maps("C", "H", "W")
    for number, kernel, count in (("A7", 5, 2), ("A8", 7, 3)):
        one, stack = conv(c, kernel)(x), sequence(*[conv(c, 3)] * count)(x)
        yield Line(
            number=number, claim=f"{count} convolutions 3x3 for one {kernel}x{kernel}, C to C",
            published=f"{9 * count}C² / {kernel**2}C², receptive field {kernel}",
            ours=f"{text(stack.params)} / {text(one.params)}, receptive field {stack.field.size}",
            agrees=same(stack.params, 9 * count * c**2) and same(one["macs"], kernel**2 * c**2 * h * w)
            and same(stack["macs"], 9 * count * c**2 * h * w) and stack.field.size == one.field.size == kernel,
            derivation=f"MACs are H·W times that; 1 + {count}·(3 - 1) = {stack.field.size}",
        )  # fmt: skip
    here, following = conv(c, 3)(x), conv(2 * c, 3)(maps(2 * c, h / 2, w / 2))
    ratios = [ratio(following, here, q) for q in ("macs", "params", "activation_bytes")]
    yield Line(
        number="A9", claim="a VGG stage: half of H and W, twice C",
        published="MACs 9C²HW unchanged, params times 4, memory halves",
        ours=f"MACs {text(here['macs'])}, times {ratios[0]}; params times {ratios[1]}; memory times {ratios[2]}",
        agrees=same(here["macs"], 9 * c**2 * h * w) and [str(r) for r in ratios] == ["1", "4", "1/2"],
        derivation="(2C)²·(H/2)·(W/2) = C²·H·W",
    )  # fmt: skip


def _windows() -> Iterator[Line]:
    c_out, k, s = symbol("C_out"), symbol("K"), symbol("s")
    x = maps("C_in", "H", "W")
    plain, dilated = conv(c_out, 3)(x), conv(c_out, 3, dilation=2)(x)
    kept = plain.params == dilated.params and plain["macs"] == dilated["macs"]
    yield Line(
        number="A10", claim="dilation 2 on a 3x3", published="params and MACs unchanged, receptive field 5",
        ours=f"{'unchanged' if kept else 'changed'}, receptive field {dilated.field.size}",
        agrees=kept and dilated.field.size == 5, derivation="1 + d·(K - 1)",
    )  # fmt: skip
    blow_up = as_expr(conv(c_out, k, stride=s)(x)["im2col_bytes"]) / x.nbytes
    as_it_lies = conv(c_out, 1)(x)["im2col_bytes"]
    yield Line(
        number="A11", claim="size of the im2col matrix over the input", published="K²/s²; 1x1 needs none",
        ours=f"{text(blow_up)}; {as_it_lies} B for 1x1", agrees=same(blow_up, k**2 / s**2) and as_it_lies == 0,
        derivation="(C_in·K·K) x (H_out·W_out) elements; with another padding K²·H_out·W_out/(H·W)",
    )  # fmt: skip
    layer = conv(c_out, k)(x)
    rows_of_weight = as_expr(layer.params) / c_out
    yield Line(
        number="A12", claim="articles: the matrix is (K·K) x (C_in·W_out·H_out)", published="that shape",
        ours=f"({text(rows_of_weight)}) x (H·W)", agrees=same(rows_of_weight, k**2),
        derivation="as many elements, but a filter has C_in·K² weights and must meet as many rows: the published "
        "shape is not a matrix that a GEMM can multiply",
    )  # fmt: skip


def _heads() -> Iterator[Line]:
    n, x = symbol("C_out"), maps("C_in", "H", "W")
    found = ratio(pooled_head(n)(x), fully_connected(n)(x), "params")
    free = not {symbol("H"), symbol("W")} & as_expr(pooled_head(n)(x).params).free_symbols
    yield Line(
        number="A13", claim="global average pooling for flatten + fully connected",
        published="weights times 1/(H·W), any size of input",
        ours=f"{text(found)}; {'any size' if free else 'one size'}",
        agrees=same(found, 1 / (symbol("H") * symbol("W"))) and free,
        derivation="C·n for C·H·W·n weights",
    )  # fmt: skip


def _guidelines() -> Iterator[Line]:
    h, w, c1, g, macs = (symbol(name) for name in ("h", "w", "c1", "g", "B"))
    proof = memory_access_bound()
    yield Line(
        number="A14", claim="ShuffleNet V2, G1: memory access of a 1x1 at B MACs",
        published="≥ 2·sqrt(h·w·B) + B/(h·w), equal at c1 = c2",
        ours=f"bound + {text(proof.excess)}", agrees=proof.holds,
        derivation="access - bound is that square, proved by sympy: never negative, zero where c1 = c2",
    )  # fmt: skip
    access, slope = group_convolution_access()
    yield Line(
        number="A15", claim="ShuffleNet V2, G2: with g groups at B MACs",
        published="h·w·c1 + B·g/c1 + B/(h·w), grows with g",
        ours=f"{text(access)}; by g: {text(slope)}",
        agrees=same(access, h * w * c1 + macs * g / c1 + macs / (h * w)) and bool(slope.is_positive),
        derivation="c2 = B·g/(h·w·c1) put into the formula's own bytes",
    )  # fmt: skip


def _gates(bench: Bench) -> Iterator[Line]:
    def added(stages: tuple[tuple[int, int], ...], bias: bool = False) -> int:
        gates = ((n, squeeze_excitation(16, bias=bias)(maps(c, 7, 7))) for n, c in stages)
        return sum(n * int(gate.params) for n, gate in gates)

    plain, squeezed = bench.analysis("resnet50").totals.params, bench.analysis("se_resnet50").totals.params
    counts = (added(RESNET50_STAGES), added(RESNET50_STAGES, bias=True), added(RESNET50_STAGES[:3]))
    yield Line(
        number="A16", claim="squeeze-and-excitation, (2/r)·Σ N·C² weights; ResNet-50, r = 16",
        published="2,514,944 (9.84 %); 2,530,992; 942,080 (3.7 %)",
        ours=f"{counts[0]:,} ({100 * counts[0] / plain:.2f} %); {counts[1]:,}; {counts[2]:,} "
        f"({100 * counts[2] / plain:.1f} %)",
        agrees=counts == (2_514_944, 2_530_992, 942_080) and squeezed - plain == counts[1],
        derivation="weights; with biases; without the last stage; se_resnet50 has "
        f"{squeezed - plain:,} parameters more than resnet50",
    )  # fmt: skip


def _catalogue() -> Iterator[Line]:
    built = {name: build(name) for name in LAYERS}
    shuffle = channel_shuffle(symbol("g"))(maps("C", "H", "W"))
    tensor = 4 * symbol("C") * symbol("H") * symbol("W")
    copies = same(shuffle["bytes_read"], tensor) and same(shuffle["bytes_written"], tensor)
    yield Line(
        number="A17", claim="layers have a formula and a memory cost",
        published="all; channel shuffle 0 FLOP, one read, one write",
        ours=f"{len(built)} layers; channel shuffle {shuffle['flops']} FLOP, {text(shuffle['bytes_read'])} B read",
        agrees=copies and shuffle["flops"] == 0 and all(as_expr(d["bytes_read"]).is_positive for d in built.values()),
        derivation="costmodel formula layers",
    )  # fmt: skip
