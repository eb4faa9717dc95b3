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
#: All rows are of 16-bit operands [B].
_ITEM_BYTES = 2


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Which kernels a backend runs.

    ``has_cache``: a kernel before it writes keys and values of the new tokens to the cache; ``turns_queries``: the same
    kernel applies rotary positions to the queries; ``schedules``: a kernel before it shares steps out over the units.
    ``one_part``: the rows read half of their cache from DRAM; all of it would be up to 1.7 times the pin rate. Taken
    as values that lie where the keys do: they are in L2 when they are read, as long as the keys are.
    """

    algorithm: str
    has_cache: bool = True
    turns_queries: bool = False
    schedules: bool = False
    one_part: bool = False


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
_XQA = AttentionLayer("xqa", turns_queries=True, one_part=True)
_MASKED = AttentionLayer("masked_attention", has_cache=False, one_part=True)
#: TensorRT-LLM takes XQA for at most so many heads that share keys and values, where blocks of threads of so many
#: tokens, four times counted, are as many as the units (``DecoderXQAImplPrecompiled``: ``mayHavePerfGain``).
_XQA_HEADS, _XQA_TOKENS, _XQA_FACTOR = 32, 128, 4
#: Blocks of threads of TensorRT-LLM's masked attention that a unit holds: keys of those that run lie in L2 up to 256
#: tokens on an A100, which is where the rows change.
_MASKED_RESIDENT = 2
#: Prompts alone, by tiles like those of FlashAttention 3, miss by 39 % and more at the 90th percentile.
_FA4 = (
    "FlashAttention 4 at heads of 512 on Hopper: 2 to 4 µs a query and sequence, longer against 2 keys than against "
    "512: no rule of sizes is known"
)


def layer_of(op: str, library: str, sizes: tuple[int, int, int, int] | None = None, units: int = 108) -> AttentionLayer:
    """What runs in an attention layer of a ``library`` ("vllm 0.14.0 vllm_flash_attn"). Raises RowError if unknown.

    ``sizes`` are sequences, heads, heads of keys and values, and keys, by which TensorRT-LLM chooses.

    >>> layer_of("sdpa_context", "vllm 0.14.0 vllm_flash_attn").algorithm
    'flash_attention_paged'
    >>> layer_of("sdpa_generation", "trtllm 1.0.0 torch_flow", (1, 32, 1, 2048)).algorithm        # 16 blocks * 4 < 108
    'masked_attention'
    >>> layer_of("sdpa_generation", "trtllm 1.0.0 torch_flow", (1, 32, 1, 4096)).algorithm
    'xqa'
    """
    key = op, library.rpartition(" ")[2]
    if key == ("sdpa_generation", "torch_flow") and sizes is not None:
        sequences, heads, kv_heads, keys = sizes
        blocks = sequences * kv_heads * max(1, keys // _XQA_TOKENS)
        packs = 1 < heads // kv_heads <= _XQA_HEADS
        return _XQA if packs and _XQA_FACTOR * blocks >= units else _MASKED
    if key[1] == "vllm_flash_attn_fa4":
        raise RowError(_FA4)
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
        algorithm=layer_of(op, library, (batch, heads, kv_heads, keys)).algorithm,
        timing=text(record, "timing", "kernel"),
        library=library,
    )


def _keys_stay(kernels: AttentionKernels, hardware: HardwareProfile, head_bytes: int) -> bool:
    """Whether the keys of all heads that are worked on at once lie in L2 until the values are read."""
    level = hardware.find_memory_level("l2")
    capacity_bytes = 0 if level is None or level.capacity_bytes is None else level.capacity_bytes / kernels.l2_copies
    return _MASKED_RESIDENT * hardware.unit_count * head_bytes <= capacity_bytes


def new_token_bytes(row: OperatorRow, item_bytes: int = _ITEM_BYTES) -> int:
    """B of keys and values of the tokens that are new in a row: those of the queries."""
    batch, kv_heads, _, width = row.other
    return 2 * batch * kv_heads * row.input[2] * width * item_bytes


def attention_plan(plan: KernelPlan, row: OperatorRow, hardware: HardwareProfile) -> KernelPlan:
    """The plan of a row's layer: ``plan`` is that of plain attention.

    Raises InputError where the machine's generation has no such kernels.
    """
    batch, kv_heads, keys, width = row.other
    layer = layer_of(row.op, row.library, (batch, row.input[1], kv_heads, keys), hardware.unit_count)
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
    attention = plan.kernels[-1]
    if layer.one_part and (layer is _XQA or _keys_stay(found, hardware, keys * width * _ITEM_BYTES)):
        attention = replace(attention, bytes_read=attention.bytes_read - batch * kv_heads * keys * width * _ITEM_BYTES)
    run.extend(in_library(attention, found))
    launch = plan.launches[-1]
    launches = tuple(Launch(index, launch.nodes, launch.reads, launch.writes) for index in range(len(run)))
    return replace(plan, kernels=tuple(run), launches=launches)
