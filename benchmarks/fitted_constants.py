"""Write reports/fitted_constants.md: every fitted constant, and what it is worth on families and machines left out.

    python benchmarks/fitted_constants.py [--measured FOLDER] [-o reports] [--rows N]

Runs ``fit_gemm.py``, ``fit_ops.py``, ``fit_libraries.py``, ``fit_attention.py``, ``fit_power.py``,
``fit_cpu_clock.py``, ``fit_models.py``, ``fit_training.py`` and ``fit_hosts.py`` on the same folder and keeps what they
print.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

INTRODUCTION = """# Fitted constants, and what they are worth elsewhere

The constants of the time model that no datasheet states were fitted to public measurements, by the scripts whose
output this page keeps (`python benchmarks/fitted_constants.py`). The constants that costmodel ships are those of its
source (`costmodel/timing`). Each block gives the best fit to all devices of the block together (**shared**), to each
device alone (**own**) and to all others but one (**left out**), and the error (median / 90th percentile, %) with each
of them and with the constants **shipped**, which are not always the shared ones: both errors stand side by side. "Left
out" is what to expect of a machine or a network that nobody measured. The structure of the model (which kernels run,
which effects exist) was found looking at these measurements; no split of them can test that. [accuracy.md](accuracy.md)
holds the errors of every row; those here are of the rows that a fit takes, with the algorithm of a convolution as
measured where a line says so.
"""

FITS = (
    (
        "Matrix products",
        "fit_gemm.py",
        "bf16 by graph replay (A100, L40S); fp32 by eager calls (P100, V100, A100).",
    ),
    (
        "Element-wise, row-wise and convolution kernels",
        "fit_ops.py",
        "fp32 by eager calls on four GPUs; no constant was fitted to DeepBench.",
    ),
    (
        "Kernels of libraries",
        "fit_libraries.py",
        "Records of the generations: products of Hopper, of narrow formats, of CDNA and its convolutions, fp32 "
        "products on FMA lanes. Own: ratios fitted to these rows. Borrowed: the record that another generation has "
        "under the same name.",
    ),
    (
        "Attention of serving libraries",
        "fit_attention.py",
        "Records of fused attention, by rows of serving libraries by graph replay: those above 20 µs, and all. "
        "Own: constants from half of the shapes, judged on the other half. Width: from heads of other widths, judged "
        "on that one.",
    ),
    (
        "Power and energy",
        "fit_power.py",
        "Whole models on RTX PRO 6000 Max-Q, RTX 3090 and 4090, fp32 products on T4 and L4, training steps under power "
        "limits on A40 and V100 (Zeus). Left out: constants without that board, from the same guesses; a board that "
        "alone of its process was measured at its limit is then predicted from guesses.",
    ),
    (
        "The clock of a CPU that its power holds",
        "fit_cpu_clock.py",
        "timm's compiled models on a laptop's i7-12700H.",
    ),
    (
        "Whole models",
        "fit_models.py",
        "A random sample of timm's eager timings on RTX 3090 and 4090. Other families: constants from half of the "
        "families, judged on the other half; other GPU: from one GPU, judged on the other.",
    ),
    (
        "The backward pass",
        "fit_training.py",
        "A random sample of timm's training steps on an RTX 3090; constants from half of the families, judged on the "
        "other half. ResNets, BERTs and EfficientNets on other machines are judged only.",
    ),
    (
        "What PyTorch asks of the host",
        "fit_hosts.py",
        "Small batches. The shipped costs of PyTorch 1 were chosen by the median and the 90th percentile of each "
        "group, so they are as much in the sample as the fitted ones; of a machine left out only its own slowdown and "
        "copy are found, from its eager rows. Nothing was fitted to `small_batch_compile.csv`; that compiled calls "
        "were dearer before PyTorch 2.5 was seen in it.",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=HERE.parents[1] / "shared" / "measured")
    parser.add_argument("-o", "--output", type=Path, default=Path("reports"))
    parser.add_argument("--rows", type=int, default=400, help="rows of whole models (default: 400)")
    arguments = parser.parse_args()
    parts = [INTRODUCTION]
    for title, script, about in FITS:
        extra = ["--left-out", "--rows", "4", "--rounds", "5"] if script == "fit_power.py" else []
        of_models = script in ("fit_models.py", "fit_training.py")
        extra += ["--rows", str(arguments.rows), "--cached-only"] if of_models else []
        command = [sys.executable, str(HERE / script), "--measured", str(arguments.measured), *extra]
        print(script, file=sys.stderr)
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own
        printed = "\n".join(line.rstrip() for line in printed.strip().splitlines())
        parts.append(f"## {title}\n\n{about} Script: `benchmarks/{script}`.\n\n```text\n{printed}\n```\n")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fitted_constants.md").write_text("\n".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
