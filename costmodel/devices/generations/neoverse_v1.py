"""Arm Neoverse V1 (Graviton3): SVE of 256 bits."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration
from costmodel.devices.libraries import ONEDNN_AVX2

GENERATION = CpuGeneration(
    name="neoverse_v1",
    title="Arm Neoverse V1",
    family=CPU,
    simd_bits=256,
    simd_registers=32,
    convolutions=ONEDNN_AVX2,
    arithmetic=("fp16", "bf16"),
    assumptions=("convolutions reach the shares of oneDNN's AVX2 kernels on Zen 3",),
)
