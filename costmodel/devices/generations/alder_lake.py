"""Intel Alder Lake (Golden Cove and Gracemont cores): AVX2, for both kinds of cores."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration
from costmodel.devices.libraries import ONEDNN_AVX2

GENERATION = CpuGeneration(
    name="alder_lake",
    title="Intel Alder Lake",
    family=CPU,
    simd_bits=256,
    simd_registers=16,
    convolutions=ONEDNN_AVX2,
    assumptions=("oneDNN's kernels reach the shares of Zen 3",),
)
