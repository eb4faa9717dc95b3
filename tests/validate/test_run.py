"""From measured rows to scores: sampling, machines, failures, baselines recomputed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costmodel.errors import InputError
from costmodel.execution import Phase
from costmodel.hardware import load
from costmodel.validate import (
    Flags,
    Judged,
    ModelRow,
    by_class,
    by_family,
    by_owner,
    check_names,
    fail_budget,
    grouped,
    pooled,
    read_measured,
    validate,
)
from costmodel.validate.conditions import execution_of
from costmodel.validate.judged import in_arithmetic_of, judge_operator
from costmodel.validate.rows import OperatorRow
from costmodel.validate.run import sample

from .measured_files import MODEL_HEADER, OPERATOR_HEADER, FakeTraces, model_row, operator_row, write


def rows_of(count: int, **changed: object) -> list[ModelRow]:
    values = {
        "file": "a",
        "model": "two_ops",
        "request": "timm:two_ops",
        "device": "t4",
        "dtype": "fp16",
        "layout": "nchw",
        "mode": "eager",
        "phase": "inference",
        "batch": 8,
        "latency_s": 1e-3,
    }
    return [ModelRow(line=i, **{**values, **changed}) for i in range(count)]  # type: ignore[arg-type]


def judged(predicted: float, measured: float, *, half_width: float = 0.0, **options: object) -> Judged:
    (row,) = rows_of(1, latency_s=measured, **options)
    interval = {"low_s": predicted - half_width, "high_s": predicted + half_width}
    return Judged(row=row, predicted_s=predicted, flops=1.0, roofline_s=predicted, roofs_85_s=predicted, **interval)


# -- rows to predictions -----------------------------------------------------------------------


def test_rows_of_one_model_load_its_graph_once(tmp_path: Path) -> None:
    lines = [model_row(batch=batch, mode=mode) for batch in (1, 8) for mode in ("eager", "compile")]
    path = write(tmp_path, MODEL_HEADER, *lines, model_row(layout="nhwc"), model_row(image_size=64))
    traces = FakeTraces()
    result = validate(read_measured([path]), trace=traces)
    assert [item.row.line for item in result.judged] == [2, 3, 4, 5, 6, 7]
    asked = {(options["variant"].layout, options["sizes"]["height"]) for _, options in traces.requests}
    assert asked == {("nchw", 32), ("nhwc", 32), ("nchw", 64)}
    assert len(traces.requests) == 3
    assert all(request == "timm:two_ops" and options["symbols"] == ("batch",) for request, options in traces.requests)


def test_a_graph_with_a_fixed_batch_is_traced_at_each_batch(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_HEADER, model_row(model="fixed_batch", batch=4), model_row(batch=4))
    fixed, open_batch = validate(read_measured([path]), trace=FakeTraces()).judged
    assert fixed.flops == open_batch.flops


@pytest.mark.parametrize(("torch", "folds"), [("2.4.0", False), ("2.9.1", True)])
def test_timms_later_files_are_of_models_with_their_branches_folded(tmp_path: Path, torch: str, folds: bool) -> None:
    traces = FakeTraces()
    row = model_row(model="two_branches", torch=torch) + ",0.1"
    validate(read_measured([write(tmp_path, MODEL_HEADER + ",mactivations", row)]), trace=traces)
    asked = [request for request, _ in traces.requests]
    assert asked == ["timm:two_branches", "timm:two_branches+reparameterized"][: 1 + folds]


def test_a_name_that_timm_does_not_know_is_asked_for_plainly(tmp_path: Path) -> None:
    traces = FakeTraces()
    validate(read_measured([write(tmp_path, MODEL_HEADER, model_row(model="elsewhere"))]), trace=traces)
    assert [request for request, _ in traces.requests] == ["timm:elsewhere", "elsewhere"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": "nobody_knows"}, "unknown model"),
        ({"model": "untraceable"}, "trace failure: its forward depends on data"),
        ({"model": "broken"}, "internal error: ZeroDivisionError: of ours"),
        ({"device": "abacus"}, "unknown device: abacus"),
    ],
)
def test_why_a_row_has_no_prediction(tmp_path: Path, changed: dict[str, str], reason: str) -> None:
    result = validate(
        read_measured([write(tmp_path, MODEL_HEADER, model_row(), model_row(**changed))]), trace=FakeTraces()
    )
    assert len(result.judged) == 1
    assert [(row.line, row.reason) for row in result.unusable] == [(3, reason)]


def test_operator_shapes_that_do_not_fit_are_a_reason(tmp_path: Path) -> None:
    path = write(tmp_path, OPERATOR_HEADER, operator_row(), operator_row(other="6x7"))
    result = validate(read_measured([path]), trace=FakeTraces())
    assert len(result.judged) == 1
    assert result.unusable[0].reason.startswith("the shapes of linear 4x5 6x7 do not fit")


def test_nothing_to_judge_is_an_error_that_counts_reasons(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_HEADER, model_row(device="abacus"), model_row(device="abacus"))
    with pytest.raises(InputError, match="2 x unknown device: abacus"):
        validate(read_measured([path]), trace=FakeTraces())


def test_a_given_profile_serves_devices_without_one(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_HEADER, model_row(), model_row(device="abacus"), model_row(device="slide rule"))
    machines = {"": load("t4"), "slide rule": load("p100-pcie-16gb")}
    found = validate(read_measured([path]), trace=FakeTraces(), hardware=machines).judged
    assert [item.row.device for item in found] == ["t4", "t4", "p100-pcie-16gb"]
    assert found[0].predicted_s == found[1].predicted_s


def test_devices_are_found_as_people_write_them(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_HEADER, model_row(device="NVIDIA GeForce RTX 3090"), model_row(device="rtx3090"))
    result = validate(read_measured([path]), trace=FakeTraces())
    assert len(grouped(result.judged)) == 1


# -- conditions --------------------------------------------------------------------------------


def test_conditions_reach_the_execution() -> None:
    (row,) = rows_of(1, conditions={"fast_norm": "no", "colour": "blue"}, torch="2.9.1", sizes={"height": 32})
    execution = execution_of(row, {"batch": None})
    assert (execution.batch, str(execution.precision), execution.phase) == (8, "fp16", Phase.INFERENCE)
    assert dict(execution.sizes) == {}  # the graph does not leave the height open
    assert dict(execution_of(row, {"height": None}).sizes) == {"height": 32}
    assert execution.software.torch == "2.9.1"
    assert execution.software.fast_norm is False


@pytest.mark.parametrize(
    ("request_", "torch", "expected"),
    [
        ("timm:resnet50", "2.9.1", (True, True)),
        ("timm:resnet50", "2.10.0", (True, True)),
        ("timm:resnet50", "2.4.0", (True, False)),
        ("timm:resnet50", "", (True, False)),
        ("timm:resnet50", "1.12", (False, False)),
        ("hf:bert", "2.9.1", (False, False)),
    ],
)
def test_what_timms_own_script_does_is_assumed_of_timms_models(
    request_: str, torch: str, expected: tuple[bool, bool]
) -> None:
    (row,) = rows_of(1, request=request_, torch=torch, conditions={"gmacs": "4.1"})
    execution = execution_of(row, {})
    assert (execution.software.fast_norm, execution.software.reparameterized) == expected


def test_a_condition_that_is_no_truth_value_is_refused() -> None:
    (row,) = rows_of(1, conditions={"fast_norm": "perhaps"})
    with pytest.raises(InputError, match="fast_norm: 'perhaps'"):
        execution_of(row, {})


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(InputError, match="no condition of a run is called 'colour'"):
        check_names({"colour": "blue"})


def test_flags_give_conditions_and_columns_win(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL_HEADER + ",speed", model_row() + ",", model_row() + ",high")
    rows = read_measured([path], Flags(conditions={"speed": "low"})).rows
    assert [row.conditions["speed"] for row in rows if isinstance(row, ModelRow)] == ["low", "high"]


def test_operators_run_in_the_arithmetic_of_their_row_and_without_host() -> None:
    (row,) = (OperatorRow(file="", line=2, device="a100", op="relu", dtype="fp32", input=(4,), latency_s=1e-5),)
    machine = in_arithmetic_of(row, load("a100"))
    assert not machine.has_tf32
    assert judge_operator(row, load("a100")).predicted_s < load("a100").overheads.dispatch_s
    tf32 = OperatorRow(file="", line=2, device="a100", op="relu", dtype="tf32", input=(4,), latency_s=1e-5)
    assert in_arithmetic_of(tf32, load("a100")).has_tf32


# -- samples -----------------------------------------------------------------------------------


def test_a_sample_is_in_proportion_and_repeats_with_its_seed() -> None:
    rows = [*rows_of(60), *rows_of(30, device="v100"), *rows_of(10, device="l4")]
    chosen = sample(rows, 20, seed=3)
    counts = {device: sum(row.device == device for row in chosen) for device in ("t4", "v100", "l4")}
    assert counts == {"t4": 12, "v100": 6, "l4": 2}
    assert chosen == sample(rows, 20, seed=3)
    assert chosen != sample(rows, 20, seed=4)


def test_a_sample_leaves_no_group_out_where_there_is_room() -> None:
    rows = [*rows_of(1000), *rows_of(1, device="l4")]
    assert {row.device for row in sample(rows, 2, seed=0)} == {"t4", "l4"}


def test_a_limit_above_the_rows_takes_all() -> None:
    assert len(sample(rows_of(5), 10, seed=0)) == 5


# -- baselines, by hand ------------------------------------------------------------------------


def test_baselines_of_two_operators_by_hand(tmp_path: Path) -> None:
    """relu(linear(x)) at batch 8 in fp16 on a T4: 65 TFLOP/s fp16, 8.1 TFLOP/s fp32, 320 GB/s on its datasheet."""
    machine = load("t4")
    matrix, vector = machine.peak("matrix", "fp16").flop_per_s, machine.peak("vector", "fp32").flop_per_s
    bandwidth = machine.dram_bytes_per_s
    (item,) = validate(read_measured([write(tmp_path, MODEL_HEADER, model_row())]), trace=FakeTraces()).judged
    macs, biased, clipped = 8 * 5 * 6, 8 * 6, 8 * 6
    linear = max(2 * macs / matrix + biased / vector, 2 * (8 * 5 + 6 * 5 + 6 + 8 * 6) / bandwidth)
    relu = max(clipped / vector, 2 * (8 * 6 + 8 * 6) / bandwidth)
    assert item.flops == 2 * macs + biased + clipped
    assert item.roofline_s == pytest.approx(linear + relu)
    assert item.roofs_85_s == pytest.approx((linear + relu) / 0.85 + 2 * 3e-6)


def test_fp32_convolutions_take_tf32_in_the_roofline_of_models_and_not_of_operators(tmp_path: Path) -> None:
    conv = {"op": "conv2d", "input": "64x256x56x56", "other": "256x256x3x3", "device": "a100"}
    path = write(tmp_path, OPERATOR_HEADER, operator_row(**conv), operator_row(**conv, dtype="tf32"))
    plain, tf32 = validate(read_measured([path]), trace=FakeTraces()).judged
    machine = load("a100")
    ratio = machine.peak("matrix", "tf32").flop_per_s / machine.peak("vector", "fp32").flop_per_s
    assert plain.roofline_s / tf32.roofline_s == pytest.approx(ratio)


# -- groups ------------------------------------------------------------------------------------


def test_perfect_predictions_score_perfectly() -> None:
    (group,) = grouped([judged(t, t) for t in (1e-3, 2e-3, 3e-3)])
    assert dict(group.keys) == {
        "device": "t4",
        "dtype": "fp16",
        "layout": "nchw",
        "mode": "eager",
        "phase": "inference",
    }
    assert (group.score.n, group.score.median_ape, group.score.p90_ape, group.score.spearman) == (3, 0, 0, 1)
    assert group.interval_coverage == 1


def test_coverage_and_width_of_intervals() -> None:
    items = [judged(2.0, 2.4, half_width=0.5), judged(2.0, 3.0, half_width=0.5)]
    (group,) = grouped(items)
    assert group.interval_coverage == 0.5
    assert group.interval_width == pytest.approx(0.5)


def test_groups_split_by_every_condition() -> None:
    variants = [{}, {"device": "l4"}, {"dtype": "fp32"}, {"layout": "nhwc"}, {"mode": "compile"}]
    assert len(grouped([judged(1.0, 1.0, **options) for options in variants])) == len(variants)


def test_flops_are_scored_with_the_scale_that_suits_their_group(tmp_path: Path) -> None:
    lines = [model_row(batch=batch, latency_ms=3 * batch) for batch in (1, 2, 4, 8, 16)]
    result = validate(read_measured([write(tmp_path, MODEL_HEADER, *lines)]), trace=FakeTraces())
    (group,) = grouped(result.judged)  # time in proportion to FLOPs: one scale explains it all
    assert group.baselines["flops"].p90_ape == pytest.approx(0, abs=1e-9)
    assert group.baselines["flops"].spearman == pytest.approx(1)


def test_operators_are_grouped_by_algorithm_and_floor_and_pooled_above_it(tmp_path: Path) -> None:
    tiny = operator_row(op="relu", input="16", other="", latency_us=30, timing="eager_call")
    large = operator_row(op="relu", input="64000000", other="", latency_us=2000, timing="eager_call")
    path = write(tmp_path, OPERATOR_HEADER, tiny, large, operator_row(algorithm="a"), operator_row(algorithm="b"))
    found = validate(read_measured([path]), trace=FakeTraces()).judged
    keys = [(g.keys["op"], g.keys["algorithm"], g.keys["timing"], g.keys["at_floor"]) for g in grouped(found)]
    assert keys == [
        ("linear", "a", "kernel", False),
        ("linear", "b", "kernel", False),
        ("relu", "", "eager_call", False),
        ("relu", "", "eager_call", True),
    ]
    assert {group.keys["op"]: group.score.n for group in pooled(found) if "device" not in group.keys} == {
        "linear": 2,
        "relu": 1,
    }


def test_families_worst_first_and_classes_largest_first() -> None:
    good = [judged(1.0, 1.0, family="good")] * 2
    bad = [judged(3.0, 1.0, family="bad")]
    assert [group.keys["family"] for group in by_family([*good, *bad])] == ["bad", "good"]
    assert sum(group.score.n for group in by_owner([*good, *bad])) == 3


def test_errors_weighted_by_the_share_of_a_class() -> None:
    """One row errs by +100 % with three quarters in a, the other not at all with a quarter in a."""
    wrong = replace(judged(2.0, 1.0), time_shares={"a": 0.75, "b": 0.25})
    right = replace(judged(1.0, 1.0), time_shares={"a": 0.25, "b": 0.75})
    first, second = sorted(by_class([wrong, right]), key=lambda item: item.name)
    assert (first.name, first.n, first.mean_share, second.mean_share) == ("a", 2, 0.5, 0.5)
    assert (first.weighted_bias, second.weighted_bias) == (pytest.approx(0.75), pytest.approx(0.25))
    assert grouped([wrong])[0].owner == "a"
    assert grouped([right])[0].owner == "b"


def test_budgets_name_the_groups_that_fail() -> None:
    groups = grouped([judged(1.1, 1.0), judged(1.0, 1.0, device="l4")])
    assert fail_budget(groups, 0.2, 0.2) == []
    (sentence,) = fail_budget(groups, 0.05, None)
    assert sentence.startswith("t4, fp16, nchw, eager, inference: the median of |error| is 10.0%")
    assert len(fail_budget(groups, 0.05, 0.05)) == 2
