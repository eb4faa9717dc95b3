"""Rows of measured memory: read, held against the footprint, scored and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from costmodel.cli import main
from costmodel.errors import InputError
from costmodel.traced import load_trace
from costmodel.validate import Flags, MemoryRow, memory_groups, read_measured, validate

HEADER = "model,device,phase,dtype,layout,mode,torch,batch,image_size,memory_mb,memory_kind\n"


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "memory.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return path


ROW = "resnet18,a100,train,fp32,nchw,eager,2.4.0,{batch},64,{mb},{kind}"


def test_a_row_holds_what_was_measured_and_how(tmp_path):
    path = written(tmp_path, ROW.format(batch=8, mb=1000, kind="nvidia_smi_peak_mib"))
    (row,) = read_measured([path]).rows
    assert isinstance(row, MemoryRow)
    assert (row.memory_bytes, row.kind, row.phase, row.batch) == (1000 * 2**20, "nvidia_smi_peak_mib", "training", 8)
    assert row.conditions["memory_kind"] == row.kind


@pytest.mark.parametrize(
    ("mb", "kind", "reason"),
    [("1000", "rss", "memory_kind rss"), ("0", "nvidia_smi_peak_mib", "not above 0"), ("1000", "", "is empty")],
)
def test_what_cannot_be_held_against_a_prediction_is_told(tmp_path, mb, kind, reason):
    path = written(
        tmp_path, ROW.format(batch=8, mb=mb, kind=kind), ROW.format(batch=8, mb=9, kind="nvidia_smi_peak_mib")
    )
    (unusable,) = read_measured([path]).unusable
    assert reason in unusable.reason
    with pytest.raises(InputError):
        read_measured([written(tmp_path, ROW.format(batch=8, mb=mb, kind=kind))])


def test_each_kind_is_held_against_its_own_figure(tmp_path):
    """Of one step: what is allocated is less than what is reserved, and the process takes the context besides."""
    kinds = ("max_memory_allocated_mib", "max_memory_reserved_mib", "nvidia_smi_peak_mib")
    path = written(tmp_path, *(ROW.format(batch=8, mb=700, kind=kind) for kind in kinds))
    result = validate(read_measured([path]), trace=load_trace)
    predicted = {item.row.kind: item.predicted_bytes for item in result.memory}
    assert not result.judged
    assert predicted[kinds[0]] <= predicted[kinds[1]] < predicted[kinds[2]]
    assert all(item.low_bytes <= item.predicted_bytes <= item.high_bytes for item in result.memory)
    for item in result.memory:
        assert item.error == pytest.approx(item.predicted_bytes / (700 * 2**20) - 1)
    assert [group.keys["memory_kind"] for group in memory_groups(result.memory)] == sorted(kinds)


def test_the_release_decides_whether_all_kernels_are_loaded(tmp_path):
    """CUDA loads kernels lazily since 11.7: before, a process of torch takes more than a GiB besides its tensors."""
    path = written(tmp_path, ROW.replace("2.4.0", "").format(batch=8, mb=700, kind="nvidia_smi_peak_mib"))
    new, old = (
        validate(read_measured([path], Flags(torch=torch)), trace=load_trace).memory[0].predicted_bytes
        for torch in ("2.4.0", "1.12.1")
    )
    assert 2**30 < old - new < 2 * 2**30


def test_the_command_shows_groups_rows_and_budgets(tmp_path, capsys):
    path = written(tmp_path, ROW.format(batch=8, mb=1, kind="nvidia_smi_peak_mib"))
    assert main(["validate", str(path), "--jobs", "1", "--max-median", "50"]) == 1
    said = capsys.readouterr()
    assert "Peak memory by group" in said.out
    assert "the budget 50.0%" in said.err
    assert main(["validate", str(path), "--jobs", "1", "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)["memory"]
    assert value["groups"][0]["n"] == len(value["rows"]) == 1
    assert value["rows"][0]["measured_bytes"] == 2**20
    assert main(["validate", str(path), "--jobs", "1", "--format", "csv"]) == 0
    assert "predicted_bytes" in capsys.readouterr().out
