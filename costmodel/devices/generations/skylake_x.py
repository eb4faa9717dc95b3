"""Intel Skylake-SP and Cascade Lake: AVX-512 with two multiply-add pipes."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration

GENERATION = CpuGeneration(
    name="skylake_x",
    title="Intel Skylake-SP, Cascade Lake",
    family=CPU,
    simd_bits=512,
    simd_registers=32,
    # oneDNN's kernels on an i9-10940X: 0.73 and 0.85 of the peak at its base clock, which it may exceed.
    pointwise_convolution_share=0.72,
    convolution_share=0.8,
)
