"""What a machine cannot multiply is said, or refused."""

from __future__ import annotations

import dataclasses

import pytest

from costmodel import analyze
from costmodel.errors import InputError
from costmodel.execution import Execution
from costmodel.hardware import HardwareProfile, load
from costmodel.kernels.served import dtype_notes
from costmodel.report.summary import conditions


def notes(hardware: str | HardwareProfile, dtype: str) -> tuple[str, ...]:
    machine = load(hardware) if isinstance(hardware, str) else hardware
    return dtype_notes(Execution.of(dtype=dtype), machine)


@pytest.mark.parametrize(
    ("hardware", "dtype"), [("t4", "bf16"), ("v100", "amp_bf16"), ("t4", "tf32"), ("v100", "tf32")]
)
def test_a_gpu_without_the_units_says_what_it_does_instead(hardware: str, dtype: str) -> None:
    (said,) = notes(hardware, dtype)
    assert "fp32" in said and load(hardware).title in said


@pytest.mark.parametrize(("hardware", "dtype"), [("a100", "bf16"), ("a100", "tf32"), ("t4", "amp_fp16"), ("t4", "fp32"),
                                                 ("graviton3", "fp16"), ("i9-10940x", "fp32")])  # fmt: skip
def test_a_machine_that_serves_a_dtype_says_nothing(hardware: str, dtype: str) -> None:
    assert notes(hardware, dtype) == ()


@pytest.mark.parametrize("hardware", ["i7-12700h", "epyc-milan-2c", "i9-10940x"])
@pytest.mark.parametrize("dtype", ["fp16", "amp_fp16"])
def test_fp16_on_a_cpu_without_it_is_refused_in_one_line_with_a_way_out(hardware: str, dtype: str) -> None:
    with pytest.raises(InputError, match=r"no fp16 arithmetic\n.*choose fp32"):
        notes(hardware, dtype)


def test_a_peak_in_the_profile_is_taken_at_its_word() -> None:
    machine = load("epyc-milan-2c")
    peak = dataclasses.replace(machine.peak("vector", "fp32"), dtype="fp16", accumulate="fp16")
    assert notes(dataclasses.replace(machine, peaks={**machine.peaks, ("vector", "fp16", "fp16"): peak}), "fp16") == ()


def test_the_note_stands_beside_the_conditions_of_a_run_and_in_its_data() -> None:
    found = analyze("resnet18", hw="t4", dtype="bf16")
    assert found.dtype_notes[0] in conditions(found)
    assert found.dtype_notes[0] in found.conventions
    assert found.at(dtype="fp32").dtype_notes == ()
