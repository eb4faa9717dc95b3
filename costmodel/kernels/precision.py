"""Which dtype every tensor has at run time: ``model.to(dtype)``, autocast's operator lists, casts.

A trace is made in the dtype that the module holds its weights in, mostly fp32. Here its tensors get the dtypes that
PyTorch would give them, node by node, and the casts that PyTorch would launch are listed. Sources: the autocast
reference of PyTorch's documentation ("CUDA Ops that can autocast to float16 / float32", "promote to the widest input
type") and aten/src/ATen/autocast_mode.h, torch 2.13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from costmodel.execution import Execution, NodePhase, Precision, Software
from costmodel.execution.precision import torch_dtype
from costmodel.graph import OpGraph
from costmodel.kernels.gradients import Gradients
from costmodel.kernels.node_dtypes import FLOATING, LOW, NodeDtypes, weight_of
from costmodel.nodes import OpNode
from costmodel.tensor import CACHED, Role

__all__ = ["assign_dtypes", "casts_nothing", "contraction_dtype", "converted"]

#: Run in the lower precision: floating inputs, weights included, are cast to it.
LOWER = frozenset(
    f"aten.{name}"
    for name in """conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution
    _convolution prelu _prelu_kernel addmm addmv addr matmul einsum mm mv linalg_vecdot linalg_multi_dot linear addbmm
    baddbmm bmm chain_matmul _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    lstm gru rnn_tanh rnn_relu scaled_dot_product_attention _scaled_dot_product_flash_attention
    _scaled_dot_product_efficient_attention _cudnn_rnn""".split()
)

#: Run in fp32: lower-precision inputs are cast up by a kernel of their own.
FP32 = frozenset(
    f"aten.{name}"
    for name in """__rpow__ __rdiv__ __rtruediv__ acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal
    rsqrt sinh tan pow softplus layer_norm native_layer_norm group_norm native_group_norm cosine_similarity cdist
    _euclidean_dist _cdist_forward dist renorm logsumexp nuclear_norm pdist
    smooth_l1_loss mse_loss nll_loss l1_loss huber_loss""".split()
)

#: Run in fp32, but read the lower precision and convert in registers: only the result is wide.
FP32_OUT = frozenset(
    f"aten.{name}"
    for name in (
        "softmax _softmax log_softmax _log_softmax _safe_softmax cumprod cumsum prod sum norm linalg_vector_norm"
    ).split()
)

#: Normalizations that timm can keep in the lower precision (``timm.layers.fast_norm``).
FAST_NORMS = frozenset(
    {"aten.layer_norm", "aten.native_layer_norm", "aten.group_norm", "aten.native_group_norm", "aten.rms_norm"}
)

#: Normalization reads fp32 statistics and weights beside activations of the lower precision.
MIXED = frozenset(
    {"aten.batch_norm", "aten.instance_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm"}
)

#: Layers of timm made of plain operators that ``fast_norm`` runs with autocast switched off, weight in the lower
#: precision: ``timm.layers.fast_norm.fast_rms_norm2d``.
FAST_NORM_LAYERS = frozenset({"timm.layers.norm.RmsNorm2d", "timm.layers.norm_act.RmsNormAct2d"})

#: Layers that switch autocast off and ask for fp32 themselves: the linear attention of EfficientViT (MIT).
FP32_LAYERS = frozenset({"timm.models.efficientvit_mit.LiteMLA"})


#: Run on integers, whatever the dtype of the operands: inputs are quantized inside.
_INT8 = frozenset({"aten._int_mm", "quantized.linear_dynamic", "quantized.linear_relu_dynamic"})


def contraction_dtype(op: str, execution: Execution, operand: str, has_tf32: bool) -> str:
    """Word for the arithmetic of a contraction: fp32, tf32, fp16, bf16 or fp64.

    PyTorch's defaults: ``torch.backends.cudnn.allow_tf32`` is on (convolutions, recurrent layers),
    ``torch.backends.cuda.matmul.allow_tf32`` is off.
    """
    if op in _INT8:
        return "int8"
    if operand == "float32":
        through_cudnn = "conv" in op or op in {
            "aten.lstm",
            "aten.gru",
            "aten.rnn_tanh",
            "aten.rnn_relu",
            "aten._cudnn_rnn",
            "aten._cudnn_rnn_backward",
        }
        allowed = execution.precision.products == "tf32" or execution.software.tf32_matmul
        return "tf32" if has_tf32 and (allowed or through_cudnn) else "fp32"
    return {"float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}.get(operand, "fp32")


def casts_nothing(graph: OpGraph, node: OpNode, types: NodeDtypes) -> bool:
    """Whether a node casts in the trace and finds the wanted dtype in the run: ``x.float()`` of a model that holds its
    weights in bf16, run in fp32, gives ``x`` itself."""
    if node.op != "aten._to_copy" or types.inputs[:1] != types.outputs[:1]:
        return False
    had, got = (graph.specs[graph.tensors[t].spec].dtype for t in (node.inputs[0], node.outputs[0]))
    return had != got


def assign_dtypes(graph: OpGraph, execution: Execution) -> list[NodeDtypes]:
    """Run-time dtypes of every node, in program order."""
    traced = [graph.specs[t.spec].dtype for t in graph.tensors]
    precision = execution.precision
    same = precision.keeps(graph.own_dtype)
    run = converted(graph, precision)
    if precision.autocast or any(node.autocast in LOW for node in graph.nodes):
        low = torch_dtype(precision.autocast) if precision.autocast else ""
        return _Autocast(graph, low, traced, run, execution.software).assign()
    return [
        NodeDtypes(tuple(run[t] for t in n.inputs), tuple(run[t] for t in n.outputs), as_traced=same)
        for n in graph.nodes
    ]


def converted(graph: OpGraph, precision: Precision) -> list[str]:
    """Run-time dtype of every tensor of a model that was converted as a whole, as ``model.to(dtype)`` does.

    What its forward pass itself puts into another dtype than that of the weights (``x.float()``) stays there.
    """
    traced = [graph.specs[t.spec].dtype for t in graph.tensors]
    if precision.keeps(graph.own_dtype):
        return traced
    kept = dict.fromkeys((Role.PARAMETER, Role.BUFFER, Role.STATE), precision.weights)
    stored = [torch_dtype(kept.get(graph.specs[t.spec].role, precision.activations)) for t in graph.tensors]
    own = graph.own_dtype
    if precision.narrow_cache:
        kept_narrow = {graph.tensors[i].storage for i in graph.inputs if graph.tensors[i].name.startswith(CACHED)}
        stored = [
            precision.cache_dtype if tensor.storage in kept_narrow else dtype
            for tensor, dtype in zip(graph.tensors, stored, strict=True)
        ]
    return [new if old == own else old for old, new in zip(traced, stored, strict=True)]


class _Autocast:
    """Follows the dtypes through the graph as ``torch.autocast`` sets them; a weight's cast is kept for the step, but
    what a checkpoint runs again is in an autocast of its own, with a cache of its own
    (torch/utils/checkpoint.py, ``recompute_fn``), so that each part casts its weights once more.

    ``low`` is the dtype of the autocast around the model, "" for none; the model's own regions go before it. Where
    they switch autocast off, products are in fp32: what enters is converted there, by a ``.float()`` that an fp32
    trace does not show.
    """

    def __init__(
        self, graph: OpGraph, low: str, traced: Sequence[str], stored: Sequence[str], software: Software
    ) -> None:
        self.graph, self.low, self.traced, self.software = graph, low, traced, software
        self.run, self.own = list(stored), graph.own_dtype
        self.cast_weights: set[int] = set()

    def assign(self) -> list[NodeDtypes]:
        gradients = Gradients(self.graph, self.traced, self.run)
        found: list[NodeDtypes] = []
        again = False
        for index, node in enumerate(self.graph.nodes):
            before, again = again, gradients.is_recomputed(node)
            if again and not before:
                self.cast_weights = set()
            if node.phase is NodePhase.BACKWARD and not again:
                found.append(gradients.node(index, found))
            elif node.phase is NodePhase.OPTIMIZER:
                found.append(self._as_stored(node))
            else:
                found.append(self._node(self._in_its_region(node)))
        return found

    def _in_its_region(self, node: OpNode) -> OpNode:
        """A node that a checkpoint runs again, under the autocast of the first time: a trace, which is made without
        autocast, sees the checkpoint restore that."""
        if node.phase is not NodePhase.BACKWARD:
            return node
        return replace(node, autocast=self._regions.get((node.module, node.op), ""))

    @cached_property
    def _regions(self) -> dict[tuple[str, str], str]:
        """Autocast region by module and operator, of the forward pass."""
        return {(n.module, n.op): n.autocast for n in self.graph.nodes if n.phase is NodePhase.FORWARD}

    def _as_stored(self, node: OpNode) -> NodeDtypes:
        """An optimizer's node: parameters, gradients and state as they lie in memory."""
        return NodeDtypes(tuple(self.run[t] for t in node.inputs), tuple(self.run[t] for t in node.outputs))

    def _node(self, node: OpNode) -> NodeDtypes:
        op, inputs, outputs = node.op, node.inputs, node.outputs
        have = tuple(self.run[t] for t in inputs)
        wide = tuple("float32" if d in LOW else d for d in have)
        low = "" if node.autocast == "off" else node.autocast or self.low
        if op in LOWER and (not low or node.module_type in FP32_LAYERS):
            # Operands of one dtype, as a model that was converted as a whole has them, are left as they are.
            as_is = not self.low and "float32" not in have
            want, result = (have, self._promoted(inputs, have)) if as_is else (wide, "float32")
        elif low and (op in LOWER or (op in FAST_NORMS and self._is_fast_norm(node)) or self._is_fast_layer(node)):
            want = tuple(low if d in FLOATING else d for d in have)
            result = low
        elif op in FP32 and (low or self.low):
            want, result = wide, "float32"
        elif op in FP32_OUT and (low or self.low):
            want, result = have, "float32"
        else:
            want = have
            result = have[0] if op in MIXED and have else self._promoted(inputs, have)
        casts = tuple(
            i for i, (a, b) in enumerate(zip(have, want, strict=True)) if a != b and self._must_cast(inputs[i])
        )
        # Statistics that a normalization saves for the backward pass stay in fp32.
        written = tuple(self._output(t, "float32" if i and "_norm" in op else result) for i, t in enumerate(outputs))
        return NodeDtypes(want, written, casts, have if casts else ())

    def _is_fast_layer(self, node: OpNode) -> bool:
        return self.software.fast_norm and node.module_type in FAST_NORM_LAYERS

    def _is_fast_norm(self, node: OpNode) -> bool:
        """Whether timm's own layer runs this normalization, with ``fast_norm`` switched on.

        Until timm 1.0.16 (of the time of torch 2.6) vision transformers were built with ``nn.LayerNorm``.
        """
        if not self.software.fast_norm or not node.module_type.startswith("timm."):
            return False
        parent = node.module.rpartition(".")[0]
        in_vit = parent in self._vit_modules or (not parent and bool(self._vit_modules))
        return self.software.at_least_torch(2, 7) or not in_vit

    @cached_property
    def _vit_modules(self) -> frozenset[str]:
        kinds = ("timm.models.vision_transformer.", "timm.models.deit.")
        return frozenset(n.module for n in self.graph.nodes if n.module_type.startswith(kinds))

    def _must_cast(self, tensor: int) -> bool:
        """Whether a cast kernel runs; a weight is cast once a step and then taken from autocast's cache."""
        weight = weight_of(self.graph, tensor)
        if weight is None:
            return True
        if weight in self.cast_weights:
            return False
        self.cast_weights.add(weight)
        return True

    def _promoted(self, inputs: tuple[int, ...], have: tuple[str, ...]) -> str:
        """torch's type promotion: tensors with dimensions outrank scalars; float32 outranks the lower precision."""
        ranked = [d for t, d in zip(inputs, have, strict=True) if self.graph.specs[self.graph.tensors[t].spec].shape]
        kinds = set(ranked or have) & FLOATING
        return kinds.pop() if len(kinds) == 1 else "float32"

    def _output(self, tensor: int, result: str) -> str:
        if self.traced[tensor] in ("float32", self.own):
            self.run[tensor] = result
        return self.run[tensor]
