"""A size that is left open changes no answer: models traced open and bound, against traces made at each size.

    python benchmarks/binding.py                    # every model below at four sizes and three batches
    python benchmarks/binding.py 'timm:coat*' --jobs 2

Each model is analyzed with all its sizes open, as the command line does, and asked ``at(batch=..., image_size=...)``.
The same model is built and traced at that very batch and size, with nothing open. All totals (FLOPs, MACs, parameters,
bytes, activations, kernels, peak memory, latency and its interval) and all values of every operator's row must be
equal, in eager fp32 on a GPU and compiled in half precision. A size that the model refuses must be refused both ways.
Prints a line for each model, with how many of its points the open trace answered without running the model again, and
the sum; exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from costmodel.errors import CostmodelError

if TYPE_CHECKING:
    from costmodel.analysis import Analysis

BATCHES = (1, 2, 12)
CONDITIONS: tuple[dict[str, Any], ...] = ({"dtype": "fp32", "mode": "eager"}, {"dtype": "fp16", "mode": "compile"})

#: The model's own size, an odd one, one with other remainders, and a larger one; the size in pixels or tokens.
PICTURES = ("own", 197, 256, 320)
SMALL_PICTURES = ("own", 64, 75, 96)
FLOW_PICTURES = ("own", (256, 512), (368, 496), (264, 512))
TOKENS = ("own", 77, 200, 384)

Sizes = tuple[Any, ...]

MODELS: dict[str, Sizes] = {
    **dict.fromkeys(
        (
            *("timm:resnet50", "timm:densenet121", "timm:efficientnet_b0", "timm:regnety_002", "timm:convnext_tiny"),
            *("timm:edgenext_x_small", "timm:coatnet_nano_rw_224", "timm:mobilevit_xs", "timm:mobilevitv2_050"),
            *("timm:efficientformer_l1", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"),
            *("timm:swinv2_tiny_window8_256", "timm:davit_tiny", "timm:gcvit_xxtiny", "timm:focalnet_tiny_srf"),
            *("timm:poolformer_s12", "timm:pvt_v2_b0", "timm:twins_pcpvt_small", "timm:xcit_nano_12_p16_224"),
            *(
                "timm:levit_128s",
                "timm:crossvit_tiny_240",
                "timm:volo_d1_224",
                "timm:coat_tiny",
                "timm:hrnet_w18_small",
            ),
            *("timm:fastvit_t8", "timm:eca_halonext26ts", "timm:botnet26t_256", "timm:visformer_tiny"),
            *("timm:efficientvit_b0", "timm:ghostnet_100", "timm:maxvit_nano_rw_256", "timm:mvitv2_tiny"),
            *("torchvision:googlenet", "torchvision:inception_v3", "torchvision:swin_t", "torchvision:vit_b_16"),
            *("torchvision:fcn_resnet50", "torchvision:deeplabv3_mobilenet_v3_large"),
            "torchvision:lraspp_mobilenet_v3_large",
        ),
        PICTURES,
    ),
    "torchvision:raft_small": FLOW_PICTURES,
    "torchvision:r3d_18": SMALL_PICTURES,
    "zoo:shufflenet_v1": PICTURES,
    "zoo:nin": SMALL_PICTURES,
    **dict.fromkeys(("hf:bert", "hf:gpt2", "hf:t5", "hf:distilbert", "hf:llama"), TOKENS),
    "hf:segformer": PICTURES,
}


@dataclass
class Result:
    """What became of one model."""

    model: str
    points: int = 0
    bound: int = 0
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


def compare(request: str, sizes: Sizes, batches: tuple[int, ...] = BATCHES) -> Result:
    """Every batch and size of one model, both ways."""
    import costmodel
    from costmodel.api import ALL_SYMBOLS

    started, result = time.perf_counter(), Result(request)
    opened = costmodel.analyze(request, hw="a100", symbols=ALL_SYMBOLS, use_cache=False)
    asked_by = "seq_len" if "seq_len" in _sizes_of(request) else "image_size"
    for size in sizes:
        asked = {} if size == "own" else {asked_by: size}
        for batch in batches:
            result.points += 1
            bound, traced = _bound(opened, batch, asked), _traced(request, batch, asked)
            result.bound += isinstance(bound, dict) and bound["fp32"].record is opened.record
            result.differences += [f"{size} at batch {batch}: {what}" for what in _differences(bound, traced)]
    result.seconds = time.perf_counter() - started
    return result


def _sizes_of(request: str) -> Mapping[str, int]:
    from costmodel.sources import resolve

    return resolve(request).sizes


def _bound(opened: Analysis, batch: int, asked: Mapping[str, Any]) -> dict[str, Analysis] | str:
    """The open trace at a point under each of the conditions, or why it was refused."""
    try:
        return {conditions["dtype"]: opened.at(batch=batch, **asked, **conditions) for conditions in CONDITIONS}
    except CostmodelError as error:
        return str(error)


def _traced(request: str, batch: int, asked: Mapping[str, Any]) -> dict[str, Analysis] | str:
    """A trace made at the point under each of the conditions, or why it was refused."""
    import costmodel

    try:
        first = costmodel.analyze(request, hw="a100", batch=batch, symbols=(), use_cache=False, **asked)
        return {conditions["dtype"]: first.at(**conditions) for conditions in CONDITIONS}
    except CostmodelError as error:
        return str(error)


def _differences(bound: dict[str, Analysis] | str, traced: dict[str, Analysis] | str) -> Iterator[str]:
    if isinstance(bound, str) or isinstance(traced, str):
        if not (isinstance(bound, str) and isinstance(traced, str)):
            told = [one if isinstance(one, str) else "answered" for one in (bound, traced)]
            yield f"bound: {told[0]}; traced: {told[1]}"
        return
    for name, ours in bound.items():
        theirs = traced[name]
        yield from (f"{name}: {what}" for what in _unequal(ours.totals, theirs.totals))
        if len(ours.rows()) != len(theirs.rows()):
            yield f"{name}: {len(ours.rows())} operators, traced {len(theirs.rows())}"
            continue
        for row, other in zip(ours.rows(), theirs.rows(), strict=True):
            yield from (f"{name}: {row.name}: {what}" for what in _unequal(row, other))


def _unequal(ours: Any, theirs: Any) -> Iterator[str]:
    for one in fields(ours):
        left, right = getattr(ours, one.name), getattr(theirs, one.name)
        same = math.isclose(left, right, rel_tol=1e-9) if isinstance(left, float) else left == right
        if not same:
            yield f"{one.name} {left} bound, {right} traced"


def _guarded(job: tuple[str, Sizes]) -> Result:
    try:
        return compare(*job)
    except Exception as error:  # a fault of ours: one model must not hide the others
        return Result(job[0], differences=[f"{type(error).__name__}: {error}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="models by shell pattern (default: all)")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    jobs = [(n, s) for n, s in MODELS.items() if any(fnmatch.fnmatch(n, p) for p in arguments.patterns)]
    results = []
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for result in pool.imap_unordered(_guarded, jobs):
            results.append(result)
            verdict = "equal" if not result.differences else f"{len(result.differences)} DIFFERENCES"
            print(
                f"{result.model}: {result.points} points, {result.bound} without running again: {verdict}"
                f" ({result.seconds:.0f} s)",
                flush=True,
            )
            for difference in result.differences[:5]:
                print(f"    {difference}", flush=True)
    wrong = [result for result in results if result.differences]
    points, bound = sum(r.points for r in results), sum(r.bound for r in results)
    print(f"{len(results)} models, {points} points, {bound} of them without running again: {len(wrong)} models differ")
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main())
