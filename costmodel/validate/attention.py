"""Rows of attention layers of serving libraries: ``device,op,dtype,batch,q_len,kv_len,heads,kv_heads,head_dim,...``.

Such files (vLLM, SGLang, TensorRT-LLM by graph replay) name the framework and its backend. What a row times is a call
of the framework's layer: where it keeps a cache, keys and values of the new tokens are written there by a kernel of its
own before the attention. ``context`` is a causal prompt, ``generation`` one query a sequence against a cache and
``encoder`` attention of all to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from costmodel.devices.attention import AttentionKernels
from costmodel.errors import InputError
from costmodel.hardware import HardwareProfile
from costmodel.kernels import Kernel, KernelPlan, Launch
from costmodel.kernels.attention import in_library
from costmodel.kernels.shapes import Attention, Rows
from costmodel.validate.cells import Flags, RowError, checked_word, latency, size, text
from costmodel.validate.rows import OperatorRow

__all__ = ["CAUSAL", "OPS", "AttentionLayer", "attention_plan", "attention_row", "layer_of", "new_token_bytes"]

#: Operators of such files.
OPS = ("sdpa_context", "sdpa_encoder", "sdpa_generation")
CAUSAL = "sdpa_context"


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Which kernels a backend runs.

    ``has_cache``: a kernel before it writes keys and values of the new tokens to the cache; ``turns_queries``: the same
    kernel applies rotary positions to the queries; ``schedules``: a kernel before it shares steps out over the units.
    """

    algorithm: str
    has_cache: bool = True
    turns_queries: bool = False
    schedules: bool = False


#: (operator, backend) -> what runs.
_LAYERS: Mapping[tuple[str, str], AttentionLayer] = {
    ("sdpa_context", "vllm_flash_attn"): AttentionLayer("flash_attention_paged"),
    ("sdpa_context", "vllm_flash_attn_fa2"): AttentionLayer("flash_attention_paged"),
    ("sdpa_context", "vllm_flash_attn_fa3"): AttentionLayer("flash_attention_3"),
    ("sdpa_context", "flash_attention"): AttentionLayer("flash_attention_3_mma", schedules=True),
    ("sdpa_context", "torch_flow"): AttentionLayer("fmha", turns_queries=True),
    ("sdpa_encoder", "vllm_vit_flash_attn_fa2"): AttentionLayer("flash_attention_varlen", has_cache=False),
    ("sdpa_encoder", "vllm_vit_flash_attn_fa3"): AttentionLayer("flash_attention_3", has_cache=False),
    ("sdpa_generation", "vllm_flash_attn"): AttentionLayer("flash_attention_paged"),
    ("sdpa_generation", "vllm_flash_attn_fa2"): AttentionLayer("flash_attention_paged"),
    ("sdpa_generation", "vllm_flash_attn_fa3"): AttentionLayer("flash_attention_3"),
    ("sdpa_generation", "flash_attention"): AttentionLayer("flash_attention_3_mma", schedules=True),
}
#: Rows that cannot be what their columns say.
_IMPOSSIBLE = {
    (
        "sdpa_generation",
        "torch_flow",
    ): "TensorRT-LLM's caches were not read whole: up to 1.7 times the pin rate of DRAM",
}


def layer_of(op: str, library: str) -> AttentionLayer:
    """What runs in an attention layer of a ``library`` ("vllm 0.14.0 vllm_flash_attn"). Raises RowError if unknown.

    >>> layer_of("sdpa_context", "vllm 0.14.0 vllm_flash_attn").algorithm
    'flash_attention_paged'
    """
    key = op, library.rpartition(" ")[2]
    if key in _IMPOSSIBLE:
        raise RowError(_IMPOSSIBLE[key])
    layer = _LAYERS.get(key)
    if layer is None:
        raise RowError(f"no kernels are known for {op} in {library or 'a library without a name'}")
    return layer


def attention_row(record: Mapping[str, str], file: str, line: int, flags: Flags) -> OperatorRow:
    """One row; ``input`` are the queries [batch, heads, q_len, head_dim], ``other`` the keys, as the values are.

    Raises RowError when the row cannot be used.
    """
    op = text(record, "op")
    if op not in OPS:
        raise RowError(f"unknown operator: {op}")
    framework, kernel = (text(record, name, "-") for name in ("framework", "kernel"))
    library = f"{framework} {kernel}"
    batch, queries, keys, heads, kv_heads, width = (
        size(record, name) for name in ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
    )
    if heads % kv_heads:
        raise RowError("heads is no multiple of kv_heads")
    return OperatorRow(
        file=file,
        line=line,
        device=text(record, "device", flags.device),
        op=op,
        dtype=checked_word(record, "dtype", flags.dtype),
        input=(batch, heads, queries, width),
        other=(batch, kv_heads, keys, width),
        latency_s=latency(record, "latency_us", 1e-6),
        algorithm=layer_of(op, library).algorithm,
        timing=text(record, "timing", "kernel"),
        library=library,
    )


def new_token_bytes(row: OperatorRow, item_bytes: int = 2) -> int:
    """B of keys and values of the tokens that are new in a row: those of the queries."""
    batch, kv_heads, _, width = row.other
    return 2 * batch * kv_heads * row.input[2] * width * item_bytes


def attention_plan(plan: KernelPlan, row: OperatorRow, hardware: HardwareProfile) -> KernelPlan:
    """The plan of a row's layer: ``plan`` is that of plain attention.

    Raises InputError where the machine's generation has no such kernels.
    """
    layer = layer_of(row.op, row.library)
    found: AttentionKernels | None = hardware.gpu.attention_kernels(layer.algorithm)
    shape = plan.kernels[-1].shape
    if found is None or not isinstance(shape, Attention):
        raise InputError(f"no {layer.algorithm} kernels are known of {hardware.generation.title}")
    run: list[Kernel] = []
    if layer.has_cache:
        moved = new_token_bytes(row)
        queries = int(plan.kernels[-1].bytes_written) if layer.turns_queries else 0
        tokens, elements = row.input[0] * row.input[2], (moved + queries) // 2
        run.append(
            Kernel(
                op=plan.kernels[-1].op,
                algorithm="cache_write",
                access="cache_write",
                bytes_read=moved + queries,
                bytes_written=moved + queries,
                elements=elements,
                shape=Rows(elements // tokens),
            )
        )
    if layer.schedules:  # one block of threads that reads lengths (FlashAttention 3: prepare_varlen_num_blocks)
        run.append(Kernel(op=plan.kernels[-1].op, algorithm="schedule", elements=row.input[0]))
    run.extend(in_library(plan.kernels[-1], found))
    launch = plan.launches[-1]
    launches = tuple(Launch(index, launch.nodes, launch.reads, launch.writes) for index in range(len(run)))
    return replace(plan, kernels=tuple(run), launches=launches)
