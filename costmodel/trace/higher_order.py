"""Operators that take functions: FlexAttention, ``torch.cond``, ``while_loop``, ``scan``, ``map``.

A loop is recorded as what it runs, step by step, where its number of steps is known. Of a branch whose predicate is
not known both sides are recorded, and the dearer one is kept, with a note. FlexAttention is one node, whose argument
``pairs`` says how many pairs of query and key its block mask lets through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch._C import DispatchKey

from costmodel.errors import TraceError
from costmodel.formulas import cost_or_default
from costmodel.tensor import Role, TensorSpec

if TYPE_CHECKING:
    from costmodel.trace.recorder import Recorder

__all__ = ["run_higher_order"]

#: Steps of a loop that are recorded one by one.
MOST_STEPS = 4096

#: Names of the operators that apply a function to every row: the position of the arguments whose rows they are.
_ROWS = {"map_impl": 1, "map": 1, "scan": 2, "associative_scan": 1}


def run_higher_order(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a ``HigherOrderOperator`` that reached the recorder, recording what it does.

    Raises TraceError where how much it does depends on values, or where no rule says what it does.
    """
    with recorder.device:  # the mode is put aside while an operator is handled; the model's functions need it
        name = func._name
        if name == "cond":
            return _cond(recorder, *args, **kwargs)
        if name == "while_loop":
            return _while_loop(recorder, *args, **kwargs)
        if name == "flex_attention":
            return _flex_attention(recorder, *args, **kwargs)
        if name in _ROWS:
            _check_rows(name, args[_ROWS[name]])
        if name == "scan":
            from torch._higher_order_ops.scan import generic_scan

            function, init, rows, *more = args
            with recorder:
                return generic_scan(
                    function, init, rows, additional_inputs=kwargs.get("additional_inputs", *more or ((),))
                )
        plain = func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
        if plain is None:
            raise TraceError(f"nothing is known of the operator {name}, which takes functions")
        with recorder:
            return plain(*args, **kwargs)


def _check_rows(name: str, rows: Any) -> None:
    steps = max((int(t.shape[0]) for t in rows if isinstance(t, torch.Tensor)), default=0)
    if steps > MOST_STEPS:
        raise TraceError(f"{name} takes {steps} steps, one for each row: more than the {MOST_STEPS} that are recorded")


def _known(recorder: Recorder, predicate: Any) -> bool | None:
    """What a predicate says, or None where that depends on values that are not known."""
    if not isinstance(predicate, torch.Tensor):
        return bool(predicate)
    if not predicate.is_meta:
        return bool(predicate.item())
    try:
        with recorder:
            return bool(predicate.item())
    except (TraceError, RuntimeError):
        return None


def _cond(recorder: Recorder, pred: Any, true_fn: Any, false_fn: Any, operands: Any) -> Any:
    """The branch taken where the predicate is known, else the dearer one."""
    taken = _known(recorder, pred)
    if taken is not None:
        with recorder:
            return (true_fn if taken else false_fn)(*operands)
    start = recorder.mark()
    with recorder:
        true_fn(*operands)
    if_true = _work(recorder, start)
    recorder.rollback(start)
    with recorder:
        other = false_fn(*operands)
    if_false = _work(recorder, start)
    dearer = "true" if if_true >= if_false else "false"
    where = recorder.modules[-1][0] or "the model"
    recorder.note(
        f"torch.cond in {where}: which branch is taken is not known; the dearer one, that of {dearer}, is counted"
    )
    if if_false > if_true:
        return other
    recorder.rollback(start)
    with recorder:
        return true_fn(*operands)


def _work(recorder: Recorder, start: Any) -> tuple[int, int, int]:
    """(FLOPs of contractions, other FLOPs, bytes) of what was recorded since the mark ``start``."""
    costs = [_cost(recorder, node) for node in recorder.trace.nodes[start.nodes :]]
    return (
        sum(c.matrix_flops for c in costs),
        sum(c.vector_flops for c in costs),
        sum(c.bytes_read + c.bytes_written for c in costs),
    )


def _cost(recorder: Recorder, node: Any) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(plain(v) for v in value)
        if not hasattr(value, "index") or isinstance(value, (str, tuple)):
            return value
        raw = recorder.trace.tensors[value.index]
        return TensorSpec(raw.shape, raw.dtype, Role(raw.role))

    outputs = tuple(plain(o) for o in node.outputs)
    arguments = {name: plain(value) for name, value in node.arguments.items()}
    return cost_or_default(node.op, arguments, outputs[0] if len(outputs) == 1 else outputs)


def _while_loop(
    recorder: Recorder, cond_fn: Any, body_fn: Any, carried_inputs: Any, additional_inputs: Any = ()
) -> Any:
    """Every step that the loop takes, while its condition is known."""
    carried = tuple(carried_inputs)
    for step in range(MOST_STEPS):
        with recorder:
            predicate = cond_fn(*carried, *additional_inputs)
        goes_on = _known(recorder, predicate)
        if goes_on is None:
            raise TraceError(f"whether a while_loop goes on after step {step} depends on the values of a tensor")
        if not goes_on:
            return carried
        with recorder:
            carried = tuple(body_fn(*carried, *additional_inputs))
    raise TraceError(f"a while_loop takes more than the {MOST_STEPS} steps that are recorded")


# -- FlexAttention ------------------------------------------------------------------------------


def _flex_attention(
    recorder: Recorder,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Any,
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: Any,
    score_mod_other_buffers: tuple[Any, ...] = (),
    mask_mod_other_buffers: tuple[Any, ...] = (),
) -> Any:
    """One node of the fused kernel that ``torch.compile`` makes: outputs (out, logsumexp, maximal scores)."""
    batch, heads, queries, _ = query.shape
    pairs, mask_heads = _pairs(recorder, block_mask, queries, key.shape[2])
    arguments = {
        "query": query,
        "key": key,
        "value": value,
        "pairs": pairs,
        "mask_heads": mask_heads,
        "score_flops": _score_flops(recorder, query, score_mod, score_mod_other_buffers),
    }
    out = query.new_empty(batch, heads, queries, value.shape[-1], device="meta")
    statistics = [query.new_empty(batch, heads, queries, dtype=torch.float32, device="meta") for _ in range(2)]
    recorder.note("flex_attention is analyzed as the fused kernel that torch.compile makes of it")
    recorder.record_call("higher_order.flex_attention", arguments, (out,))
    for tensor in statistics:
        recorder.add(tensor, "activation")
    return (out, *statistics)


def _pairs(recorder: Recorder, block_mask: tuple[Any, ...], queries: int, keys: int) -> tuple[int | None, int]:
    """Pairs of query and key in the blocks that the mask lets through, over all of its own images and heads.

    (None, 1) where there is no mask. Blocks at the edge count what lies within the sequences.
    """
    count, index, full_count, full_index = block_mask[2:6]
    size_q, size_kv = block_mask[-3:-1]
    if size_q >= queries and size_kv >= keys:
        return None, 1
    given = [t for t in (count, index, full_count, full_index) if t is not None]
    known = [value for t in given if (value := recorder.value_of(t)) is not None]
    if len(known) < len(given):
        recorder.note("the block mask of flex_attention is not known before it runs: every pair is counted")
        return None, 1
    pairs = 0
    for counts, indices in zip(known[::2], known[1::2], strict=True):
        rows = torch.arange(counts.shape[-1])
        height = (queries - rows * size_q).clamp(max=size_q)
        width = (keys - indices.to(torch.int64) * size_kv).clamp(min=0, max=size_kv)
        counted = torch.arange(indices.shape[-1]) < counts[..., None]
        pairs += int(((width * counted).sum(-1) * height).sum())
    return pairs, int(known[0].shape[:-1].numel())


def _score_flops(recorder: Recorder, query: torch.Tensor, score_mod: Any, buffers: tuple[Any, ...]) -> int:
    """Arithmetic of ``score_mod`` on one score [FLOP]; that on indices is none."""
    start = recorder.mark()
    score = query.new_empty((), device="meta")
    indices = [torch.empty((), dtype=torch.int32, device="meta") for _ in range(4)]
    try:
        with recorder:
            score_mod(score, *indices, *buffers)
        nodes = recorder.trace.nodes[start.nodes :]
        floating = [n for n in nodes if all("float" in recorder.trace.tensors[o.index].dtype for o in n.outputs)]
        return int(sum(_cost(recorder, node).vector_flops for node in floating))
    except (TraceError, RuntimeError) as error:
        recorder.note(f"what score_mod of flex_attention computes is not counted: {str(error).splitlines()[0]}")
        return 0
    finally:
        recorder.rollback(start)
