"""Intel Alder Lake (Golden Cove and Gracemont cores): AVX2, for both kinds of cores."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration

GENERATION = CpuGeneration(
    name="alder_lake",
    title="Intel Alder Lake",
    family=CPU,
    simd_bits=256,
    simd_registers=16,
    # Those of Zen 3.
    pointwise_convolution_share=0.62,
    convolution_share=0.6,
    assumptions=("oneDNN's kernels reach the shares of Zen 3",),
)
