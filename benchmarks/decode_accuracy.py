"""Predicted against public speed and memory of Qwen2.5 on one A100: transformers and vLLM, bf16, GPTQ, AWQ.

    python benchmarks/decode_accuracy.py [--measured FOLDER] [--rows] [--engine vllm]

For vLLM, of which two constants come from these rows, errors follow with both fitted without the size or the format of
weights that is judged.

Each row is a prompt and 2,048 new tokens of one sequence. Configurations are written from the published sizes
(Qwen2.5 Technical Report, arXiv:2412.15115, table 1, and the models' cards). vLLM's rows are held against mode serving,
those of transformers against mode eager, whose layers with packed weights are those of auto-gptq and AutoAWQ. Errors
are of the time for all tokens, in percent.

Memory is ``torch.cuda.max_memory_allocated()`` in GiB, from loading on. Files that AutoAWQ writes hold the head apart
from the embeddings where the model ties them: both lie on the device until loading is over, and after a short prompt
that is the most there ever was (``loaded``).
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import costmodel
from costmodel.generation.run import Generation, sampled
from costmodel.studies import left_out

ROOT = Path(__file__).parents[1]
#: hidden size, intermediate size, layers, heads, heads of keys and values, tied embeddings, vocabulary.
SIZES = {
    "Qwen2.5-0.5B-Instruct": (896, 4864, 24, 14, 2, True, 151936),
    "Qwen2.5-3B-Instruct": (2048, 11008, 36, 16, 2, True, 151936),
    "Qwen2.5-14B-Instruct": (5120, 13824, 48, 40, 8, False, 152064),
}
WEIGHTS: dict[str, dict[str, Any]] = {
    "BF16": {},
    "GPTQ-Int8": {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": True}},
    "GPTQ-Int4": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}},
    "AWQ": {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}},
}
MODES = {"vllm": "serving", "transformers (eager)": "eager"}


def configuration(model: str, weights: str) -> dict[str, Any]:
    hidden, inner, layers, heads, kv_heads, tied, vocabulary = SIZES[model]
    return {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "tie_word_embeddings": tied, "vocab_size": vocabulary,
        "max_position_embeddings": 262_144, "torch_dtype": "bfloat16" if weights == "BF16" else "float16",
        **WEIGHTS[weights],
    }  # fmt: skip


def predicted(prompt: Any, step: Any, seq_len: int, new_tokens: int) -> Generation:
    steps = [step.at(context=context) for context in sampled(max(seq_len, 1), new_tokens - 1)]
    return Generation(prompt.at(seq_len=seq_len), tuple(steps), seq_len, new_tokens)


def loaded(model: str, weights: str, found: Generation) -> float:
    """B that lie on the device when the file has been read, before ties are made."""
    hidden, *_, tied, vocabulary = SIZES[model]
    apart = 2 * vocabulary * hidden if tied and weights == "AWQ" else 0
    return found.prompt.memory.parameter_bytes + apart


def told(errors: list[float]) -> str:
    sizes = sorted(abs(error) for error in errors)
    ninth = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    return f"{100 * statistics.median(sizes):5.1f} /{100 * ninth:5.1f}  bias {100 * statistics.median(errors):+5.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--engine", choices=[*MODES], help="rows of one engine alone")
    parser.add_argument("--rows", action="store_true", help="print every row")
    options = parser.parse_args()
    with (options.measured / "llm_decode_qwen.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if options.engine in (None, row["engine"])]
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    held: dict[str, list[bool]] = defaultdict(list)
    memory: dict[str, list[float]] = defaultdict(list)
    parts: list[left_out.Served] = []
    traced: dict[tuple[str, str, bool], Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            model, weights, mode = row["model"], row["weights"], MODES[row["engine"]]
            old = mode == "eager"  # transformers 4.46 repeats keys and values for every query head
            if (model, weights, old) not in traced:
                path = Path(folder) / f"{model}-{weights}.json"
                path.write_text(json.dumps(configuration(model, weights)), encoding="utf-8")
                common: dict[str, Any] = {"hw": "a100-sxm-80gb", "symbols": ("batch", "seq_len", "context")}
                request = f"hf:{path}" + ("(attn_implementation='sdpa_repeated')" if old else "")
                traced[model, weights, old] = [
                    costmodel.analyze(request, phase="prefill", **common).in_hand(),
                    costmodel.analyze(request, phase="decode", context=2048, **common).in_hand(),
                ]
            prompt, step = (analysis.at(mode=mode) for analysis in traced[model, weights, old])
            tokens, new = int(row["input_tokens"]), int(row["new_tokens"])
            found = predicted(prompt.in_hand(), step.in_hand(), tokens, new)
            measured_s = new / float(row["tokens_per_s"])
            error, (low, high) = found.total_s / measured_s - 1, found.interval_s
            kind = "int8" if "Int8" in weights else "bf16" if weights == "BF16" else "int4"
            errors[mode, kind].append(error)
            if mode == "serving":
                parts.append(left_out.served(model, kind, measured_s, found))
            held[mode].append(low <= measured_s <= high)
            line = f"{model:22} {weights:9} {mode:8} {tokens:7} {new / measured_s:7.1f} {found.tokens_per_s:7.1f}"
            line += f" {error:+6.1%}"
            if row["memory_gb"]:
                most = max(found.peak_memory_bytes, loaded(model, weights, found))
                ratio = most / (float(row["memory_gb"]) * 2**30) - 1
                memory[kind].append(ratio)
                line += f"  memory {float(row['memory_gb']):6.2f} GiB {ratio:+6.1%}"
            if options.rows:
                print(line, flush=True)
    for (mode, kind), found_errors in sorted(errors.items()):
        print(f"{mode:8} {kind:5} {len(found_errors):3} rows  median / p90 {told(found_errors)}")
    for mode, inside in held.items():
        print(f"{mode:8} in their interval: {sum(inside)} of {len(inside)}")
    if parts:
        print(
            "serving  constants of all rows: {:.0f} µs between steps, start {:.2f}".format(*left_out.constants(parts))
        )
        for name in ("size", "weights"):
            groups = sorted({getattr(row, name) for row in parts})
            found_errors = left_out.errors_left_out(parts, lambda row, name=name: getattr(row, name))
            print(f"serving  {name} left out: median / p90 {told(found_errors)}")
            for group in groups:
                own = [e for e, row in zip(found_errors, parts, strict=True) if getattr(row, name) == group]
                fit = left_out.constants([row for row in parts if getattr(row, name) != group])
                print(f"         {group:22} {told(own)}  ({fit[0]:.0f} µs, start {fit[1]:.2f})")
    for kind, ratios in sorted(memory.items()):
        within = sum(abs(ratio) <= 0.05 for ratio in ratios)
        print(f"memory   {kind:5} median / p90 {told(ratios)}; within 5 %: {within} of {len(ratios)}")


if __name__ == "__main__":
    main()
