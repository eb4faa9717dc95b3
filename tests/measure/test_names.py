"""Names: every way in which a product or an operator is called is the same work."""

from __future__ import annotations

import pytest

from costmodel.measure.names import CONTRACTIONS, class_of, names_in_fused, op_of, signature


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("aten.linear", [(2, 3, 8), (5, 8), (5,)]),
        ("aten.linear", [(6, 8), (5, 8)]),
        ("aten.addmm", [(5,), (6, 8), (8, 5)]),
        ("aten.mm", [(6, 8), (8, 5)]),
        ("aten.matmul", [(2, 3, 8), (8, 5)]),
    ],
)
def test_a_linear_layer_is_the_same_product_however_it_runs(op: str, shapes: list[tuple[int, ...]]) -> None:
    assert signature(op, shapes) == (1, 2 * 3, 5, 8)  # 2x3 rows, 5 outputs, 8 inputs


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("aten.matmul", [(2, 3, 4, 8), (2, 3, 8, 5)]),
        ("aten.bmm", [(6, 4, 8), (6, 8, 5)]),
        ("aten.bmm", [(6, 4, 8), (6, 8, 5), (6, 4, 5)]),  # the profiler names the output of the out= variant too
        ("aten.baddbmm", [(6, 4, 5), (6, 4, 8), (6, 8, 5)]),
    ],
)
def test_a_batched_product_is_the_same_however_it_runs(op: str, shapes: list[tuple[int, ...]]) -> None:
    assert signature(op, shapes) == (6, 4, 5, 8)


def test_a_convolution_is_known_by_image_and_weight_alone() -> None:
    image, weight, bias = (1, 3, 8, 8), (4, 3, 3, 3), (4,)
    assert signature("aten.conv2d", [image, weight, bias]) == signature("aten.cudnn_convolution", [image, weight])


def test_unknown_shapes_and_unreadable_products_have_no_signature() -> None:
    assert signature("aten.conv2d", None) is None
    assert signature("aten.einsum", [(2, 3), (3, 4)]) is None


def test_in_place_packets_have_their_plain_name() -> None:
    assert op_of("aten::add_") == "aten.add"
    assert op_of("torchvision::deform_conv2d") == "torchvision.deform_conv2d"
    assert op_of("my region") == "my region"


def test_contractions_are_classes() -> None:
    assert {class_of(op) for op in ("aten.conv1d", "aten.linear", "aten.bmm", "aten.lstm")} <= CONTRACTIONS
    assert class_of("aten.add") not in CONTRACTIONS


@pytest.mark.parametrize(
    ("op", "text", "inside"),
    [
        ("aten.relu", "_native_batch_norm_legit_no_training_relu", True),
        ("aten.add", "addmm", False),
        ("aten.max_pool2d", "max_pool2d_with_indices_relu", True),
        ("aten.adaptive_avg_pool2d", "mean_relu", True),
        ("aten.softmax", "_softmax_mul", True),
        ("aten.conv2d", "convolution_relu", True),
        ("aten.gelu", "native_layer_norm", False),
    ],
)
def test_a_fused_name_tells_which_operators_are_in_it(op: str, text: str, inside: bool) -> None:
    assert names_in_fused(op, text) is inside
