"""Every model type of transformers that reads text: its default configuration is analyzed, or refused with a reason.

    python benchmarks/hf_types.py [--phase WORD,...] [--layers N] [--part I/N] [--only TYPE,...] [--rows FILE.csv]
                                  [--seconds N] [--gib N] [--summary]

One line for each type and phase: the class, whether it was analyzed or refused, whether its MACs are those that torch's
FlopCounterMode counts on the meta device, and how long that took; then how many there are of each kind, by reason.
Types that write text are analyzed as a prompt and as a step of decoding, those with an encoder or further inputs as a
whole forward pass too, all others as a forward pass.

Each is worked out in a process of its own, bounded in time and memory, so that none stops the others. ``--rows`` keeps
lines in a file; a run that finds it goes on where the last one stopped, and ``--summary`` only reads it. ``--layers``
cuts models to so many layers where their configuration says how many there are. Exits with 1 where a type ends in an
error that is not costmodel's own or is cut off, or a count differs.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import costmodel
from costmodel.errors import CostmodelError
from costmodel.execution import Phase
from costmodel.sources import resolve
from costmodel.sources.huggingface import model_types

#: Where configurations keep how many layers there are.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")


@dataclass(frozen=True, slots=True)
class Row:
    """A type in a phase: what came out. ``counts`` is "equal", what differs, or why torch's counter does not run."""

    type: str
    phase: str
    outcome: str
    kind: str = ""
    parameters: int = 0
    macs: int = 0
    counts: str = ""
    seconds: float = 0.0
    peak_mib: int = 0
    more: str = ""

    def __str__(self) -> str:
        told = f"{self.type:28} {self.phase:9} {self.outcome:9} {self.seconds:6.1f} s {self.peak_mib:6d} MiB"
        numbers = f"{self.parameters:.4g} params, {self.macs:.4g} MACs, {self.counts}" if self.macs else ""
        return "  ".join(filter(None, (told, self.kind, numbers, self.more)))


def request_of(kind: str, layers: int | None) -> str:
    if layers is None:
        return f"hf:{kind}"
    import transformers

    known = transformers.AutoConfig.for_model(kind).to_dict()
    cut = ",".join(f"{name}={layers}" for name in _LAYERS if isinstance(known.get(name), int))
    return f"hf:{kind}({cut})" if cut else f"hf:{kind}"


def _gathering(request: str) -> str:
    """The request with experts whose weights are gathered, as far as the type has any."""
    bare, _, rest = request.partition("(")
    return f"{bare}(experts_implementation='batched_mm'{',' + rest if rest else ')'}"


def counted(request: str, phase: Phase, macs: int) -> str:
    """What torch's counter says beside ours."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        loaded = resolve(_gathering(request), phase=phase)  # torch's counter knows no grouped products
        args, kwargs = loaded.inputs()
        with torch.inference_mode():
            if loaded.prepare is not None:
                kwargs, _ = loaded.prepare(loaded.module, kwargs)
            with counter:
                loaded.module(*args, **kwargs)
    except Exception as error:
        return f"no count: {type(error).__name__}"
    flops = counter.get_total_flops()
    return "equal" if flops == 2 * macs else f"torch {flops / 2:.6g}, off by {flops / 2 / macs - 1 if macs else 0:+.2%}"


def phases_of(kind: str) -> list[str]:
    """The phases in which a type is looked at; none where it reads no text."""
    import transformers

    from costmodel.sources.building import building
    from costmodel.sources.generation import generating_class

    try:
        with building(device=None):
            config = transformers.AutoConfig.for_model(kind)
        writes = generating_class(transformers, config, Phase.PREFILL)
        reads = {tensor.name for tensor in resolve(f"hf:{kind}").tensor_inputs}
    except Exception:
        return ["inference"]  # says there what is the matter
    if writes is None:
        return ["inference"] if "input_ids" in reads else []
    whole = config.is_encoder_decoder or reads != {"input_ids"}
    return ["prefill", "decode", *(["inference"] if whole else [])]


def worked_out(kind: str, phase: str, layers: int | None) -> Row:
    started = time.perf_counter()
    peak = 0
    found: dict[str, Any] = {}
    try:
        request = request_of(kind, layers)
        analysis = costmodel.analyze(request, hw="h100", phase=phase, dtype="bf16", symbols=("batch",), use_cache=False)
        uncosted = ", ".join(missing.op for missing in analysis.coverage.uncosted)
        macs = int(analysis.totals.macs)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = {
            "outcome": "analyzed",
            "kind": analysis.model.notes[0].partition(",")[0],
            "parameters": int(analysis.totals.params),
            "macs": macs,
            "counts": counted(request, Phase(phase), macs),
            "more": f"no formula: {uncosted}" if uncosted else "",
        }
    except CostmodelError as error:
        seconds = time.perf_counter() - started
        found = {"outcome": "refused", "more": " | ".join(line.strip() for line in str(error).splitlines()[:3])}
    except Exception as error:
        seconds = time.perf_counter() - started
        found = {"outcome": "error", "more": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
    peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Row(kind, phase, seconds=round(seconds, 1), peak_mib=peak, **found)


def bounded(kind: str, phase: str, options: argparse.Namespace) -> Row:
    """The row of a type, worked out in a process that may take so long and so much memory and no more."""
    forks = multiprocessing.get_context("fork")  # the libraries are imported once
    here, there = forks.Pipe(duplex=False)

    def child() -> None:
        limit = options.gib * 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        there.send(worked_out(kind, phase, options.layers))

    started = time.perf_counter()
    process = forks.Process(target=child)
    process.start()
    there.close()
    try:
        if here.poll(options.seconds):
            return here.recv()
        why = f"not done after {options.seconds} s"
    except EOFError:
        process.join()
        why = f"the process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return Row(kind, phase, "cut off", seconds=round(time.perf_counter() - started, 1), more=why)


def reason_of(row: Row) -> str:
    """A row's reason, with what belongs to its type alone taken out."""
    text = row.more.partition(" | ")[0]
    text = re.sub(rf"\b{re.escape(row.type)}\b", "TYPE", text)
    text = re.sub(r"\b[A-Z]\w+(Model|LM|Generation|Config|Decoder|Encoder)\w*\b", "CLASS", text)
    return re.sub(r"\d+", "N", text)


def summary(rows: list[Row]) -> str:
    lines = []
    for phase in dict.fromkeys(row.phase for row in rows):
        here = [row for row in rows if row.phase == phase]
        outcomes = Counter(row.outcome for row in here)
        counts = Counter(row.counts.partition(" ")[0] for row in here if row.outcome == "analyzed")
        told = {"equal": "counts equal", "torch": "counts differ", "no": "torch's counter does not run"}
        lines.append(
            f"{phase}: {len(here)} types: {', '.join(f'{n} {what}' for what, n in sorted(outcomes.items()))}; "
            + ", ".join(f"{n} {told.get(what, what)}" for what, n in counts.most_common())
            + f"; {sum(row.seconds for row in here):.0f} s, longest {max(row.seconds for row in here):.0f} s"
        )
    reasons = defaultdict(list)
    for row in rows:
        if row.outcome != "analyzed":
            reasons[row.outcome, reason_of(row)].append(f"{row.type}")
    for (outcome, why), types in sorted(reasons.items(), key=lambda item: -len(set(item[1]))):
        lines.append(f"{len(set(types)):4} {outcome}: {why}\n       {', '.join(dict.fromkeys(types))}")
    lines += [f"differs: {row}" for row in rows if row.counts.startswith("torch")]
    types = {row.type: {r.outcome for r in rows if r.type == row.type} for row in rows}
    analyzed = sum(found == {"analyzed"} for found in types.values())
    refused = sum(found == {"refused"} for found in types.values())
    lines.append(
        f"{len(types)} types: {analyzed} analyzed, {refused} refused, {len(types) - analyzed - refused} in some phases"
    )
    return "\n".join(lines)


def read(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{**row, "parameters": int(row["parameters"]), "macs": int(row["macs"]),
                   "seconds": float(row["seconds"]), "peak_mib": int(row["peak_mib"])})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]  # fmt: skip


def keep(path: Path | None, row: Row) -> None:
    if path is None:
        return
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if fresh:
            writer.writeheader()
        writer.writerow(asdict(row))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--phase", default="", help="inference, prefill, decode; default: those of each type")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--part", default="1/1", help="the I-th of N parts of all types")
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--gib", type=int, default=6)
    parser.add_argument("--summary", action="store_true", help="of the rows that there are")
    options = parser.parse_args()
    os.environ["TRANSFORMERS_DISABLE_TORCH_CHECK"] = "1"  # looks at values, which torch's counter does not have
    rows, types = read(options.rows), sorted(model_types())
    if not options.summary:
        part, parts = (int(number) for number in options.part.split("/"))
        kinds = options.only.split(",") if options.only else types[part - 1 :: parts]
        done = {(row.type, row.phase) for row in rows}
        for kind in kinds:
            for phase in options.phase.split(",") if options.phase else phases_of(kind):
                if (kind, phase) in done:
                    continue
                rows.append(bounded(kind, phase, options))
                keep(options.rows, rows[-1])
                print(rows[-1], flush=True)
    print(summary(rows))
    bad = ("error", "cut off")
    return 1 if any(row.outcome in bad or row.counts.startswith("torch") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
