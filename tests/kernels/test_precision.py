"""Dtypes at run time: PyTorch's documented autocast lists on small modules, and torch's own autocast on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.execution import Execution
from costmodel.kernels.precision import assign_dtypes, contraction_dtype
from costmodel.sources.torchvision_ops import make_importable

AMP = Execution.of(dtype="amp_fp16")
LOW, WIDE = "float16", "float32"
IMAGE = torch.empty(2, 16, 8, 8)
ROWS = torch.empty(4, 16)


class Applied(nn.Module):
    """A function of its inputs as a module."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def dtypes(graph, execution=AMP):
    """Operator -> dtypes of its nodes, in program order."""
    found = {}
    for node, types in zip(graph.nodes, assign_dtypes(graph, execution), strict=True):
        found.setdefault(node.op.removeprefix("aten."), []).append(types)
    return found


LINEAR = nn.Linear(16, 16)


# -- the documented lists: "CUDA Ops that can autocast to float16", "... to float32", "promote to the widest" ----------


@pytest.mark.parametrize(
    ("op", "module", "inputs"),
    [
        ("conv2d", nn.Conv2d(16, 4, 3), (IMAGE,)),
        ("linear", LINEAR, (ROWS,)),
        ("matmul", Applied(lambda _, a, b: a @ b), (ROWS, ROWS.T)),
        ("bmm", Applied(lambda _, a, b: torch.bmm(a, b)), (torch.empty(2, 3, 4), torch.empty(2, 4, 5))),
        ("_prelu_kernel", nn.PReLU(), (ROWS,)),  # what prelu is recorded as
        ("conv_transpose2d", nn.ConvTranspose2d(16, 4, 2), (IMAGE,)),
        ("scaled_dot_product_attention", Applied(lambda _, q: F.scaled_dot_product_attention(q, q, q)), (IMAGE,)),
    ],
)
def test_contractions_read_and_write_the_lower_precision(traced, op, module, inputs):
    (types,) = dtypes(traced(module, *inputs))[op]
    assert set(types.inputs) == {LOW} and set(types.outputs) == {LOW}
    assert set(types.had) == {WIDE}
    assert len(types.casts) == len(set(types.casts))


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("pow", lambda m, x: m.lin(x).pow(2)),
        ("exp", lambda m, x: m.lin(x).exp()),
        ("rsqrt", lambda m, x: m.lin(x).rsqrt()),
        ("softplus", lambda m, x: F.softplus(m.lin(x))),
        ("layer_norm", lambda m, x: F.layer_norm(m.lin(x), (16,))),
        ("_euclidean_dist", lambda m, x: torch.cdist(m.lin(x), x)),  # what cdist is recorded as
        ("group_norm", lambda m, x: F.group_norm(m.lin(x), 4)),
    ],
)
def test_operators_of_the_fp32_list_cast_up_with_a_kernel_ahead(traced, op, function):
    (types,) = dtypes(traced(Applied(function, lin=LINEAR), ROWS))[op]
    assert types.outputs == (WIDE,)
    assert types.inputs[0] == WIDE and types.had[0] == LOW and types.casts == (0,)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("softmax", lambda m, x: m.lin(x).softmax(-1)),
        ("sum", lambda m, x: m.lin(x).sum(-1)),
        ("cumsum", lambda m, x: m.lin(x).cumsum(-1)),
    ],
)
def test_softmax_and_sums_widen_in_registers_without_a_cast_kernel(traced, op, function):
    (types,) = dtypes(traced(Applied(function, lin=LINEAR), ROWS))[op]
    assert (types.inputs[0], types.outputs, types.casts) == (LOW, (WIDE,), ())


@pytest.mark.parametrize("op", ["add", "mul", "sub", "div"])
def test_tensors_of_two_widths_promote_to_the_wider_without_a_cast_kernel(traced, op):
    (types,) = dtypes(traced(Applied(lambda m, x: getattr(torch, op)(m.lin(x), x), lin=LINEAR), ROWS))[op]
    assert (types.inputs, types.outputs, types.casts) == ((LOW, WIDE), (WIDE,), ())


@pytest.mark.parametrize("function", [lambda m, x: m.lin(x) * 2.5, lambda m, x: m.lin(x) * m.scale])
def test_scalars_do_not_widen(traced, function):
    scale = nn.Parameter(torch.tensor(2.0))
    module = Applied(function, lin=LINEAR)
    module.scale = scale
    (types,) = dtypes(traced(module, ROWS))["mul"]
    assert types.outputs == (LOW,)


@pytest.mark.parametrize(("op", "function"), [("relu", F.relu), ("gelu", F.gelu), ("tanh", torch.tanh)])
def test_operators_on_no_list_keep_what_they_get(traced, op, function):
    found = dtypes(traced(Applied(lambda m, x: function(m.lin(function(x))), lin=LINEAR), ROWS))[op]
    assert [types.outputs for types in found] == [(WIDE,), (LOW,)]


def test_cat_promotes_to_the_widest(traced):
    (types,) = dtypes(traced(Applied(lambda m, x: torch.cat([m.lin(x), x]), lin=LINEAR), ROWS))["cat"]
    assert types.outputs == (WIDE,)


def test_batch_norm_keeps_the_dtype_of_its_input(traced):
    module = nn.Sequential(nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    first, second = dtypes(traced(module, IMAGE))["batch_norm"]
    assert (first.outputs, second.outputs) == ((WIDE,), (LOW,))
    assert first.casts == second.casts == ()
    assert second.inputs[1:] == (WIDE,) * 4  # weight, bias and both statistics


# -- casts ---------------------------------------------------------------------------------------------------------


def test_a_weight_used_twice_is_cast_once_a_step(traced):
    first, second = dtypes(traced(Applied(lambda m, x: m.lin(m.lin(x)), lin=LINEAR), ROWS))["linear"]
    assert len(first.casts) == 3  # input, weight, bias
    assert second.casts == ()  # its input is in the lower precision already, its weights are in the cache


def test_an_activation_used_twice_is_cast_twice(traced):
    """Autocast's cache keeps leaves that require gradients: weights, never activations."""
    found = dtypes(traced(Applied(lambda m, x: m.a(x) + m.b(x), a=nn.Linear(16, 4), b=nn.Linear(16, 4)), ROWS))
    assert [0 in types.casts for types in found["linear"]] == [True, True]


def test_integers_stay(traced):
    module = Applied(lambda m, tokens: m.lin(m.table(tokens)), table=nn.Embedding(10, 16), lin=LINEAR)
    for execution in (AMP, Execution.of(dtype="fp16")):
        (types,) = dtypes(traced(module, torch.zeros(2, 5, dtype=torch.int64)), execution)["embedding"]
        assert sorted(types.inputs)[-1] == "int64"
        assert types.casts == ()


@pytest.mark.parametrize(("word", "name"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_a_model_moved_to_half_precision_casts_nothing(traced, word, name):
    module = nn.Sequential(LINEAR, nn.LayerNorm(16), nn.Softmax(-1), nn.BatchNorm1d(16))
    every = [t for found in dtypes(traced(module, ROWS), Execution.of(dtype=word)).values() for t in found]
    assert all(t.casts == () for t in every)
    assert {d for t in every for d in (*t.inputs, *t.outputs)} == {name}


@pytest.mark.parametrize("word", ["fp32", "tf32"])
def test_fp32_is_as_traced(traced, word):
    found = assign_dtypes(traced(LINEAR, ROWS), Execution.of(dtype=word))
    assert all(t.as_traced and t.casts == () and set(t.outputs) == {WIDE} for t in found)


# -- timm's fast_norm ------------------------------------------------------------------------------------------------


def norm(traced, layer, **conditions):
    graph = traced(nn.Sequential(LINEAR, layer), ROWS)
    (types,) = dtypes(graph, Execution.of(dtype="amp_fp16", **conditions))["layer_norm"]
    return types


def test_fast_norm_keeps_timms_own_layer_in_the_lower_precision_and_no_other(traced):
    make_importable()
    from timm.layers import LayerNorm

    assert norm(traced, LayerNorm(16), fast_norm=True).outputs == (LOW,)
    assert norm(traced, LayerNorm(16), fast_norm=False).outputs == (WIDE,)
    assert norm(traced, nn.LayerNorm(16), fast_norm=True).outputs == (WIDE,)


def test_fast_norm_runs_timms_rms_norm_of_images_in_the_lower_precision(traced):
    """``fast_rms_norm2d`` switches autocast off: else ``pow`` and ``rsqrt`` would run in fp32."""
    make_importable()
    from timm.layers import RmsNorm2d

    graph = traced(nn.Sequential(nn.Conv2d(16, 16, 1), RmsNorm2d(16)), IMAGE)
    fast, plain = (dtypes(graph, Execution.of(dtype="amp_fp16", fast_norm=on)) for on in (True, False))
    assert {t.outputs for op in ("pow", "mean", "rsqrt", "mul") for t in fast[op]} == {(LOW,)}
    assert [plain[op][0].outputs for op in ("pow", "rsqrt")] == [(WIDE,), (WIDE,)]


def test_linear_attention_of_efficientvit_asks_for_fp32_itself(traced):
    make_importable()
    from timm.models.efficientvit_mit import LiteMLA

    found = dtypes(traced(LiteMLA(16, 16, dim=8), IMAGE))
    assert {t.outputs for t in found["matmul"]} == {(WIDE,)}
    assert found["conv2d"][-1].outputs == (LOW,)  # the projection after it is autocast's again


# -- contractions: TF32 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "dtype", "has_tf32", "expected"),
    [
        ("aten.conv2d", "fp32", True, "tf32"),  # torch.backends.cudnn.allow_tf32 is on by default
        ("aten.lstm", "fp32", True, "tf32"),
        ("aten.linear", "fp32", True, "fp32"),  # torch.backends.cuda.matmul.allow_tf32 is off by default
        ("aten.linear", "tf32", True, "tf32"),
        ("aten.conv2d", "fp32", False, "fp32"),
        ("aten.linear", "tf32", False, "fp32"),
    ],
)
def test_tf32_by_pytorchs_defaults(op, dtype, has_tf32, expected):
    assert contraction_dtype(op, Execution.of(dtype=dtype), "float32", has_tf32) == expected
    assert contraction_dtype(op, Execution.of(dtype=dtype), "float16", has_tf32) == "fp16"


# -- torch's own autocast, where the lists of CPU and CUDA agree -----------------------------------------------------


class Casts(TorchDispatchMode):
    """Counts the casts to bfloat16 and remembers the dtype of each result."""

    def __init__(self):
        super().__init__()
        self.casts, self.results = 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name == "_to_copy" and out.dtype is torch.bfloat16:
            self.casts += 1
        elif isinstance(out, torch.Tensor):
            self.results[name] = str(out.dtype).removeprefix("torch.")
        return out


class Shared(nn.Module):
    """A convolution used twice, a linear layer, a product of two activations, a sum of two widths."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, 8)

    def forward(self, x):
        y = self.conv(self.conv(x)).relu()
        z = self.head(y)
        return torch.matmul(z, y.transpose(2, 3)) + x


def test_casts_and_result_agree_with_torchs_autocast_on_the_cpu(traced):
    module, x = Shared(), torch.rand(2, 4, 8, 8)
    # Gradients stay on: autocast caches the casts only of leaves that require them.
    with torch.autocast("cpu", dtype=torch.bfloat16), Casts() as seen:
        out = module(x)
    graph = traced(module, x)
    types = assign_dtypes(graph, Execution.of(dtype="amp_bf16", batch=2))
    assert sum(len(t.casts) for t in types) == seen.casts
    assert types[-1].outputs == (str(out.dtype).removeprefix("torch."),)
    relu = next(t for n, t in zip(graph.nodes, types, strict=True) if n.op == "aten.relu")
    assert relu.outputs == (seen.results["relu"],)
