"""What of a dtype request a machine serves: what it cannot multiply is emulated with a note, or refused."""

from __future__ import annotations

from costmodel.devices import CpuGeneration
from costmodel.errors import InputError
from costmodel.execution import Execution
from costmodel.execution.precision import word_of_dtype
from costmodel.graph import OpGraph
from costmodel.hardware import HardwareProfile

__all__ = ["dtype_notes", "own_dtype_notes"]


def _double_note(hardware: HardwareProfile) -> str:
    """What weights in float64 mean on a machine: its peak there is 1/2 of that in fp32 on some GPUs, 1/64 on others."""
    double, single = hardware.find_peak("vector", "fp64"), hardware.find_peak("vector", "fp32")
    if double is None or single is None:
        rate = f"no peak in fp64 is known of {hardware.title}: timed as fp32, which may be 64 times as fast"
    else:
        times = single.flop_per_s / double.flop_per_s
        rate = f"lanes are {times:.3g} times slower than in fp32" if times > 1.01 else "lanes are as fast as in fp32"
    return f"weights in float64 stay so under any dtype: 8 B each; {rate}: .float() converts the model"


def own_dtype_notes(graph: OpGraph, execution: Execution, hardware: HardwareProfile) -> tuple[str, ...]:
    """One line for a model that holds its weights in another dtype than fp32: which it is, and what the run makes of
    it; none for a model in fp32, which is what a dtype is asked of."""
    own, asked = word_of_dtype(graph.own_dtype), execution.precision
    if graph.parameter_bytes_of.get("float64"):
        return (_double_note(hardware),)
    if own == "fp32":
        return ()
    if asked.autocast is None and own == asked.weights == asked.activations:  # whatever its cache is kept in
        return (f"in {own}, the dtype that the model holds its weights in",)
    return (f"the model holds its weights in {own}: converted to {asked.weights}, since {asked} is asked for",)


def dtype_notes(execution: Execution, hardware: HardwareProfile) -> tuple[str, ...]:
    """One line for what the machine does instead of what was asked for; none where it serves the dtype.

    Raises InputError for a dtype whose emulation takes so much longer that a time of it would mislead.
    """
    operands = execution.precision.operands
    if operands == "fp32" or any(hardware.find_peak(engine, operands) for engine in ("matrix", "vector")):
        return ()
    if operands == "tf32":
        return (f"{hardware.title} has no TF32: matrix products run in fp32",)
    if not isinstance(hardware.generation, CpuGeneration):
        return (
            f"{hardware.title} does not multiply {operands}: libraries convert to fp32 and multiply there, which saves "
            "traffic and no arithmetic; what the conversion costs is not known, the time may be longer",
        )
    if operands in hardware.generation.arithmetic:
        return ()
    if operands in hardware.generation.converted:
        return (f"{hardware.title} does not multiply {operands}: oneDNN converts to fp32 in registers, as is timed",)
    if operands == "fp16":
        raise InputError(
            f"{execution.precision} is asked for, and {hardware.name} has no fp16 arithmetic\n"
            "  PyTorch emulates it value by value there, some 40 times slower than fp32: choose fp32"
        )
    return (
        f"{hardware.title} does not multiply {operands}: timed as if it were converted to fp32 in registers, "
        "PyTorch's emulation is slower, by how much is not known",
    )
