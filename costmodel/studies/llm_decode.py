"""A step of decoding: why it is memory-bound, when it stops being so, what int4 buys, when the cache rules."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from costmodel.analysis import Analysis
from costmodel.generation import cache_traffic
from costmodel.generation.run import Generation, sampled
from costmodel.report.columns import number_column, quantity_column, share_column, text_column
from costmodel.report.document import Code, Document, Figure, Notes, Paragraph, Table
from costmodel.report.figures import lines
from costmodel.studies import left_out
from costmodel.studies.bench import Bench
from costmodel.studies.registry import Report, study
from costmodel.studies.words import listed, macs, percent, seconds, times
from costmodel.units import format_bytes

__all__ = ["report"]

MODEL, NAME = "hf:llama", "LLaMA-7B"
MACHINES = ("a100", "l40s", "h100")
WEIGHTS = ("dense", "int8", "int4")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXT = 1024
_SHORT = 64


class Published(NamedTuple):
    """Tokens a second that others have measured: one sequence, 2,048 tokens after a prompt of ``seq_len``."""

    name: str
    sizes: str
    seq_len: int
    weights: str
    tokens_per_s: float


_05B = "hidden_size=896,intermediate_size=4864,num_hidden_layers=24,num_attention_heads=14,num_key_value_heads=2,"
_05B += "tie_word_embeddings=True"
_3B = "hidden_size=2048,intermediate_size=11008,num_hidden_layers=36,num_attention_heads=16,num_key_value_heads=2,"
_3B += "tie_word_embeddings=True"
_14B = "hidden_size=5120,intermediate_size=13824,num_hidden_layers=48,num_attention_heads=40,num_key_value_heads=8,"
_14B += "vocab_size=152064"
#: Qwen2.5's published speed with vLLM on one A100 80 GB: what its documentation prints.
PUBLISHED = (
    Published("Qwen2.5-0.5B", _05B, 1, "dense", 311.55),
    Published("Qwen2.5-0.5B", _05B, 1, "int4", 260.93),
    Published("Qwen2.5-3B", _3B, 1, "dense", 127.61),
    Published("Qwen2.5-3B", _3B, 1, "int4", 168.20),
    Published("Qwen2.5-14B", _14B, 1, "dense", 46.30),
    Published("Qwen2.5-14B", _14B, 1, "int4", 98.02),
    Published("Qwen2.5-14B", _14B, 30720, "dense", 37.18),
    Published("Qwen2.5-14B", _14B, 30720, "int4", 60.91),
)
SOURCE = "Qwen2.5 Speed Benchmark, qwen.readthedocs.io: vLLM, PyTorch 2.3.1, A100 80 GB, GPTQ for int4"


@study("llm_decode")
def report(bench: Bench) -> Report:
    """One token at a time: bytes, not FLOPs."""
    return Report(
        (_opening(bench), _machines(bench), _batches(bench), _cache(bench), _measured(bench)),
        {"llm_decode_batches.svg": _figure(bench)},
    )


def _step(bench: Bench, hw: str, weights: str = "dense", batch: int = 1, context: int = CONTEXT) -> Analysis:
    return bench.analysis(
        MODEL, hw=hw, batch=batch, dtype="bf16", mode="serving", phase="decode", weights=weights, context=context
    )


def _opening(bench: Bench) -> Document:
    one = _step(bench, "a100")
    found, traffic = bench.split(one), cache_traffic(one)
    at_pin = traffic.weight_bytes / one.hardware.dram_bytes_per_s
    text = (
        f"A token of {NAME} is {macs(one.totals.macs)}: {seconds(found.flops_alone_s)} at the bf16 peak of an A100. "
        f"A step of decoding takes {seconds(one.latency)}, {times(one.latency / found.flops_alone_s)} as long, because "
        f"{format_bytes(traffic.weight_bytes)} of weights must be read for it, which takes {seconds(at_pin)} at the "
        f"rate of the memory's pins and is {percent(at_pin / one.latency)} of the step. FLOPs say nothing of this: "
        "what a step costs is bytes, and what it gives for them is as many tokens as there are sequences."
    )
    how = (
        "Nothing here was run. The model is transformers' default configuration of its type, traced with a real cache "
        f"of {CONTEXT:,} tokens on the meta device, and timed as a serving library runs it (--mode serving): pages of "
        "a cache, merged projections, a captured step. Written by costmodel report llm_decode; "
        "benchmarks/decode_accuracy.py holds such predictions against every row of a public measurement."
    )
    command = "costmodel analyze hf:llama --hw a100 --dtype bf16 --mode serving --phase decode --context 1024"
    figure = Figure(
        "figures/llm_decode_batches.svg",
        f"Tokens per second over the batch: {NAME}, weights in bf16 and in 4 bits",
        "Lines are straight while weights are what is read, and bend where arithmetic or the cache takes over.",
    )
    return Document("Writing a token: bytes, not FLOPs", (Paragraph(text), figure, Code(command), Paragraph(how)))


def _machines(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = [
        {
            "hw": step.hardware.title, "weights": weights, "step": step.latency, "rate": 1 / step.latency,
            "read": cache_traffic(step).weight_bytes, "energy": step.totals.energy_j,
            "gain": _step(bench, hw).latency / step.latency,
        }
        for hw in MACHINES
        for weights in WEIGHTS
        for step in [_step(bench, hw, weights)]
    ]  # fmt: skip
    table = Table(
        columns=(
            text_column("hw", "machine"),
            text_column("weights", "weights"),
            quantity_column("step", "step", "s", [row["step"] for row in rows], decimals=2),
            number_column("rate", "tokens/s", decimals=0),
            quantity_column("read", "weights read", "B", [row["read"] for row in rows], decimals=2),
            number_column("gain", "faster than bf16", decimals=2),
            quantity_column("energy", "energy a token", "J", [row["energy"] for row in rows], decimals=2),
        ),
        rows=tuple(rows),
    )
    gains = {row["hw"]: row["gain"] for row in rows if row["weights"] == "int4"}
    fewer = rows[0]["read"] / rows[2]["read"]
    said = listed([f"{gain:.1f} times on {name}" for name, gain in gains.items()])
    text = (
        f"Weights of 4 bits are {fewer:.1f} times fewer bytes, with the head left in bf16, and quicken a step {said}. "
        "What is missing is what does not shrink: starts of kernels, the cache, what the library does between steps. "
        "The faster a machine's memory, the more of a step that is."
    )
    return Document("What int4 buys", (Paragraph(text), table))


def _turns(bench: Bench, hw: str, weights: str) -> int:
    """The first batch at which a step takes half as long again as with one sequence, the cache nearly empty."""
    alone = _step(bench, hw, weights, context=_SHORT).latency
    low, high = 1, BATCHES[-1]
    while high - low > 1:
        middle = (low + high) // 2
        slower = _step(bench, hw, weights, middle, context=_SHORT).latency > 1.5 * alone
        low, high = (low, middle) if slower else (middle, high)
    return high


def _batches(bench: Bench) -> Document:
    turns = [
        {"hw": _step(bench, hw).hardware.title, "weights": weights, "batch": _turns(bench, hw, weights),
         "ridge": _ridge(_step(bench, hw))}
        for hw in MACHINES for weights in ("dense", "int4")
    ]  # fmt: skip
    table = Table(
        columns=(
            text_column("hw", "machine"),
            text_column("weights", "weights"),
            number_column("batch", "half as long again from batch", decimals=0),
            number_column("ridge", "peak over bandwidth", "FLOP/B", decimals=0),
        ),
        rows=tuple(turns),
    )
    text = (
        "More sequences at once read the same weights. Each weight of 2 bytes is 2 FLOP for each of them, so that a "
        "step is as much arithmetic as traffic near the batch that is the machine's ratio of peak to bandwidth in "
        "FLOP/B; with narrow weights that comes sooner, the more so as they are widened on the way. Up to there "
        "tokens are nearly free; the table says from which batch a step takes half as long again as with one sequence "
        f"(at {_SHORT} tokens in the cache, which else is traffic of its own)."
    )
    return Document("The batch at which it stops", (Paragraph(text), table))


def _ridge(step: Analysis) -> float:
    peak = step.hardware.peak("matrix", "bf16", "fp32").flop_per_s
    return float(peak / step.hardware.dram_bytes_per_s)


def _figure(bench: Bench) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for hw in MACHINES:
        for weights, word in (("dense", "bf16"), ("int4", "int4")):
            found = [(batch, _step(bench, hw, weights, batch)) for batch in BATCHES]
            series[f"{hw}, {word}"] = [(batch, batch / step.latency) for batch, step in found]
    title = f"{NAME}: tokens per second over the batch, {CONTEXT:,} tokens in the cache"
    return lines(series, "batch", "tokens/s", title, ticks=BATCHES)


def _cache(bench: Bench) -> Document:
    rows = list(_cached(bench))
    table = Table(
        columns=(
            text_column("weights", "weights"),
            number_column("batch", "batch", decimals=0),
            quantity_column("cache", f"cache at {CONTEXT:,} tokens", "B", [row["cache"] for row in rows]),
            share_column("share", "of what is read"),
            number_column("context", "context at which both are equal", "tokens", decimals=0),
            number_column("room", "tokens that an A100 has room for", decimals=0),
        ),
        rows=tuple(rows),
    )
    traffic = cache_traffic(_step(bench, "a100"))
    text = (
        f"Each token in the cache is {format_bytes(traffic.token_bytes)} for this model, which has as many heads of "
        "keys and values as of queries, and all of it is read again for every token that is written. Weights are "
        "shared by all sequences, their caches are not: the context at which both are as many bytes falls with the "
        "batch."
    )
    note = f"context at which cache and weights are equal, bf16: {traffic.equal}"
    return Document("When the cache rules", (Paragraph(text), table, Notes((note,))))


def _cached(bench: Bench) -> Iterator[dict[str, Any]]:
    for weights in ("dense", "int4"):
        for batch in (1, 8, 32, 64):
            traffic = cache_traffic(_step(bench, "a100", weights, batch))
            yield {
                "weights": weights, "batch": batch, "cache": traffic.bytes, "share": traffic.share,
                "context": traffic.equal_context, "room": max(traffic.room_tokens or 0, 0),
            }  # fmt: skip


def _measured(bench: Bench) -> Document:
    rows: list[dict[str, Any]] = []
    parts: list[left_out.Served] = []
    for row in PUBLISHED:
        request = f"hf:qwen2({row.sizes},max_position_embeddings=65536)"
        common: dict[str, Any] = {"hw": "a100", "dtype": "bf16", "mode": "serving", "weights": row.weights}
        prompt = bench.analysis(request, phase="prefill", **common).in_hand()
        step = bench.analysis(request, phase="decode", **common).in_hand()
        steps = tuple(step.at(context=context) for context in sampled(row.seq_len, 2047))
        found = Generation(prompt.at(seq_len=row.seq_len), steps, row.seq_len, 2048)  # type: ignore[arg-type]
        rows.append(
            {"name": row.name, "weights": row.weights, "seq_len": row.seq_len, "measured": row.tokens_per_s,
             "predicted": found.tokens_per_s, "error": row.tokens_per_s / found.tokens_per_s - 1,
             "held": _holds(found, row)}
        )  # fmt: skip
        parts.append(left_out.served(row.name, row.weights, found.new_tokens / row.tokens_per_s, found))
    for group, key in (("size", "size"), ("weights", "weights_left_out")):
        for line, error in zip(rows, left_out.errors_left_out(parts, attrgetter(group)), strict=True):
            line[key] = error
    table = Table(
        columns=(
            text_column("name", "model"),
            text_column("weights", "weights"),
            number_column("seq_len", "prompt", "tokens", decimals=0),
            number_column("measured", "measured", "tokens/s", decimals=1),
            number_column("predicted", "predicted", "tokens/s", decimals=1),
            share_column("error", "error of the time"),
            share_column("size", "this size left out"),
            share_column("weights_left_out", "these weights left out"),
        ),
        rows=tuple(rows),
    )
    text = (
        "Public speeds of one sequence on one A100, the prompt's time included. Two constants of the prediction come "
        "from this benchmark, and no other measurement holds them: what the library does between two steps, and how "
        "long its kernel for narrow weights takes to start; all else is from other measurements or none. The last two "
        "columns say what the predictions are worth without that: both constants fitted to the rows of this table "
        "that are of other sizes, or of other weights (with bf16 alone no start is known: it is taken as 1). The "
        f"largest error in sample is {percent(_largest(rows, 'error'))}, with the size left out "
        f"{percent(_largest(rows, 'size'))}, with the weights left out {percent(_largest(rows, 'weights_left_out'))}; "
        f"intervals hold {sum(row['held'] for row in rows)} of the {len(rows)}. benchmarks/decode_accuracy.py does the "
        "same with every row of the source."
    )
    return Document("Predicted against measured", (Paragraph(text), table, Notes((SOURCE,))))


def _holds(found: Generation, row: Published) -> bool:
    """Whether the interval holds the published speed."""
    low, high = found.interval_s
    return low <= found.new_tokens / row.tokens_per_s <= high


def _largest(rows: list[dict[str, Any]], key: str) -> float:
    return float(max(abs(row[key]) for row in rows))
