"""Speed as ratios in one run: analyze() against FlopCounterMode on meta and against fvcore on the CPU.

    python benchmarks/speed.py            # needs fvcore for its column (pip install fvcore); left out without it

Each figure is the median of interleaved repetitions on the same machine, so that only ratios are compared; those of a
re-evaluation and of a command on a training step, whose aims are times, are times of the process.
Then: a training step with Adam against FlopCounterMode around forward and backward; re-evaluating a traced model at
another batch and machine, and a whole cached command against ``python -c "import torch"``. The last lines hold each
against its aim; exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

CACHED_COMMAND = "costmodel analyze resnet50 --hw t4, cached"
MODELS = ("resnet50", "vit_base_patch16_224", "swin_base_patch4_window7_224")
#: Of all kinds and sizes: what somebody compares who has not decided yet.
SWEPT = tuple(
    f"timm:{name}"
    for name in (
        "resnet18 resnet34 resnet50 resnet101 resnext50_32x4d wide_resnet50_2 resnetv2_50 seresnet50 vgg16 densenet121 "
        "densenet201 mobilenetv2_100 mobilenetv3_large_100 efficientnet_b0 efficientnet_b3 regnety_040 repvgg_a0 "
        "ghostnet_100 inception_v3 convnext_tiny convnext_base vit_tiny_patch16_224 vit_small_patch16_224 "
        "vit_base_patch16_224 deit3_base_patch16_224 swin_tiny_patch4_window7_224 swin_base_patch4_window7_224 "
        "mixer_b16_224 xcit_tiny_12_p16_224 maxvit_tiny_tf_224"
    ).split()
)


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, called in turn after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def model_times(name: str, repeats: int) -> dict[str, float]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import costmodel
    from costmodel.sources import resolve

    loaded = resolve(name)
    module, (args, _) = loaded.module, loaded.inputs({"batch": 1})

    def counted() -> None:
        with torch.no_grad(), FlopCounterMode(display=False):
            module(*args)

    def analyzed() -> None:
        costmodel.analyze(module, args, hw="a100").totals  # noqa: B018 - a property that does the work

    functions = {"FlopCounterMode": counted, "analyze": analyzed}
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        print("fvcore is not installed: its column is left out")
    else:
        import timm

        real = timm.create_model(name).eval()
        image = torch.rand(1, *args[0].shape[1:])

        def by_fvcore() -> None:
            FlopCountAnalysis(real, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

        functions["fvcore"] = by_fvcore
    return interleaved(functions, repeats)


def training_times(name: str, repeats: int) -> dict[str, float]:
    """The same for a training step: forward, backward and optimizer, against a count of forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    import costmodel
    from costmodel.sources import resolve
    from costmodel.trace.forward import meta_copy

    loaded = resolve(name)
    args, _ = loaded.inputs({"batch": 2})
    module = meta_copy(loaded.module, trains=True).train()

    def counted() -> None:
        with FlopCounterMode(display=False):
            module(*args).sum().backward()
        module.zero_grad()

    def analyzed() -> None:
        costmodel.analyze(loaded.module, args, hw="a100", phase="training", optimizer="adam").totals  # noqa: B018

    return interleaved({"FlopCounterMode": counted, "analyze": analyzed}, repeats)


def reevaluation(name: str, repeats: int) -> float:
    """Median seconds of this process for a batch that is new, and a machine that is not the last one's."""
    import costmodel

    analysis = costmodel.analyze(name, hw="a100")
    analysis.latency  # noqa: B018
    machines, times = ("t4", "l4", "h100", "v100"), []
    for machine in machines:
        analysis.at(hw=machine).latency  # noqa: B018 - reads the profile once
    for repeat in range(repeats):
        started = time.process_time()  # an absolute aim, so that what else the machine runs must not count
        analysis.at(batch=2 + repeat, hw=machines[repeat % len(machines)]).latency  # noqa: B018
        times.append(time.process_time() - started)
    return statistics.median(times)


def training_command(repeats: int) -> float:
    """Median seconds of processor time of a whole command on a training step whose trace is stored."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COSTMODEL_CACHE_DIR": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times = []
        for machine in ("a100", *(["t4"] * repeats)):
            command = [sys.executable, "-m", "costmodel", "analyze", "resnet50", "--phase", "training", "--hw", machine]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return statistics.median(times[1:])


def sweep_speed(models: Sequence[str]) -> tuple[float, int, float, float]:
    """Seconds of this process a point of a sweep over ``models``, all machines and ten batches, their traces cached;
    points; and the resident memory [MB] of the process after a third of the models, and the most at the end."""
    from costmodel.sweeps.evaluate import evaluate
    from costmodel.sweeps.grid import Grid, machines_of

    machines, batches = machines_of(["all"]), tuple(2**power for power in range(10))
    for model in models:  # so that traces are there, and libraries loaded
        for task in Grid(models=(model,), machines=machines[:1]).tasks():
            list(evaluate(task))
    points, seconds, early = 0, 0.0, 0.0
    for number, model in enumerate(models):
        started = time.process_time()
        for task in Grid(models=(model,), machines=machines, batch=batches).tasks():
            points += sum(1 for _ in evaluate(task))
        seconds += time.process_time() - started
        if number == len(models) // 3:
            early = resident_mb()
        print(f"  {model}: {1e3 * (time.process_time() - started) / len(machines) / len(batches):.2f} ms", flush=True)
    return seconds / points, points, early, resident_mb()


def resident_mb() -> float:
    """The most memory that this process has had [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def whole_command(repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COSTMODEL_CACHE_DIR": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled beforehand, as torch and all installed packages are

        def run(*command: str) -> Callable[[], object]:
            return lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603

        python = sys.executable
        run(python, "-m", "costmodel", "analyze", "resnet50", "--hw", "a100")()
        return interleaved(
            {
                "import torch": run(python, "-c", "import torch"),
                CACHED_COMMAND: run(python, "-m", "costmodel", "analyze", "resnet50", "--hw", "t4"),
            },
            repeats,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-sweep", action="store_true", help="leave the sweep out, which takes some minutes")
    parser.add_argument("--only-sweep", action="store_true", help="the sweep alone")
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    if arguments.only_sweep:
        return 0 if swept() else 1
    analyzed, trained, again = [], [], []
    for name in arguments.models:
        times = model_times(name, arguments.repeats)
        ours = times["analyze"]
        ratios = ", ".join(
            f"{ours / seconds:.2f} x {who} ({seconds:.3f} s)" for who, seconds in times.items() if who != "analyze"
        )
        analyzed.append(ours / times["FlopCounterMode"])
        print(f"{name}: analyze {ours:.3f} s = {ratios}", flush=True)
    for name in arguments.models:
        times = training_times(name, arguments.repeats)
        trained.append(times["analyze"] / times["FlopCounterMode"])
        counter = f"{trained[-1]:.2f} x FlopCounterMode ({times['FlopCounterMode']:.3f} s)"
        print(f"{name}, training: analyze {times['analyze']:.3f} s = {counter}", flush=True)
    for name in arguments.models:
        again.append(1e3 * reevaluation(name, 40))
        print(f"{name}: another batch and machine in {again[-1]:.2f} ms", flush=True)
    commands = whole_command(arguments.repeats)
    for name, seconds in commands.items():
        print(f"{name}: {seconds:.3f} s = {seconds / commands['import torch']:.2f} x import torch")
    cached = commands[CACHED_COMMAND] / commands["import torch"]
    reached = [
        held("analyze, of FlopCounterMode, at most", max(analyzed), 1.5),
        held("a training step, of FlopCounterMode's, at most", max(trained), 4.0),
        held("a cached command on a training step in s, at most", training_command(arguments.repeats), 0.5),
        held("re-evaluation in ms, at most", max(again), 1.0),
        held("a cached command, of import torch, at most", cached, 0.2),
    ]
    if not arguments.no_sweep:
        reached.append(swept())
    return 0 if all(reached) else 1


def swept() -> bool:
    """Run the sweep, print its speed, and say whether it is reached."""
    print(f"sweep of {len(SWEPT)} models, all machines, ten batches, by model:", flush=True)
    each, points, early, late = sweep_speed(SWEPT)
    print(f"{points} points; memory {early:.0f} MB after a third of the models, {late:.0f} MB at the end")
    return held("a point of the sweep in ms, at most", 1e3 * each, 4.0)


def held(what: str, found: float, aim: float) -> bool:
    """Print a figure beside its aim, and say whether it is reached."""
    print(f"{what}: {found:.2f} (aim {aim}) {'reached' if found <= aim else 'MISSED'}")
    return found <= aim


if __name__ == "__main__":
    sys.exit(main())
