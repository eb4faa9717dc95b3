"""Fused kernels of compiled graphs, against programs small enough to fuse and count by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.costing import cost_graph
from costmodel.engines import lower
from costmodel.engines.inductor.fusion import compiled_plan
from costmodel.engines.inductor.kinds import prefers_channels_last
from costmodel.execution import Execution
from costmodel.formulas import is_free
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile, load
from costmodel.kernels import KernelPlan
from costmodel.kernels.shapes import Product
from costmodel.nodes import Call, OpNode, SpecRef, Storage, Tensor
from costmodel.tensor import Role, TensorSpec

MAP = (2, 128, 4, 4)
"""A feature map: 4096 elements, 16 KiB in fp32, wide enough for channels_last."""
B = 4 * prod(MAP)


class Program:
    """Builds a graph operator by operator; tensors are numbers."""

    def __init__(self) -> None:
        self.graph = OpGraph({}, [], [], [], [], [], [], [])

    def tensor(
        self, shape: tuple[int, ...], role: Role, storage: int | None = None, producer: int | None = None
    ) -> int:
        g = self.graph
        g.specs.append(TensorSpec(shape, role=role))
        if storage is None:
            g.storages.append(Storage(4 * prod(shape), "float32", role))
            storage = len(g.storages) - 1
        g.tensors.append(Tensor(len(g.specs) - 1, storage, producer))
        return len(g.tensors) - 1

    def input(self, *shape: int) -> int:
        self.graph.inputs.append(self.tensor(shape, Role.INPUT))
        return self.graph.inputs[-1]

    def weight(self, *shape: int) -> int:
        return self.tensor(shape, Role.PARAMETER)

    def op(self, name: str, shape: tuple[int, ...], /, **arguments: Any) -> int:
        """Tensors among ``arguments`` are given as ``T(number)``, alone or in lists."""
        g, inputs = self.graph, []

        def reference(value: Any) -> Any:
            if isinstance(value, T):
                inputs.append(value.index)
                return SpecRef(g.tensors[value.index].spec)
            return tuple(map(reference, value)) if isinstance(value, list) else value

        listed = tuple((key, reference(value)) for key, value in arguments.items())
        storage = g.tensors[inputs[0]].storage if is_free(f"aten.{name}") else None
        out = self.tensor(shape, Role.ACTIVATION, storage, len(g.nodes))
        g.calls.append(Call(f"aten.{name}", listed, (SpecRef(g.tensors[out].spec),)))
        index = len(g.nodes)
        g.nodes.append(OpNode(f"{name}{index}", f"aten.{name}", "", "", len(g.calls) - 1, tuple(inputs), (out,)))
        return out

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.graph.specs[self.graph.tensors[tensor].spec].shape)  # type: ignore[arg-type]

    def like(self, name: str, x: int, *others: int) -> int:
        """A pointwise operator with the shape of its first operand."""
        rest = {"other": T(others[0])} if others else {}
        return self.op(name, self.shape(x), input=T(x), **rest)

    def conv(self, x: int, *, bias: bool = False, channels: int = 128, size: int = 3) -> int:
        n, c, h, w = self.shape(x)
        weight = self.weight(channels, c, size, size)
        extra = {"bias": T(self.weight(channels))} if bias else {}
        return self.op("conv2d", (n, channels, h, w), input=T(x), weight=T(weight), **extra, padding=[size // 2] * 2)

    def bn(self, x: int) -> int:
        names = ("weight", "bias", "running_mean", "running_var")
        affine = {name: T(self.weight(self.shape(x)[1])) for name in names}
        return self.op("batch_norm", self.shape(x), input=T(x), **affine, training=False, momentum=0.1, eps=1e-5)

    def done(self, *outputs: int) -> OpGraph:
        self.graph.outputs = list(outputs)
        return self.graph


class T:
    def __init__(self, index: int) -> None:
        self.index = index


GPU = load("a100-sxm-80gb")


def plan(graph: OpGraph, dtype: str = "fp32", hardware: HardwareProfile = GPU) -> KernelPlan:
    return compiled_plan(graph, Execution.of(batch=2, dtype=dtype, mode="compile"), hardware)


def fused(found: KernelPlan) -> list[tuple[int, int]]:
    """(bytes read, bytes written) of the generated kernels, in order."""
    kernels = [found.kernels[launch.kernel] for launch in found.launches]
    return [(k.bytes_read, k.bytes_written) for k in kernels if not k.matrix_flops]


def algorithms(found: KernelPlan) -> list[str]:
    return [found.kernels[launch.kernel].algorithm for launch in found.launches]


def test_chain_after_a_convolution_is_one_kernel() -> None:
    p = Program()
    x, residual = p.input(*MAP), p.input(*MAP)
    out = p.like("relu", p.like("add", p.bn(p.conv(x)), residual))
    found = plan(p.done(out))
    assert algorithms(found) == ["implicit_gemm", "fused_elementwise"]
    assert fused(found) == [(2 * B + 4 * 128 * 4, B)]  # convolution, residual, four vectors of 128 floats
    assert [launch.nodes for launch in found.launches] == [(0,), (1, 2, 3)]


def test_residual_stream_is_written_once_and_read_by_both() -> None:
    p = Program()
    x = p.input(*MAP)
    first = p.like("relu", p.like("add", p.conv(x), x))
    found = plan(p.done(p.like("relu", p.like("add", p.conv(first), first))))
    assert fused(found) == [(2 * B, B), (2 * B, B)]


def test_two_consumers_of_one_tensor_share_its_read() -> None:
    p = Program()
    x = p.input(10, 7)
    shared = p.like("relu", x)
    found = plan(p.done(p.like("exp", shared), p.like("sigmoid", shared)))
    assert fused(found) == [(280, 560)]
    assert [launch.nodes for launch in found.launches] == [(0, 1, 2)]


def test_intermediate_that_is_an_output_is_written() -> None:
    p = Program()
    middle = p.like("relu", p.input(10, 7))
    assert fused(plan(p.done(middle, p.like("exp", middle)))) == [(280, 560)]


def test_row_reduction_in_the_middle() -> None:
    p = Program()
    x = p.input(6, 9)
    wide = p.like("relu", x)
    mean = p.op("mean", (6, 1), input=T(wide), dim=[-1], keepdim=True)
    found = plan(p.done(p.like("sub", wide, mean)))
    assert algorithms(found) == ["fused_reduction"]
    assert fused(found) == [(6 * 9 * 4, 6 * 9 * 4)]  # the mean stays on chip


def test_layer_norm_takes_the_preceding_add_along() -> None:
    p = Program()
    x, y = p.input(6, 16), p.input(6, 16)
    total = p.like("add", x, y)
    affine = {"weight": T(p.weight(16)), "bias": T(p.weight(16))}
    norm = p.op("layer_norm", (6, 16), input=T(total), normalized_shape=[16], **affine)
    found = plan(p.done(p.like("gelu", norm), total))
    assert algorithms(found) == ["fused_normalization"]
    assert fused(found) == [(2 * 6 * 16 * 4 + 2 * 16 * 4, 2 * 6 * 16 * 4)]


def test_reduction_of_another_space_is_its_own_kernel() -> None:
    p = Program()
    norm = p.op("softmax", (6, 16), input=T(p.input(6, 16)), dim=-1)
    part = p.op("slice", (6, 4), input=T(norm), dim=1, start=0, end=4)
    found = plan(p.done(p.like("exp", p.op("clone", (6, 4), input=T(part)))))
    assert len(found.launches) == 2  # statistics over 16, results for 4


def test_views_cost_nothing_and_do_not_part_kernels() -> None:
    p = Program()
    x = p.input(2, 3, 4)
    flat = p.op("view", (24,), input=T(p.like("relu", x)), size=[24])
    found = plan(p.done(p.like("exp", flat)))
    assert fused(found) == [(96, 96)]
    assert found.launches[0].nodes == (0, 2)


@pytest.mark.parametrize(("halves", "share"), [((0,), 0.5), ((0, 1), 1.0)])
def test_only_the_parts_of_a_tensor_that_are_read_count(halves: tuple[int, ...], share: float) -> None:
    p = Program()
    wide = p.op("linear", (6, 8), input=T(p.input(6, 5)), weight=T(p.weight(8, 5)))
    parts = [p.op("slice", (6, 4), input=T(wide), dim=1, start=4 * i, end=4 * i + 4) for i in halves]
    found = plan(p.done(p.like("sigmoid", parts[0]) if len(parts) == 1 else p.like("mul", *parts)))
    assert fused(found) == [(6 * 8 * 4 * share, 6 * 4 * 4)]


def test_bias_of_a_convolution_is_added_by_the_fused_kernel() -> None:
    p = Program()
    x = p.input(*MAP)
    graph = p.done(p.like("relu", p.conv(x, bias=True)))
    found = plan(graph)
    assert fused(found) == [(B + 128 * 4, B)]
    assert [launch.nodes for launch in found.launches] == [(0,), (0, 1)]
    flops = [found.kernels[launch.kernel].vector_flops for launch in found.launches]
    assert flops == [0, 2 * prod(MAP)]  # an addition and a comparison for each element


def test_autocast_casts_each_weight_once_and_streams_half_the_bytes() -> None:
    p = Program()
    x = p.input(*MAP)
    out = p.like("relu", p.bn(p.conv(p.like("relu", p.bn(p.conv(x))))))
    found = plan(p.done(out), "amp_fp16")
    weight = 128 * 128 * 9
    casts = Counter(launch for launch in algorithms(found))["cast"]
    assert casts == 3  # the input and two weights
    assert all(launch.nodes for launch in found.launches)
    read, written = B // 2 + 4 * 128 * 4, B // 2  # statistics and affine vectors stay fp32
    assert Counter(fused(found)) == Counter([(B, B // 2), *[(4 * weight, 2 * weight)] * 2, *[(read, written)] * 2])


def squeeze_excite(p: Program, x: int) -> int:
    gate = p.op("mean", (2, 128, 1, 1), input=T(x), dim=[2, 3], keepdim=True)
    return p.like("mul", x, p.like("sigmoid", p.conv(gate, size=1)))


def test_spatial_mean_in_channels_last_reads_what_was_stored_in_fp32() -> None:
    """silu reads its operand twice, in fp32: with five reads behind it, batch norm's result is stored so."""
    p = Program()
    graph = p.done(squeeze_excite(p, p.like("silu", p.bn(p.conv(p.input(*MAP))))))
    found = [pair for pair in fused(plan(graph, "amp_fp16")) if max(pair) >= B // 2][1:]  # without the input's cast
    gates = 2 * 128 * 2  # an fp16 for each image and channel
    vectors = 4 * 128 * 4
    weights = {(4 * n, 2 * n) for n in (128 * 128 * 9, 128 * 128)}
    assert [pair for pair in found if pair not in weights] == [
        (B // 2 + vectors, B),
        (B, gates),
        (B + gates, B // 2),
    ]


def test_group_statistics_are_a_kernel_of_their_own() -> None:
    p = Program()
    norm = p.op("group_norm", MAP, input=T(p.conv(p.input(*MAP))), num_groups=4)
    assert fused(plan(p.done(p.like("relu", norm)))) == [(B, 0), (B, B)]  # statistics too small to count


def test_few_tensors_are_joined_on_the_fly() -> None:
    p = Program()
    x = p.input(*MAP)
    joined = p.op("cat", (2, 256, 4, 4), tensors=[T(p.conv(x)), T(p.conv(x))], dim=1)
    assert fused(plan(p.done(p.like("relu", joined)))) == [(2 * B, 2 * B)]


def test_many_tensors_are_copied_into_place() -> None:
    p = Program()
    x = p.input(*MAP)
    joined = p.op("cat", (2, 9 * 128, 4, 4), tensors=[T(p.conv(x)) for _ in range(9)], dim=1)
    found = fused(plan(p.done(p.like("relu", joined))))
    assert Counter(found) == Counter([*[(B, B)] * 9, (9 * B, 9 * B)])


def test_operand_of_a_pooling_window_is_stored_and_its_result_fuses() -> None:
    p = Program()
    pooled = p.op("avg_pool2d", (2, 128, 2, 2), input=T(p.like("relu", p.input(*MAP))), kernel_size=[2, 2])
    found = plan(p.done(p.like("exp", pooled)))
    assert fused(found) == [(B, B), (B, B // 4)]
    assert algorithms(found) == ["fused_elementwise", "fused_pool"]


def test_lookup_reads_rows_not_the_table() -> None:
    p = Program()
    table, words = p.weight(1000, 8), p.input(5)
    p.graph.specs[p.graph.tensors[words].spec] = TensorSpec((5,), "int64", Role.INPUT)
    found = plan(p.done(p.like("relu", p.op("embedding", (5, 8), weight=T(table), indices=T(words)))))
    assert fused(found) == [(5 * 8 * 4 + 5 * 8, 5 * 8 * 4)]


def test_a_kernel_between_two_parts_keeps_them_apart() -> None:
    """relu(x) and its sum with conv(relu(x)) have the same loops, but the convolution must run between them."""
    p = Program()
    first = p.like("relu", p.input(*MAP))
    found = plan(p.done(p.like("add", p.conv(first), first)))
    assert [launch.nodes for launch in found.launches] == [(0,), (1,), (2,)]


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [(128, 1, True), (32, 1, True), (128, 32, False)],  # weights 0.823, 0.783, 1.358
)
def test_layout_of_convolutions(channels: int, groups: int, expected: bool) -> None:
    p = Program()
    x, weight = p.input(2, channels, 4, 4), p.weight(channels, channels // groups, 3, 3)
    out = p.op("conv2d", (2, channels, 4, 4), input=T(x), weight=T(weight), padding=[1, 1], groups=groups)
    assert prefers_channels_last(p.done(out)) is expected


def test_layout_is_not_changed_for_few_convolutions() -> None:
    p = Program()
    x = p.conv(p.input(*MAP))
    for _ in range(299):
        x = p.like("relu", x)
    assert not prefers_channels_last(p.done(x))  # 300 operators, one convolution


def test_attention_and_products_are_the_library_s() -> None:
    p = Program()
    x = p.input(6, 16)
    found = plan(p.done(p.op("linear", (6, 8), input=T(x), weight=T(p.weight(8, 16)), bias=T(p.weight(8)))))
    assert algorithms(found) == ["gemm"]
    assert found.kernels[0].shape == Product(6, 8, 16)


# -- laws on random programs -----------------------------------------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> OpGraph:
    """Convolutions, pointwise chains, joins of two values and spatial means in any order."""
    p = Program()
    values = [p.input(*MAP)]
    for kind in draw(
        st.lists(st.sampled_from(["conv", "bn", "relu", "silu", "add", "excite", "softmax"]), min_size=1, max_size=14)
    ):
        x = values[draw(st.integers(0, len(values) - 1))]
        if kind == "conv":
            values.append(p.conv(x))
        elif kind == "bn":
            values.append(p.bn(x))
        elif kind == "excite":
            values.append(squeeze_excite(p, x))
        elif kind == "softmax":
            values.append(p.op("softmax", MAP, input=T(x), dim=-1))
        else:
            values.append(p.like(kind, x, *([values[-1]] if kind == "add" else [])))
    used = {t for node in p.graph.nodes for t in node.inputs}
    return p.done(*(v for v in values if v not in used))


@given(programs())
def test_every_node_is_served_and_no_flop_is_lost(graph: OpGraph) -> None:
    """Kernels do what the model asks, and beyond it only cheap arithmetic that more than one of them inlines."""
    found = plan(graph)
    served = Counter(n for launch in found.launches for n in launch.nodes)
    assert set(served) == set(range(len(graph.nodes)))
    inlined = {n for n, node in enumerate(graph.nodes) if node.op in INLINED}
    assert {n for n, times in served.items() if times > 1} <= inlined
    assert all(len(launch.nodes) == 1 for launch in found.launches if all(served[n] > 1 for n in launch.nodes))
    asked, done = cost_graph(graph), [found.kernels[launch.kernel] for launch in found.launches]
    assert sum(k.matrix_flops for k in done) == asked.total.matrix_flops
    again = sum(k.vector_flops for k in done) - asked.total.vector_flops
    readers = Counter(t for node in graph.nodes for t in set(node.inputs))
    shared = any(readers[t] > 1 for node in graph.nodes for t in node.outputs)
    assert again >= 0 if shared else again == 0


INLINED = frozenset(f"aten.{name}" for name in ("batch_norm", "relu", "silu", "add", "sigmoid", "mul"))


def test_a_cheap_operator_is_computed_by_each_kernel_that_inlines_it() -> None:
    """A mean takes relu along before the convolution asks for it in memory: two kernels compare each element."""
    p = Program()
    hot = p.like("relu", p.input(*MAP))
    mean = p.op("mean", (2, 128, 1, 1), input=T(hot), dim=[2, 3], keepdim=True)
    found = plan(p.done(mean, p.conv(hot)))
    assert fused(found) == [(B, 2 * 128 * 4), (B, B)]
    assert [launch.nodes for launch in found.launches] == [(0, 1), (0,), (2,)]
    averaging = prod(MAP)  # an addition for each element but the first of a mean, and a division for each mean
    flops = [found.kernels[launch.kernel].vector_flops for launch in found.launches]
    assert flops == [prod(MAP) + averaging, prod(MAP), 0]


def test_what_a_convolution_reads_is_stored_for_those_before_it_too() -> None:
    """``realize_hint``: a sum of two tensors that a convolution will read is not summed again by the mean before it."""
    p = Program()
    total = p.like("add", p.input(*MAP), p.input(*MAP))
    mean = p.op("mean", (2, 128, 1, 1), input=T(total), dim=[2, 3], keepdim=True)
    assert fused(plan(p.done(mean, p.conv(total)))) == [(2 * B, B), (B, 2 * 128 * 4)]


def test_a_window_of_many_loads_is_stored_not_pooled_again() -> None:
    p = Program()
    pooled = p.op("max_pool2d", MAP, input=T(p.input(*MAP)), kernel_size=[3, 3], padding=[1, 1], stride=[1, 1])
    mean = p.op("mean", (2, 128, 1, 1), input=T(pooled), dim=[2, 3], keepdim=True)
    assert fused(plan(p.done(mean, p.conv(pooled)))) == [(B, B), (B, 2 * 128 * 4)]


def test_no_kernel_reads_a_window_of_what_it_writes() -> None:
    """pool(x) - x, as in PoolFormers: other threads must have written what a window shows, so that x has a kernel of
    its own, whose result the other reads at all places of its windows."""
    p = Program()
    hot = p.like("relu", p.input(*MAP))
    pooled = p.op("avg_pool2d", MAP, input=T(hot), kernel_size=[3, 3], stride=[1, 1], padding=[1, 1])
    found = plan(p.done(p.like("exp", p.like("sub", pooled, hot))))
    assert fused(found) == [(B, B), (B, B)]
    assert algorithms(found) == ["fused_elementwise", "fused_pool"]


def test_windows_are_read_again_by_each_join_that_pools() -> None:
    """A pooled map of which a join is made on the fly: the kernel reads the whole map that is pooled."""
    p = Program()
    x = p.input(*MAP)
    pooled = p.op("avg_pool2d", (2, 128, 2, 2), input=T(x), kernel_size=[2, 2])
    joined = p.op("cat", (2, 256, 2, 2), tensors=[T(pooled), T(p.input(2, 128, 2, 2))], dim=1)
    assert fused(plan(p.done(p.like("relu", joined)))) == [(B + B // 4, B // 2)]


def test_what_a_convolution_has_read_is_copied_into_its_place() -> None:
    """Its strides are held to the convolution's (``can_realize_into_without_copy``): all parts are copies, so that
    they are made in one kernel; a part that nobody has read would have been written in its place."""
    p = Program()
    x = p.input(*MAP)
    first = p.like("relu", p.conv(x))
    second = p.like("relu", p.conv(first))
    joined = p.op("cat", (2, 256, 4, 4), tensors=[T(first), T(second)], dim=1)
    found = plan(p.done(p.conv(joined, channels=128)))
    assert fused(found) == [(B, B), (2 * B, 2 * B)]


def test_bias_is_cast_on_the_fly_in_channels_last_alone() -> None:
    """``constrain_conv_to_fx_strides`` realizes all operands where convolutions keep eager PyTorch's strides."""
    for others, casts in ((0, 2), (300, 3)):  # input, weight; and bias
        p = Program()
        out = p.conv(p.input(*MAP), bias=True)
        for _ in range(others):
            out = p.like("relu", out)
        graph = p.done(out)
        assert prefers_channels_last(graph) is not bool(others)
        assert Counter(algorithms(plan(graph, "amp_fp16")))["cast"] == casts


def test_a_sum_of_few_terms_is_written_out() -> None:
    """As in ResNeSt's splits: seven terms are an expression, which its reader computes, eight are a reduction."""
    for terms, expected in ((7, "fused_elementwise"), (8, "fused_reduction")):
        p = Program()
        total = p.op("sum", (16,), input=T(p.like("relu", p.input(16, terms))), dim=[1])
        found = plan(p.done(p.like("exp", total)))
        assert algorithms(found) == [expected]
        assert fused(found) == [(4 * 16 * terms, 4 * 16)]


def test_rows_lie_as_they_were_traced() -> None:
    """A sum over the last dimension of a transposed view reduces what lies far apart: its result is used by another
    kernel, which does not keep the rows that it reads in registers."""
    p = Program()
    far = p.op("transpose", (64, 32), input=T(p.input(32, 64)), dim0=0, dim1=1)
    p.graph.specs[p.graph.tensors[far].spec] = TensorSpec((64, 32), strides=(1, 64))
    total = p.op("sum", (64, 1), input=T(far), dim=[1], keepdim=True)
    found = plan(p.done(p.op("div", (64, 32), input=T(far), other=T(total))))
    assert fused(found) == [(4 * 2048, 4 * 64), (4 * 2048 + 4 * 64, 4 * 2048)]


def test_factors_that_do_not_merge_into_a_batch_are_cloned_unless_they_are_made_on_the_way() -> None:
    """q @ k^T over heads that are views of one projection: heads and images do not merge. What scales a factor stores
    it as the product wants it."""
    shape, strides = (2, 3, 5, 8), (2 * 5 * 24, 8, 24, 1)
    for scaled, copies in ((False, 2), (True, 1)):
        p = Program()
        projected = p.op("linear", (2, 5, 24), input=T(p.input(2, 5, 24)), weight=T(p.weight(24, 24)))
        q, k = (p.op("view", shape, input=T(projected)) for _ in range(2))
        for view in (q, k):
            p.graph.specs[p.graph.tensors[view].spec] = TensorSpec(shape, strides=strides)
        q = p.like("relu", q) if scaled else q
        turned = p.op("transpose", (2, 3, 8, 5), input=T(k), dim0=2, dim1=3)
        p.graph.specs[p.graph.tensors[turned].spec] = TensorSpec((2, 3, 8, 5), strides=(*strides[:2], 1, 24))
        found = plan(p.done(p.op("matmul", (2, 3, 5, 5), input=T(q), other=T(turned))))
        assert algorithms(found).count("contiguous_copy") == copies


@pytest.mark.parametrize(
    ("torch", "expected"), [("2.9.1", [(B, B), (2 * B, 2 * B)]), ("2.12.0", [(B, B), (B, 2 * B), (2 * B, 2 * B)])]
)
def test_a_join_whose_parts_others_read_is_made_in_memory(torch: str, expected: list[tuple[int, int]]) -> None:
    """Since 2.12: an operator beside the join that reads a part copies it into its place on the way; before, the join
    is made by whoever reads it, which loads that part once more."""
    p = Program()
    x = p.input(*MAP)
    first, second = p.conv(x), p.conv(x)
    joined = p.op("cat", (2, 256, 4, 4), tensors=[T(first), T(second)], dim=1)
    graph = p.done(p.like("relu", first), p.like("exp", joined))
    found = compiled_plan(graph, Execution.of(batch=2, mode="compile", torch=torch), GPU)
    assert sorted(fused(found)) == expected


@given(programs())
def test_kernels_run_after_the_convolutions_that_they_need(graph: OpGraph) -> None:
    when = {n: i for i, launch in enumerate(plan(graph).launches) for n in launch.nodes}
    needed: list[set[int]] = []
    for index in range(len(graph.nodes)):
        before = graph.predecessors(index)
        needed.append({*before, *(n for b in before for n in needed[b])})
        assert all(when[n] < when[index] for n in needed[index] if graph.nodes[n].op == "aten.conv2d")


@given(programs(), st.sampled_from(["fp32", "fp16"]))
def test_fusing_starts_no_more_kernels_than_eager_mode(graph: OpGraph, dtype: str) -> None:
    eager = lower(replace(graph, memo={}), Execution.of(batch=2, dtype=dtype), GPU)
    assert len(plan(graph, dtype).launches) <= len(eager.launches)


@given(programs())
def test_fusing_moves_no_more_bytes_than_eager_mode(graph: OpGraph) -> None:
    eager = lower(replace(graph, memo={}), Execution.of(batch=2), GPU)
    moved = [sum(p.kernels[launch.kernel].bytes for launch in p.launches) for p in (plan(graph), eager)]
    assert moved[0] <= moved[1]


@pytest.mark.parametrize("hw", ["a100", "epyc-7763"])
def test_an_operator_that_puts_out_a_number_is_lowered(hw: str) -> None:
    torch = pytest.importorskip("torch")
    from costmodel import analyze

    class Asking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 4)
            self.register_buffer("keep", torch.tensor(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.equal(x, x):
                raise ValueError
            return self.head(x).topk(int(self.keep)).values.relu()

    analysis = analyze(Asking(), torch.zeros(2, 8), hw=hw, mode="compile")
    asking = [node.op for node in analysis.record.nodes if not node.outputs]
    assert asking == ["aten.equal", "aten._local_scalar_dense"]
    assert analysis.totals.macs == 2 * 8 * 4 and analysis.latency > 0
