"""Arm Neoverse V1 (Graviton3): SVE of 256 bits."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration

GENERATION = CpuGeneration(
    name="neoverse_v1",
    title="Arm Neoverse V1",
    family=CPU,
    simd_bits=256,
    simd_registers=32,
    # Those of Zen 3.
    pointwise_convolution_share=0.62,
    convolution_share=0.6,
    assumptions=("convolutions reach the shares of oneDNN's AVX2 kernels on Zen 3",),
)
