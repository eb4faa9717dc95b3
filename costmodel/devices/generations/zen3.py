"""AMD Zen 3 (EPYC Milan): AVX2."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration

GENERATION = CpuGeneration(
    name="zen3",
    title="AMD Zen 3",
    family=CPU,
    simd_bits=256,
    simd_registers=16,
    # oneDNN's kernels on a two-core Milan guest: 0.60 and 0.58 of the peak, the kernels alone up to 0.7.
    pointwise_convolution_share=0.62,
    convolution_share=0.6,
)
