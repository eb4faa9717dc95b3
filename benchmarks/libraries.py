"""Models of public libraries as people use them: our multiply-accumulates against torch's own counter.

    pip install -c constraints.txt '.[libraries]'
    python benchmarks/libraries.py                        # every model whose library is installed
    python benchmarks/libraries.py --only 'ultralytics:*' --jobs 2
    python benchmarks/libraries.py --only '*lstm*' -o libraries.csv

The models stand in ``library_models/``, built from their configurations: nothing is downloaded. Each is analyzed by
``costmodel.analyze`` in a process of its own, static where that can be and executed where how much is computed depends
on values, and held against ``torch.utils.flop_counter.FlopCounterMode``:

* on the meta device, so that no fused CPU kernel hides what it does; where the model does not run there, on the CPU
  with oneDNN, the fast path of ``nn.MultiheadAttention`` and fused attention off;
* products that the counter takes for nothing (:func:`by_hand`: matrix times vector, dot, Euclidean distances,
  deformable convolution) are counted from their shapes and added; the line names them.

Prints a line a model and the sum; exit status 1 unless all are exact. A model beyond ``--timeout`` seconds is ended.
"""

from __future__ import annotations

import argparse
import copy
import csv
import fnmatch
import inspect
import math
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

#: Address space of one model's process: enough for every model of the catalogue, too little to harm the machine.
ADDRESS_SPACE_BYTES = 16 << 30
#: Building a model and counting it with torch is not what is timed here, but it must end too.
PREPARATION_S = 240


@dataclass
class Result:
    """One model: our count beside the counter's."""

    model: str
    way: str
    verdict: str = ""
    macs: int = 0
    counter_macs: int = 0
    by_hand_macs: int = 0
    convention: str = ""
    seconds: float = 0.0
    uncosted: str = ""
    detail: str = ""

    def line(self) -> str:
        library, _, name = self.model.partition(":")
        more = " ".join(filter(None, (self.convention, self.uncosted and f"no formula: {self.uncosted}", self.detail)))
        return (
            f"{library:28} {name:34} {self.way:8} {self.macs:>16,} {self.counter_macs:>16,} {self.seconds:6.1f} s  "
            f"{self.verdict:9} {more}"
        ).rstrip()


# -- what torch counts -----------------------------------------------------------------------------


def by_hand() -> dict[Any, Callable[..., int]]:
    """FLOPs, two a multiply-accumulate, of products without an entry in torch's registry, from their shapes."""
    import torch

    aten = torch.ops.aten

    def deformable(image: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight[1:])

    found: dict[Any, Callable[..., int]] = {
        aten.mv: lambda matrix, vector, **_: 2 * math.prod(matrix),
        aten.addmv: lambda bias, matrix, vector, **_: 2 * math.prod(matrix),
        aten.dot: lambda first, second, **_: 2 * math.prod(first),
        # |x - y|^2 as one product of x with (|x|^2, 1) and y with (1, |y|^2) beside it (aten/native/Distance.cpp)
        aten._euclidean_dist: lambda first, second, **_: 2 * math.prod(first[:-1]) * second[-2] * (first[-1] + 2),
        # every row of (rows, in) times the matrix of its group in (groups, in, out)
        aten._grouped_mm: lambda first, second, *_, **__: 2 * math.prod(first) * second[-1],
        aten.addbmm: lambda bias, first, second, **_: 2 * math.prod(first) * second[-1],
    }
    if hasattr(torch.ops.costmodel, "grouped_mm"):  # once a model with experts was analyzed in this process
        found[torch.ops.costmodel.grouped_mm] = found[aten._grouped_mm]
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        found[torch.ops.torchvision.deform_conv2d] = deformable
    return found


def torch_macs(module: Any, inputs: Any, *, on_meta: bool) -> tuple[int, int, str]:
    """(MACs of FlopCounterMode, MACs of :func:`by_hand`, names of the latter's operators) of one forward pass."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils import _pytree as pytree
    from torch.utils.flop_counter import FlopCounterMode

    from costmodel.sources.own_module import as_call

    module, inputs = _copy(module).requires_grad_(False), copy.deepcopy(inputs)
    if on_meta:
        module = module.to("meta")
        inputs = pytree.tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, inputs)
    args, kwargs = as_call(inputs)
    extra = by_hand()
    counter = FlopCounterMode(display=False, custom_mapping=extra)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        torch.manual_seed(0)
        with counter:
            module(*args, **kwargs)
    counts = counter.get_flop_counts().get("Global", {})
    added = {op: flops for op, flops in counts.items() if op in extra and flops}
    return (counter.get_total_flops() - sum(added.values())) // 2, sum(added.values()) // 2, " ".join(map(str, added))


def _copy(module: Any) -> Any:
    """A deep copy, also where a plain attribute was computed from parameters (``weight_norm`` keeps such a weight)."""
    import torch

    memo: dict[int, Any] = {}
    for child in module.modules():
        for value in vars(child).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)


def expectation(module: Any, inputs: Any, executed: bool, result: Result) -> None:
    """Fill in what torch counts: on meta where the model runs there, else on the CPU."""
    failure: Exception | None = None
    for on_meta in (False,) if executed else (True, False):
        try:
            counted, extra, names = torch_macs(module, inputs, on_meta=on_meta)
        except Exception as error:  # what a library raises on meta is anything
            failure = failure or error
            continue
        result.counter_macs, result.by_hand_macs = counted, extra
        where = "" if on_meta else "counted on the CPU"
        result.convention = ", ".join(filter(None, (where, names and f"{names} by hand: {extra:,}")))
        return
    raise RuntimeError(f"torch's counter fails: {type(failure).__name__}: {failure}")


# -- one model -------------------------------------------------------------------------------------


def _prepared(title: str, result: Result) -> tuple[Any, Any, Any]:
    from library_models import catalogue
    from library_models.surroundings import prepare

    prepare()
    model = next(m for m in catalogue() if m.title == title)
    module, inputs = model.build()
    expectation(module, inputs, model.executed, result)
    if model.expected is not None:
        result.by_hand_macs += model.expected.macs(module, inputs)
        result.convention = ", ".join(filter(None, (result.convention, model.expected.why)))
    return model, module, inputs


def _analyzed(module: Any, inputs: Any, executed: bool, result: Result) -> None:
    from costmodel import analyze
    from costmodel.errors import CostmodelError

    if executed and "execute" not in inspect.signature(analyze).parameters:
        result.verdict = "waiting"
        return
    started = time.perf_counter()
    try:
        analysis = analyze(module, inputs, hw="a100", **({"execute": True} if executed else {}))
        result.macs = int(analysis.totals.macs)
        analysis.to_json(), analysis.to_markdown()
        result.uncosted = " ".join(f"{op}({n})" for op, n in analysis.costs.uncosted.items())
        expected = result.counter_macs + result.by_hand_macs
        result.verdict = "exact" if result.macs == expected else "differs"
        if result.macs != expected:
            result.detail = f"{result.macs - expected:+,} ({result.macs / max(expected, 1) - 1:+.2%})"
    except CostmodelError as error:
        result.verdict, result.detail = "refused", " | ".join(str(error).split("\n"))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        result.verdict, result.detail = "traceback", f"{type(error).__name__} at {where}: {error}".replace("\n", " | ")
    finally:
        result.seconds = time.perf_counter() - started


def examine(title: str, channel: Any = None) -> Result:
    """Both counts of one model; tells ``channel`` when the analysis begins and what came out."""
    result = Result(title, "")
    try:
        model, module, inputs = _prepared(title, result)
        result.way = model.way
        if channel is not None:
            channel.send(None)
        _analyzed(module, inputs, model.executed, result)
    except ImportError as error:
        result.verdict, result.detail = "absent", str(error)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        result.verdict = "unbuilt"
        result.detail = f"{type(error).__name__} at {frame.filename}:{frame.lineno}: {error}".replace("\n", " | ")
    if channel is not None:
        channel.send(result)
    return result


def _child(title: str, channel: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    with open(os.devnull, "w") as nowhere:  # libraries greet
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        examine(title, channel)


def watched(model: Any, timeout_s: float) -> Result:
    """:func:`examine` in a process of its own, ended when it takes too long."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(model.title, there))
    process.start()
    there.close()
    result = Result(model.title, model.way)
    try:
        for limit, stage in ((PREPARATION_S, "unbuilt"), (timeout_s, "timeout")):
            if not here.poll(limit):
                result.verdict, result.seconds = stage, limit
                result.detail = f"not done after {limit:g} s"
                break
            received = here.recv()
            if received is not None:
                result = received
                break
    except EOFError:
        result.verdict, result.detail = "traceback", "the process ended"
    finally:
        process.kill()
        process.join()
    return result


# -- the survey ------------------------------------------------------------------------------------


def survey(only: list[str], jobs: int, timeout_s: float) -> Iterator[Result]:
    from library_models import catalogue

    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "costmodel.api", "costmodel.trace"])
    chosen = [m for m in catalogue() if any(fnmatch.fnmatch(m.title.lower(), pattern.lower()) for pattern in only)]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda model: watched(model, timeout_s), chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="LIBRARY:NAME, with * (may be repeated)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="of one analysis")
    parser.add_argument("-o", "--output", help="all results as CSV")
    arguments = parser.parse_args()
    results = []
    for result in survey(arguments.only or ["*"], arguments.jobs, arguments.timeout):
        results.append(result)
        print(result.line(), flush=True)
    if arguments.output:
        with open(arguments.output, "w", newline="") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Result)])
            writer.writeheader()
            writer.writerows(asdict(r) for r in results)
    verdicts = Counter(r.verdict for r in results)
    judged = [r for r in results if r.verdict != "absent"]
    exact, slowest = verdicts["exact"], max((r.seconds for r in judged), default=0.0)
    print(
        f"{len(judged)} models of {len({r.model.partition(':')[0] for r in judged})} libraries: "
        + ", ".join(
            [f"{exact} exact ({exact / max(len(judged), 1):.1%})"]
            + [f"{n} {verdict}" for verdict, n in verdicts.most_common() if verdict != "exact"]
        )
        + f"; {sum(r.macs for r in judged):,} MACs, the slowest analysis took {slowest:.1f} s"
    )
    return 0 if judged and exact == len(judged) else 1


if __name__ == "__main__":
    sys.exit(main())
