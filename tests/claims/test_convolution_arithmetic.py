"""Section A of the published figures: what papers, lectures and articles claim about convolutions, claim by claim."""

from __future__ import annotations

import pytest
import sympy

from costmodel.claims import (
    build,
    channel_shuffle,
    concat,
    conv,
    depthwise_separable,
    fully_connected,
    group_convolution_access,
    maps,
    max_unpool,
    memory_access_bound,
    pooled_head,
    ratio,
    sequence,
    shortcut,
    squeeze_excitation,
)
from costmodel.claims.layers import depthwise
from costmodel.errors import InputError
from costmodel.symbols import symbol

C, C_IN, C_OUT, K, H, W, G, S, P, R = (symbol(name) for name in "C C_in C_out K H W g s p r".split())
X = maps("C_in", "H", "W")


def test_a1_parameters_of_a_convolution() -> None:
    assert conv(C_OUT, K)(X).params == C_IN * K * K * C_OUT
    assert conv(48, 3)(maps(24, 50, 50, batch=128)).params == 10_368


def test_a2_bottleneck_of_1x1() -> None:
    x = maps(24, 50, 50, batch=128)
    squeeze, expand = conv(12, 1)(x), conv(48, 3)(maps(12, 50, 50, batch=128))
    both = sequence(conv(12, 1), conv(48, 3))(x)
    assert (squeeze.params, expand.params, both.params) == (288, 5_184, 5_472)
    assert round(float(ratio(conv(48, 3)(x), both, "params")), 3) == 1.895


def test_a3_one_dimensional_bottleneck_with_bias() -> None:
    x = maps(24, "L")
    assert conv(48, 3, bias=True)(x).params == 3_504
    assert sequence(conv(12, 1, bias=True), conv(48, 3, bias=True))(x).params == 2_076


def test_a4_depthwise_separable_in_numbers() -> None:
    x = maps(3, 5, 5)
    assert conv(4, 3)(x).params == 108
    assert (depthwise(3)(x).params, conv(4, 1)(x).params) == (27, 12)
    assert depthwise_separable(4, 3)(x).params == 39


@pytest.mark.parametrize("quantity", ["macs", "params"])
def test_a5_depthwise_separable_over_standard_is_exactly_the_papers_ratio(quantity: str) -> None:
    found = ratio(depthwise_separable(C_OUT, K)(X), conv(C_OUT, K)(X), quantity)
    assert found == 1 / C_OUT + 1 / K**2  # the very expression, not one that simplifies to it


@pytest.mark.parametrize("quantity", ["macs", "params"])
def test_a6_groups_divide(quantity: str) -> None:
    assert ratio(conv(C_OUT, K, groups=G)(X), conv(C_OUT, K)(X), quantity) == 1 / G


@pytest.mark.parametrize(("kernel", "count", "stacked"), [(5, 2, 18), (7, 3, 27)])
def test_a7_a8_stacks_of_3x3(kernel: int, count: int, stacked: int) -> None:
    x = maps("C", "H", "W")
    one, stack = conv(C, kernel)(x), sequence(*[conv(C, 3)] * count)(x)
    assert (one.params, stack.params) == (kernel**2 * C**2, stacked * C**2)
    assert (one["macs"], stack["macs"]) == (kernel**2 * C**2 * H * W, stacked * C**2 * H * W)
    assert one.field.size == stack.field.size == kernel


def test_a9_vgg_stages() -> None:
    here = conv(C, 3)(maps("C", "H", "W"))
    following = conv(2 * C, 3)(maps(2 * C, H / 2, W / 2))
    assert here["macs"] == following["macs"] == 9 * C**2 * H * W
    assert ratio(following, here, "params") == 4
    assert ratio(following, here, "activation_bytes") == sympy.Rational(1, 2)


def test_a10_dilation() -> None:
    plain, dilated = conv(C_OUT, 3)(X), conv(C_OUT, 3, dilation=2)(X)
    assert (plain.params, plain["macs"]) == (dilated.params, dilated["macs"])
    assert (plain.field.size, dilated.field.size) == (3, 5)


def test_a11_im2col_blow_up() -> None:
    """K²/s² where the padding keeps H = s*H_out; with padding p exactly K²*H_out*W_out/(H*W)."""
    same, padded = conv(C_OUT, K, stride=S)(X), conv(C_OUT, K, stride=S, padding=P)(X)
    assert sympy.simplify(same["im2col_bytes"] / X.nbytes) == K**2 / S**2
    h_out, w_out = (H + 2 * P - K) / S + 1, (W + 2 * P - K) / S + 1
    assert sympy.simplify(padded["im2col_bytes"] / X.nbytes - K**2 * h_out * w_out / (H * W)) == 0
    assert conv(C_OUT, 1)(X)["im2col_bytes"] == 0, "the input is the matrix"


def test_a12_the_articles_matrix_has_the_elements_but_not_the_shape() -> None:
    elements = conv(C_OUT, K)(X)["im2col_bytes"] / 4
    gemm, articles = (C_IN * K * K, H * W), (K * K, C_IN * H * W)
    assert sympy.simplify(elements - sympy.prod(gemm)) == sympy.simplify(elements - sympy.prod(articles)) == 0
    rows_of_the_weight = conv(C_OUT, K)(X).params / C_OUT
    assert rows_of_the_weight == gemm[0] != articles[0]


def test_a13_global_average_pooling_for_flatten_and_fully_connected() -> None:
    flat, pooled = fully_connected(C_OUT)(X), pooled_head(C_OUT)(X)
    assert ratio(pooled, flat, "params") == 1 / (H * W)
    assert pooled.params.free_symbols == {C_IN, C_OUT}, "any size of picture"
    assert {H, W} < flat.params.free_symbols


def test_a14_g1_lower_bound_is_proved() -> None:
    h, w, c1, c2 = (symbol(name) for name in ("h", "w", "c1", "c2"))
    proof = memory_access_bound()
    macs = h * w * c1 * c2
    assert proof.holds
    assert sympy.simplify(proof.value - (h * w * (c1 + c2) + c1 * c2)) == 0
    assert sympy.simplify(proof.bound - (2 * sympy.sqrt(h * w * macs) + macs / (h * w))) == 0
    assert proof.equality == sympy.Eq(c1, c2)
    assert proof.excess.subs(c1, c2) == 0
    assert float(proof.excess.subs({h: 56, w: 56, c1: 36, c2: 432})) > 0


def test_a15_g2_access_grows_with_groups() -> None:
    h, w, c1, g, macs = (symbol(name) for name in ("h", "w", "c1", "g", "B"))
    access, slope = group_convolution_access()
    assert sympy.simplify(access - (h * w * c1 + macs * g / c1 + macs / (h * w))) == 0
    assert slope == macs / c1 and slope.is_positive


#: ResNet-50: blocks and channels of its four stages (arXiv:1512.03385, table 1).
STAGES = ((3, 256), (4, 512), (6, 1024), (3, 2048))


@pytest.mark.parametrize(
    ("stages", "bias", "weights"), [(STAGES, False, 2_514_944), (STAGES, True, 2_530_992), (STAGES[:3], False, 942_080)]
)
def test_a16_squeeze_and_excitation(stages: tuple[tuple[int, int], ...], bias: bool, weights: int) -> None:
    assert squeeze_excitation(R)(maps("C", "H", "W")).params == 2 * C**2 / R
    assert sum(n * squeeze_excitation(16, bias=bias)(maps(c, 7, 7)).params for n, c in stages) == weights


def test_a16_as_shares_of_resnet50() -> None:
    assert round(100 * 2_514_944 / 25_557_032, 2) == 9.84
    assert round(100 * 942_080 / 25_557_032, 1) == 3.7


@pytest.mark.parametrize(
    "name",
    ["conv1d", "conv2d", "conv3d", "conv_transpose2d", "deform_conv2d", "upsample_bilinear", "max_unpool",
     "channel_shuffle", "concat", "shortcut"],
)  # fmt: skip
def test_a17_every_layer_has_a_formula_and_a_memory_cost(name: str) -> None:
    layer = build(name)
    assert layer["bytes_read"].is_positive and layer["bytes_written"].is_positive
    assert layer["flops"] == 0 or layer["flops"].is_positive


def test_a17_dilated_and_grouped_have_them_too() -> None:
    layer = build("conv2d", {"d": symbol("d"), "g": G})
    assert layer["macs"] == H * W * C_IN * C_OUT * K**2 / G


def test_a17_channel_shuffle_copies_the_tensor_once() -> None:
    x = maps("C", "H", "W")
    layer = channel_shuffle(G)(x)
    assert layer["flops"] == layer["macs"] == layer.params == 0
    assert sympy.simplify(layer["bytes_read"] - x.nbytes) == sympy.simplify(layer["bytes_written"] - x.nbytes) == 0


def test_a17_shortcuts_and_unpooling_by_hand() -> None:
    x, other = maps("C", "H", "W"), symbol("C_other")
    assert (shortcut()(x)["flops"], shortcut()(x)["bytes_read"]) == (C * H * W, 2 * x.nbytes)
    joined = concat(other)(x)
    assert sympy.expand(joined["bytes_read"] - joined["bytes_written"]) == 0 == joined["flops"]
    assert max_unpool(2)(x)["bytes_read"] == x.nbytes + 8 * C * H * W  # 64-bit indices


# -- what the library refuses --------------------------------------------------------------------


def test_unknown_names_are_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match="did you mean conv2d"):
        build("conv2")
    with pytest.raises(InputError, match="has no size 'Cin'"):
        build("conv2d", {"Cin": 3})
    with pytest.raises(InputError, match="did you mean params"):
        build("conv2d")["param"]
    with pytest.raises(InputError, match="there is no ratio"):
        ratio(conv(8, 3)(X), shortcut()(X), "macs")
