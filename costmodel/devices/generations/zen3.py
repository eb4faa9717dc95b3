"""AMD Zen 3 (EPYC Milan): AVX2."""

from costmodel.devices.family import CPU
from costmodel.devices.generation import CpuGeneration
from costmodel.devices.libraries import ONEDNN_AVX2

GENERATION = CpuGeneration(
    name="zen3",
    title="AMD Zen 3",
    family=CPU,
    simd_bits=256,
    simd_registers=16,
    convolutions=ONEDNN_AVX2,
)
