"""Fit the records of library kernels (``costmodel.devices.libraries``) again, and print their errors.

    python benchmarks/fit_libraries.py [--measured FOLDER] [--rows N] [--no-fit] [--only DEVICE]

A record says how a generation's kernels differ from those that the shared constants describe. Errors are median /
90th percentile of \\|predicted / measured - 1\\| in percent over ``--rows`` rows: with the record as shipped, with
its ratios fitted to these rows (own), and with the record that another generation has under the same name (borrowed):
what a machine without measurements would get.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from costmodel.devices.libraries import ProductKernels
from costmodel.hardware import HardwareProfile, load
from costmodel.validate import OperatorRow, read_measured
from costmodel.validate.host_time import with_floors
from costmodel.validate.judged import judge_operator, operator_roofline_s

ROOT = Path(__file__).parents[1]
#: What is fitted of a record; a share of batched products only where there are rows of them.
RATIOS = ("efficiency", "start", "step_latency", "operand_rate", "result_rate")
#: The same of kernels on FMA lanes and of rocBLAS's, whose batched products were measured, by eager calls, which do not
#: tell the start of a kernel from the host's work.
BATCHED_RATIOS = ("efficiency", "batched_efficiency", "step_latency", "operand_rate", "stream_rate", "tile_start")
#: Record, device, dtype of its rows, file, library (its first word). ``PRODUCTS`` are the plain products of matrix
#: units, ``LANES`` those of FMA lanes, ``CONVOLUTIONS`` the implicit GEMM of a library of convolutions.
PRODUCTS, LANES, CONVOLUTIONS = "matrix products", "products on lanes", "convolutions"
FITS = (
    (PRODUCTS, "h100-sxm-80gb", "bf16", "ops_gemm_bf16_h100.csv.gz", ""),
    ("fp8_gemm", "h100-sxm-80gb", "fp8", "ops_gemm_quant.csv.gz", "trtllm"),
    ("fp8_gemm", "l40s", "fp8", "ops_gemm_quant.csv.gz", "trtllm"),
    ("fp8_gemm_cutlass", "h100-sxm-80gb", "fp8", "ops_gemm_quant.csv.gz", "vllm"),
    ("fp8_gemm_cutlass", "l40s", "fp8", "ops_gemm_quant.csv.gz", "vllm"),
    ("fp8_block_gemm", "h100-sxm-80gb", "fp8_block", "ops_gemm_quant.csv.gz", "trtllm"),
    ("fp8_block_gemm", "l40s", "fp8_block", "ops_gemm_quant.csv.gz", "trtllm"),
    ("int8_gemm", "a100-sxm-80gb", "sq", "ops_gemm_quant.csv.gz", "trtllm"),
    ("int8_weight_gemm", "a100-sxm-80gb", "int8_wo", "ops_gemm_quant.csv.gz", "trtllm"),
    ("int4_weight_gemm", "a100-sxm-80gb", "int4_wo", "ops_gemm_quant.csv.gz", "trtllm"),
    (CONVOLUTIONS, "mi100", "fp32", "ops_conv_miopen.csv.gz", ""),
    (CONVOLUTIONS, "mi100", "fp16", "ops_conv_miopen.csv.gz", ""),
    (CONVOLUTIONS, "mi100", "bf16", "ops_conv_miopen.csv.gz", ""),
    (PRODUCTS, "mi100", "fp32", "ops_neusight_l4_mi100.csv.gz", ""),
    (LANES, "p100-pcie-16gb", "fp32", "ops_neusight.csv.gz", ""),
    (LANES, "v100-pcie-32gb", "fp32", "ops_neusight.csv.gz", ""),
    (LANES, "t4", "fp32", "ops_neusight.csv.gz", ""),
    (LANES, "a100-pcie-40gb", "fp32", "ops_neusight.csv.gz", ""),
)
#: Whose record of the same name another machine would borrow.
OTHER = {"h100-sxm-80gb": "l40s", "l40s": "h100-sxm-80gb"}


@dataclass(frozen=True)
class Fit:
    """Rows of one record on one machine."""

    record: str
    hardware: HardwareProfile
    rows: Sequence[OperatorRow]

    @property
    def kernels(self) -> ProductKernels:
        return kernels_of(self.hardware, self.record)

    def machine(self, kernels: ProductKernels) -> HardwareProfile:
        """The machine with other kernels in the place of the record's."""
        generation = self.hardware.gpu
        if self.record == PRODUCTS:
            return replace(self.hardware, generation=replace(generation, matrix_products=kernels))
        if self.record == LANES:
            return replace(self.hardware, generation=replace(generation, simt_products=kernels))
        if self.record == CONVOLUTIONS:
            convolutions = replace(generation.convolutions, matrix_products=kernels)
            return replace(self.hardware, generation=replace(generation, convolutions=convolutions))
        records = (
            replace(record, kernels=kernels) if record.name == self.record else record
            for record in generation.quantized_products
        )
        return replace(self.hardware, generation=replace(generation, quantized_products=tuple(records)))

    @property
    def fitted(self) -> tuple[str, ...]:
        """What these rows tell of the record."""
        if any(row.op == "bmm" for row in self.rows):
            return tuple(name for name in BATCHED_RATIOS if getattr(self.kernels, name))
        return RATIOS

    def ratios(self, kernels: ProductKernels) -> np.ndarray:
        """Predicted over measured time of every row."""
        machine = self.machine(kernels)
        return np.array([judge_operator(row, machine).error + 1 for row in self.rows])


def kernels_of(hardware: HardwareProfile, record: str) -> ProductKernels:
    generation = hardware.gpu
    own = {
        PRODUCTS: generation.matrix_products,
        LANES: generation.simt_products,
        CONVOLUTIONS: generation.convolutions.matrix_products,
    }.get(record)
    if own is not None:
        return own
    return next(found.kernels for found in hardware.gpu.quantized_products if found.name == record)


def read(folder: Path, count: int, only: str | None) -> list[Fit]:
    fits = [fit for fit in FITS if only in (None, fit[1])]
    files = {file: read_measured([folder / file]).rows for *_, file, _ in fits}
    result = []
    for record, device, dtype, file, library in fits:
        hardware = load(device)
        rows = [
            row
            for row in files[file]
            if isinstance(row, OperatorRow)
            and (row.device, row.dtype) == (device, dtype)
            and row.library.startswith(library)
            and row.op in ("linear", "linear_no_bias", "bmm", "conv2d")
        ]
        rows = with_floors(
            rows, lambda row, on=hardware: operator_roofline_s(row, on), lambda row, on=hardware: on.kernel_fixed_s
        )
        rows = [row for row in rows if not row.at_floor]
        result.append(Fit(record, hardware, random.Random(0).sample(rows, min(count, len(rows)))))  # noqa: S311
    return result


def told(ratios: np.ndarray) -> str:
    error = 100 * np.abs(ratios - 1)
    return f"{np.median(error):5.1f} /{np.quantile(error, 0.9):5.1f}"


def fitted(fit: Fit) -> ProductKernels:
    """Least soft absolute deviation of log time over the ratios; a weak pull to the record keeps what is left open."""
    from scipy.optimize import least_squares

    start = np.log([getattr(fit.kernels, name) for name in fit.fitted])

    def kernels(x: np.ndarray) -> ProductKernels:
        values = {name: math.exp(value) for name, value in zip(fit.fitted, x, strict=True)}
        return replace(fit.kernels, **{"batched_efficiency": values["efficiency"]} | values)

    def residuals(x: np.ndarray) -> np.ndarray:
        pull = 0.03 * math.sqrt(len(fit.rows) / 1000) * (x - start)
        return np.concatenate([np.log(fit.ratios(kernels(x))), pull])

    return kernels(least_squares(residuals, start, loss="soft_l1", f_scale=0.06, diff_step=0.01, max_nfev=8).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--measured", type=Path, default=ROOT.parent / "shared" / "measured")
    parser.add_argument("--rows", type=int, default=400, help="rows of each record (default: 400)")
    parser.add_argument("--no-fit", action="store_true", help="errors of the shipped records only")
    parser.add_argument("--only", metavar="DEVICE", help="records of one device only")
    options = parser.parse_args()
    columns = f"{'shipped':>13} {'own':>13} {'borrowed':>13}"
    print(f"{'record':18} {'device':14} {'dtype':9} {'rows':>5} {columns}")
    for fit in read(options.measured, options.rows, options.only):
        own = told(fit.ratios(kernels := fitted(fit))) if not options.no_fit else ""
        other = OTHER.get(fit.hardware.name) if fit.record != PRODUCTS else None
        others = told(fit.ratios(kernels_of(load(other), fit.record))) if other else ""
        first = fit.rows[0]
        print(
            f"{fit.record:18} {fit.hardware.name:14} {first.dtype:9} {len(fit.rows):5} "
            f"{told(fit.ratios(fit.kernels)):>13} {own:>13} {others:>13}",
            flush=True,
        )
        if own:
            print("  own:", ", ".join(f"{ratio} {getattr(kernels, ratio):.3g}" for ratio in fit.fitted), flush=True)


if __name__ == "__main__":
    main()
