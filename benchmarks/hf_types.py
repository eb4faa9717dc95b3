"""Every model type of transformers that reads text: its default configuration is analyzed, or refused with a reason.

    python benchmarks/hf_types.py [--phase WORD] [--layers N] [--part I/N] [--only TYPE,...] [--counts]

Prints a line a type and how many there are of each kind. ``--layers`` cuts models to so many layers where their
configuration says how many there are. ``--counts`` holds MACs against torch's FlopCounterMode on the meta device. Exits
with 1 where a type ends in an error that is not costmodel's own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import costmodel
from costmodel.errors import CostmodelError
from costmodel.execution import Phase
from costmodel.sources import resolve
from costmodel.sources.huggingface import model_types

#: Where configurations keep how many layers there are.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")


def reads_text(kind: str) -> bool:
    """Whether the main input of a type's model are tokens; types that cannot be built say so later."""
    try:
        return "input_ids" in {tensor.name for tensor in resolve(f"hf:{kind}").tensor_inputs}
    except Exception:
        return True


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


def counted(request: str, macs: int) -> str:
    """What torch's counter says beside ours."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    loaded = resolve(_gathering(request))  # torch's counter knows no grouped products
    args, kwargs = loaded.inputs()
    counter = FlopCounterMode(display=False)
    try:
        with torch.inference_mode(), counter:
            loaded.module(*args, **kwargs)
    except Exception as error:
        return f"counter: {type(error).__name__}"
    flops = counter.get_total_flops()
    return "counts equal" if flops == 2 * macs else f"counter {flops}, ours {2 * macs}"


def outcome(kind: str, phase: str, layers: int | None, counts: bool) -> tuple[str, str]:
    """(analyzed, refused or error; what more there is to say)."""
    try:
        request = request_of(kind, layers)
        found = costmodel.analyze(request, hw="h100", phase=phase, dtype="bf16", symbols=("batch",), use_cache=False)
        uncosted = ", ".join(missing.op for missing in found.coverage.uncosted)
        more = f"{found.totals.macs:.3g} MACs, {1e3 * found.latency:.3g} ms"
        more += f"; no formula: {uncosted}" if uncosted else ""
        if counts and Phase(phase) is Phase.INFERENCE:
            more += f"; {counted(request, int(found.totals.macs))}"
        return "analyzed", more
    except CostmodelError as error:
        return "refused", " | ".join(str(error).splitlines()[:3])
    except Exception as error:
        return "error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--phase", default="inference", choices=["inference", "prefill", "decode"])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--part", default="1/1", help="the I-th of N parts of all types")
    parser.add_argument("--only", default="")
    parser.add_argument("--counts", action="store_true")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.part.split("/"))
    kinds = options.only.split(",") if options.only else sorted(model_types())[part - 1 :: parts]
    found: Counter[str] = Counter()
    for kind in kinds:
        if not reads_text(kind):
            continue
        started = time.perf_counter()
        what, more = outcome(kind, options.phase, options.layers, options.counts)
        found[what] += 1
        print(f"{kind:32} {what:9} {time.perf_counter() - started:5.1f} s  {more}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in sorted(found.items())))
    return 1 if found["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
