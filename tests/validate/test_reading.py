"""Files of measured timings: every format, and every reason for which a row cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from costmodel.errors import InputError
from costmodel.validate import Flags, ModelRow, OperatorRow, read_measured
from costmodel.validate.conditions import execution_of

from .measured_files import MODEL_HEADER, OPERATOR_HEADER, model_row, operator_row, write

TIMM_HEADER = (
    "model,infer_samples_per_sec,infer_step_time,infer_batch_size,infer_img_size,infer_gmacs,infer_macts,param_count"
)
TIMM_NAME = "benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv"
NEUSIGHT_HEADER = "device,model,mode,seqlen,batch,variant,num_layer,e2e_ms,fw_ms,bwall_ms"


def test_a_whole_model_row(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, MODEL_HEADER, model_row())]).rows
    assert isinstance(row, ModelRow)
    assert (row.request, row.model, row.family) == ("timm:two_ops", "two_ops", "small")
    assert row.group == ("t4", "fp16", "nchw", "eager", "inference")
    assert (row.batch, dict(row.sizes), row.torch) == (8, {"height": 32, "width": 32}, "2.9.1")
    assert row.latency_s == pytest.approx(1.5e-3)
    assert row.line == 2


def test_compressed_files_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "timings.csv.gz"
    path.write_bytes(gzip.compress(f"{MODEL_HEADER}\n{model_row()}\n".encode()))
    assert len(read_measured([path]).rows) == 1


def test_a_name_with_a_source_is_asked_for_as_it_stands(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, MODEL_HEADER, model_row(model="hf:bert"))]).rows
    assert isinstance(row, ModelRow)
    assert row.request == "hf:bert"


def test_further_columns_are_kept_as_conditions(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, MODEL_HEADER + ",fast_norm", model_row() + ",yes")]).rows
    assert isinstance(row, ModelRow)
    assert row.conditions["fast_norm"] == "yes"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"latency_ms": "nan"}, "NaN: latency_ms"),
        ({"latency_ms": ""}, "missing value: latency_ms"),
        ({"latency_ms": "fast"}, "not a number: latency_ms"),
        ({"latency_ms": "inf"}, "infinite: latency_ms"),
        ({"latency_ms": 0}, "latency_ms is not above 0"),
        ({"latency_ms": -1}, "latency_ms is not above 0"),
        ({"batch": 0}, "batch 0"),
        ({"batch": ""}, "missing value: batch"),
        ({"batch": 1.5}, "batch is no whole number of at least 1"),
        ({"batch": -2}, "batch is no whole number of at least 1"),
        ({"image_size": 0}, "image_size 0"),
        ({"model": ""}, "missing value: model"),
        ({"device": ""}, "missing value: device"),
        ({"dtype": "fp12"}, "unknown dtype: fp12"),
        ({"layout": "hwcn"}, "unknown layout: hwcn"),
        ({"mode": "lazy"}, "unknown mode: lazy"),
        ({"phase": "decode"}, "phase=decode: not yet modelled"),
        ({"phase": "idle"}, "unknown phase: idle"),
    ],
)
def test_why_a_whole_model_row_cannot_be_used(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    measured = read_measured([write(tmp_path, MODEL_HEADER, model_row(), model_row(**changed))])
    assert len(measured.rows) == 1
    (unusable,) = measured.unusable
    assert (unusable.reason, unusable.line) == (reason, 3)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"op": "teleport"}, "unknown operator: teleport"),
        ({"op": ""}, "missing value: op"),
        ({"input": "4xfive"}, "no shape: input"),
        ({"input": "4x0"}, "no shape: input"),
        ({"input": "4x2.5"}, "no shape: input"),
        ({"input": ""}, "missing value: input"),
        ({"padding": "-1"}, "no shape: padding"),
        ({"latency_us": "nan"}, "NaN: latency_us"),
        ({"timing": "guess"}, "unknown timing: guess"),
        ({"dtype": "fp12"}, "unknown dtype: fp12"),
        ({"groups": 0}, "groups 0"),
    ],
)
def test_why_an_operator_row_cannot_be_used(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    measured = read_measured([write(tmp_path, OPERATOR_HEADER, operator_row(), operator_row(**changed))])
    assert len(measured.rows) == 1
    assert [row.reason for row in measured.unusable] == [reason]


def test_an_operator_row(tmp_path: Path) -> None:
    line = operator_row(op="conv2d", input="8x3x10x12", other="16x3x3x3", stride="2x2", padding=1, algorithm="WINOGRAD")
    (row,) = read_measured([write(tmp_path, OPERATOR_HEADER, line)]).rows
    assert isinstance(row, OperatorRow)
    assert (row.input, row.other, row.stride, row.padding) == ((8, 3, 10, 12), (16, 3, 3, 3), (2, 2), (1,))
    assert (row.algorithm, row.groups, row.latency_s) == ("winograd", 1, pytest.approx(1e-5))


def test_timms_benchmark_file_says_its_conditions_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, TIMM_HEADER, "resnet50,2000.0,512.0,1024,224,4.11,11.11,25.56", name=TIMM_NAME)
    (row,) = read_measured([path]).rows
    assert isinstance(row, ModelRow)
    assert row.group == ("rtx3090", "amp_fp16", "nhwc", "eager", "inference")
    assert (row.torch, row.batch, dict(row.sizes)) == ("2.4.0", 1024, {"height": 224, "width": 224})
    assert row.latency_s == pytest.approx(0.512)


def test_flags_win_over_the_name_and_supply_what_it_lacks(tmp_path: Path) -> None:
    line = "resnet50,2000.0,,1024,224,4.11,11.11,25.56"
    named = write(tmp_path, TIMM_HEADER, line, name=TIMM_NAME)
    (row,) = read_measured([named], Flags(device="t4", dtype="fp16")).rows
    assert row.group[:3] == ("t4", "fp16", "nhwc")
    assert row.latency_s == pytest.approx(1024 / 2000.0)  # no step time: batch over rate
    unnamed = write(tmp_path, TIMM_HEADER, line, name="mine.csv")
    with pytest.raises(InputError, match="the file's name does not say the device; give it as --device"):
        read_measured([unnamed])
    (row,) = read_measured([unnamed], Flags(device="t4", dtype="bf16", layout="nchw", mode="compile")).rows
    assert row.group == ("t4", "bf16", "nchw", "compile", "inference")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("resnet50,,,1024,224,4.11,11.11,25.56", "missing value: infer_samples_per_sec"),
        ("resnet50,0,,1024,224,4.11,11.11,25.56", "infer_samples_per_sec is not above 0"),
        ("resnet50,10,nan,1024,224,4.11,11.11,25.56", "NaN: infer_step_time"),
        ("resnet50,10,5,0,224,4.11,11.11,25.56", "infer_batch_size 0"),
        ("resnet50,error", "missing value: infer_batch_size"),
    ],
)
def test_why_a_row_of_timm_cannot_be_used(tmp_path: Path, line: str, reason: str) -> None:
    good = "resnet18,2000.0,512.0,1024,224,1.8,2.5,11.7"
    measured = read_measured([write(tmp_path, TIMM_HEADER, good, line, name=TIMM_NAME)])
    assert [row.reason for row in measured.unusable] == [reason]


def test_timms_training_files(tmp_path: Path) -> None:
    header = "model,train_samples_per_sec,train_step_time,train_batch_size,train_img_size,param_count"
    path = write(tmp_path, header, "resnet50,300,900,256,224,25.56", name="benchmark-train-amp-nhwc-pt112-rtx3090.csv")
    (row,) = read_measured([path]).rows
    assert isinstance(row, ModelRow)
    assert (row.phase, row.batch, row.latency_s, row.torch) == ("training", 256, 0.9, "1.12")
    run = execution_of(row, {})
    assert (run.optimizer.algorithm, run.optimizer.grad_scaler, run.in_train_mode) == ("nesterov", False, True)


def test_containers_of_nvidia_multiply_in_tf32_and_tell_a_head_by_its_model(tmp_path: Path) -> None:
    row = model_row(model="hf:bert-large-uncased(qa)", phase="train", dtype="apex_O2_fp16", torch="1.13.0a0+d0d6b1f")
    (found,) = read_measured([write(tmp_path, MODEL_HEADER, row)]).rows
    assert isinstance(found, ModelRow) and found.request.endswith("bert_large_qa.json")
    run = execution_of(found, {})
    assert (str(run.precision), run.software.tf32_matmul, str(run.optimizer)) == ("fp16", True, "adam (fused)")


def test_transformers_of_neusight(tmp_path: Path) -> None:
    measured = read_measured(
        [
            write(
                tmp_path,
                NEUSIGHT_HEADER,
                "v100-pcie-32gb,gpt2_large,inf,1024,4,,36.0,728.8,728.8,0.0",
                "v100-pcie-32gb,bert_large,inf,512,8,fusion,24.0,174.8,174.8,0.0",
                "v100-pcie-32gb,bert_large,train,512,2,,24.0,234.3,83.0,151.3",
                "v100-pcie-32gb,switchxl4,inf,512,1,,0.0,323.1,323.1,0.0",
            )
        ]
    )
    row, trained = measured.rows
    assert isinstance(row, ModelRow) and isinstance(trained, ModelRow)
    assert (trained.phase, execution_of(trained, {}).optimizer.algorithm) == ("training", "none")
    assert row.request.startswith("hf:")
    assert row.request.endswith("gpt2_large.json")
    assert (dict(row.sizes), row.batch, row.dtype, row.latency_s) == ({"seq_len": 1024}, 4, "fp32", 0.7288)
    assert [row.reason for row in measured.unusable] == [
        "variant=fusion: kernels fused by hand, not comparable",
        "unknown model: no configuration of switchxl4",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file of measured timings"),
        (b"a,b\n1,2\n", "its columns are a, b"),
        (MODEL_HEADER.encode() + b"\n", "holds no rows"),
        (b"\xff\xfe\x00", "is no CSV file"),
        (f"{MODEL_HEADER}\n{model_row(batch=0)}\n".encode(), "1 x batch 0"),
    ],
)
def test_files_without_a_usable_row_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_measured([path])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing column: dtype\n  --dtype WORD says it for all rows$"):
        read_measured([write(tmp_path, "model,device,batch,latency_ms", "two_ops,t4,8,1.5")])
    path = write(tmp_path, "model,device,batch,latency_ms", "two_ops,t4,8,1.5")
    assert len(read_measured([path], Flags(dtype="fp32")).rows) == 1


def test_rows_without_a_device_are_of_the_one_machine_that_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "model,dtype,batch,latency_ms", "two_ops,fp32,8,1.5")
    (row,) = read_measured([path], device="mine").rows
    assert row.device == "mine"
    (row,) = read_measured([path], Flags(device="t4"), device="mine").rows
    assert row.device == "t4"


@pytest.mark.parametrize("name", ["none.csv", "none.csv.gz"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_measured([tmp_path / name])


def test_a_truncated_archive(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(f"{MODEL_HEADER}\n{model_row()}\n".encode())[:-12])
    with pytest.raises(InputError, match="cannot read"):
        read_measured([path])


NVIDIA_HEADER = "model,framework,engine,device,precision,batch,res_or_seq,throughput_per_s,latency_avg"
NVIDIA_ROW = "resnet50_v1.5,PyTorch,framework,A100-SXM4-80GB(DGX),Mixed Precision,2.0,,125.0,17.1"


def test_a_row_of_nvidias_examples_takes_its_batch_over_its_throughput(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, NVIDIA_HEADER, NVIDIA_ROW)]).rows
    assert isinstance(row, ModelRow)
    assert (row.request, row.device, row.dtype, row.batch) == ("timm:resnet50", "A100-SXM4-80GB", "amp_fp16", 2)
    assert row.latency_s == pytest.approx(2 / 125)
    assert (row.torch, dict(row.sizes)) == ("", {"height": 224, "width": 224})


def test_tf32_of_nvidias_examples_is_a_switch_of_fp32(tmp_path: Path) -> None:
    (row,) = read_measured([write(tmp_path, NVIDIA_HEADER, NVIDIA_ROW.replace("Mixed Precision", "TF32"))]).rows
    assert isinstance(row, ModelRow)
    assert (row.dtype, row.conditions["tf32_matmul"]) == ("fp32", "yes")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("PyTorch", "MxNet", "framework=MxNet: not PyTorch"),
        ("framework,", "TensorRT,", "engine=TensorRT: not PyTorch's own kernels"),
        ("resnet50_v1.5", "ssd300", "ssd300: a ResNet-50 where torchvision's SSD300 has a VGG-16"),
        ("resnet50_v1.5", "dcgan", "dcgan: a model that no source here has"),
        ("Mixed Precision", "int8", "unknown precision: int8"),
        ("125.0", "0", "throughput_per_s is not above 0"),
    ],
)
def test_what_of_nvidias_examples_is_not_judged_says_why(tmp_path: Path, old: str, new: str, reason: str) -> None:
    measured = read_measured([write(tmp_path, NVIDIA_HEADER, NVIDIA_ROW, NVIDIA_ROW.replace(old, new, 1))])
    assert [row.reason for row in measured.unusable] == [reason]
