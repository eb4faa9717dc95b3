"""Intel Skylake-SP and Cascade Lake: AVX-512 with two multiply-add pipes."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration
from costmodel.devices.libraries import ONEDNN_AVX512

GENERATION = CpuGeneration(
    name="skylake_x",
    title="Intel Skylake-SP, Cascade Lake",
    family=CPU,
    simd_bits=512,
    simd_registers=32,
    convolutions=ONEDNN_AVX512,
    converted=("bf16",),
)
