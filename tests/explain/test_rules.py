"""Every rule speaks on its case and is silent on a counterexample; what a change saves is evaluated."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

import costmodel
from costmodel.explain import RULES, findings, split
from costmodel.explain.case import Case
from costmodel.explain.rule import rule
from costmodel.explain.rules_convolution import padding_share
from costmodel.explain.rules_memory import foldable_norms, squeeze_excitations
from costmodel.explain.rules_run import batch_that_fills
from costmodel.kernels.shapes import Window
from costmodel.traces import Trace
from tests.explain.networks import analysis

CPU, V100, TRAINING = {"hw": "epyc-milan-2c"}, {"hw": "v100"}, {"phase": "training"}

#: Rule -> (network and conditions where it speaks, where it is silent).
CASES = {
    "launch_bound": (("small convs", {}), ("3x3 of 256", {})),
    "synchronization": (("reads the device", {}), ("reads the host", {})),
    "power_limited": (("3x3 of 256", {"hw": "t4"}), ("3x3 of 256", {"hw": "rtx4090"})),  # 70 W and 450 W
    "small_kernels": (("small convs", {}), ("3x3 of 256", {})),
    "framework_overhead": (("tiny layers", CPU), ("layers", CPU)),
    "fragmentation": (("branches", {"batch": 1}), ("branches", {"batch": 64})),  # full: nothing is left to share
    "casts": (("3x3", {"dtype": "amp_fp16"}), ("3x3", {"dtype": "fp16"})),
    "tf32_off": (("layers", {}), ("layers", V100)),
    "beats_the_roofline": (("3x3 of 256", V100), ("one relu", V100)),
    "elementwise_memory_bound": (("normed", {}), ("3x3", {})),
    "batch_norm_unfolded": (("normed", {}), ("3x3 with bias", {})),
    "layout_copies": (("3x3", {}), ("3x3", {"layout": "nhwc"})),
    "data_movement": (("joined", {}), ("one relu", {})),
    "explicit_im2col": (("windows", {}), ("3x3", {})),
    "weights_at_small_batch": (("layer", {}), ("layers", {})),
    "squeeze_and_excitation": (("excited", {}), ("scaled", {})),
    "depthwise_low_intensity": (("depthwise 3x3", {}), ("3x3", {})),
    "large_kernel_depthwise": (("depthwise 7x7", {}), ("depthwise 3x3", {})),
    "grouped_convolution": (("grouped", {}), ("1x1 of 128", {})),
    "stem_of_few_channels": (("stem", {}), ("3x3", {})),
    "channels_fill_no_tile": (("1x1 of 68", {}), ("1x1 of 128", {})),
    "tiles_and_waves": (("3x3 on 7x7", {"batch": 16}), ("layers", {})),
    "pointwise_against_window": (("1x1 and 3x3", {}), ("1x1", {})),
    "padding_multiplied": (("3x3 on 7x7", {}), ("3x3", {})),
    "backward_is_not_twice": (("layer", TRAINING), ("layers", TRAINING)),
    "normalization_in_training": (("normed", TRAINING), ("3x3 of 256", TRAINING)),
    "optimizer_traffic": (("layer", TRAINING), ("3x3 of 256", TRAINING)),
    "recomputed": (("checkpointed", TRAINING), ("normed", TRAINING)),
    "dilation": (("3x3 dilated", V100), ("3x3 dilated", {})),
}


def said(rule_name, network, conditions):
    return list(RULES[rule_name](Case(analysis(network, **conditions))))


def test_every_rule_has_a_case_and_a_counterexample():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_rule_speaks_on_its_case(name):
    network, conditions = CASES[name][0]
    now = analysis(network, **conditions)
    (finding,) = said(name, network, conditions)
    known = {node.name for node in now.bound.nodes}
    assert finding.rule == name
    assert finding.nodes and set(finding.nodes) <= known
    assert math.isfinite(finding.seconds_at_stake) and finding.seconds_at_stake > 0.01 * now.latency
    assert re.search(r"\d (ns|µs|ms|s)\b", finding.message), "a sentence holds its seconds"
    assert not finding.message.endswith(".") and "\n" not in finding.message
    assert finding.saving_s is None or (math.isfinite(finding.saving_s) and finding.change)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_rule_is_silent_on_a_counterexample(name):
    assert said(name, *CASES[name][1]) == []


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(ValueError, match="casts"):
        rule("casts")(lambda case: ())


def test_findings_are_ranked_by_what_is_at_stake():
    found = findings(analysis("normed", batch=1))
    losses = [finding.seconds_at_stake for finding in found if not finding.is_gain]
    assert len(losses) > 2
    assert losses == sorted(losses, reverse=True)
    assert [f.is_gain for f in found] == sorted(f.is_gain for f in found)
    assert analysis("normed", batch=1).findings == found


def test_a_gain_comes_last_however_large_it_is():
    """Three convolutions of 256 channels in TF32: against the fp32 lanes they gain more than any loss of theirs."""
    found = findings(analysis("3x3 of 256"))
    assert len(found) > 1
    assert found[-1].rule == "beats_the_roofline"
    assert found[-1].seconds_at_stake > found[0].seconds_at_stake
    assert "roofline" not in found[-1].message


def test_operators_in_series_have_no_branches():
    assert said("fragmentation", "series", {"batch": 1}) == []


def test_queries_keys_and_values_of_a_full_device_are_no_branches_worth_naming():
    assert said("fragmentation", "q, k, v", {}) == []


@pytest.mark.parametrize("name", ["normed", "3x3", "3x3 of 256", "small convs", "depthwise 3x3", "layers"])
def test_a_change_that_saves_nothing_is_not_advised(name):
    now = analysis(name)
    for finding in findings(now):
        assert finding.saving_s is None or finding.saving_s >= 1e-3 * now.latency
        assert not re.search(r"\b0 s less", finding.change)


def test_folding_that_only_moves_the_norm_to_the_bias_is_not_advised():
    (found,) = (f for f in findings(analysis("normed")) if f.rule == "batch_norm_unfolded")
    assert (found.change, found.saving_s) == ("", None)


# -- what rules recognize -------------------------------------------------------------------------


def counted_padding(conv: Window) -> float:
    """Taps outside of the map over all taps, one by one."""
    outside = whole = 0
    for oy in range(conv.out_size[0]):
        for ox in range(conv.out_size[1]):
            for ky in range(conv.kernel[0]):
                for kx in range(conv.kernel[1]):
                    y = oy * conv.stride[0] - conv.padding[0] + ky * conv.dilation[0]
                    x = ox * conv.stride[1] - conv.padding[1] + kx * conv.dilation[1]
                    whole += 1
                    outside += not (0 <= y < conv.in_size[0] and 0 <= x < conv.in_size[1])
    return outside / whole


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "size", "out"),
    [
        (3, 1, 1, 1, 7, 7),
        (3, 2, 1, 1, 7, 4),
        (5, 1, 2, 1, 4, 4),
        (3, 1, 2, 2, 5, 5),
        (7, 2, 3, 1, 9, 5),
        (1, 1, 0, 1, 6, 6),
    ],
)
def test_padding_is_counted_tap_by_tap(kernel, stride, padding, dilation, size, out):
    conv = Window(batch=1, in_channels=8, height=size, width=size, out_channels=8, kernel=(kernel, kernel),
                  stride=(stride, 1), padding=(padding, padding), dilation=(dilation, dilation))  # fmt: skip
    assert conv.out_size == (out, size + 2 * padding - dilation * (kernel - 1))
    assert padding_share(conv) == pytest.approx(counted_padding(conv))


def test_a_block_of_squeeze_and_excitation_is_all_of_it():
    now = analysis("excited")
    (block,) = squeeze_excitations(Case(now))
    ops = [now.bound.nodes[node].op.removeprefix("aten.") for node in block]
    assert ops == ["mean", "conv2d", "relu", "conv2d", "sigmoid", "mul"]


def test_only_norms_behind_their_own_convolution_fold():
    now = analysis("normed")
    folded = foldable_norms(Case(now))
    assert [now.bound.nodes[i].op for i in folded] == ["aten.batch_norm"] * 2
    assert all("conv" in now.bound.nodes[i].op for i in folded.values())


def test_the_batch_that_fills_the_device_is_the_smallest():
    now = analysis("small convs", batch=1)
    found = batch_that_fills(Case(now))

    def waiting(batch):
        there = now.at(batch=batch)
        return 1 - there.at(host="instant").latency / there.latency

    assert found is not None and found > 1
    assert waiting(found) <= 0.1 < waiting(found - 1)


# -- savings are evaluations ----------------------------------------------------------------------


def test_savings_are_the_predictions_of_the_changed_design():
    (casts,) = said("casts", "3x3", {"dtype": "amp_fp16"})
    assert casts.saving_s == pytest.approx(
        analysis("3x3", dtype="amp_fp16").latency - analysis("3x3", dtype="fp16").latency
    )
    (host,) = said("launch_bound", "small convs", {})
    modes = ("compile", "cudagraph", "reduce-overhead")
    quickest = min(analysis("small convs", mode=mode).latency for mode in modes)
    assert host.saving_s == pytest.approx(analysis("small convs").latency - quickest)
    assert all(f"{mode} would take" in host.change for mode in modes)
    (tf32,) = said("tf32_off", "layers", {})
    assert tf32.saving_s == pytest.approx(analysis("layers").latency - analysis("layers", dtype="tf32").latency)


def test_channels_last_is_evaluated_where_it_is_traced():
    now, other = analysis("3x3 of 256"), analysis("3x3 of 256", "nhwc")
    unknown = next(f for f in findings(now) if f.rule == "layout_copies")
    known = next(f for f in findings(now, channels_last=lambda: other) if f.rule == "layout_copies")
    assert unknown.saving_s is None and "not evaluated" in unknown.change
    on_device = now.at(host="instant").latency - other.at(host="instant").latency
    assert known.saving_s == pytest.approx(on_device, rel=0.02)


def test_folding_saves_the_norms_on_a_cpu_and_moves_them_to_the_bias_on_a_gpu():
    (cpu,) = said("batch_norm_unfolded", "normed", CPU)
    assert cpu.saving_s == pytest.approx(cpu.seconds_at_stake, rel=0.05)
    (gpu,) = said("batch_norm_unfolded", "normed", {})
    assert abs(gpu.saving_s) < 0.1 * gpu.seconds_at_stake


def test_what_the_host_hides_is_no_saving_of_the_step():
    (starts,) = said("small_kernels", "branches", {"batch": 1})  # torch.compile fuses their additions
    assert starts.saving_s is None
    assert "hidden while the host is the bottleneck" in starts.change


def test_dense_convolutions_of_equal_flops_are_faster_than_groups():
    """Table 2 of ShuffleNet V2 (GPU): at equal FLOPs 8 groups reach about a quarter of the speed of one."""
    (found,) = said("grouped_convolution", "grouped", {})
    assert 2 < found.evidence["grouped_s"] / found.evidence["dense_of_equal_flops_s"] < 8


def test_findings_run_the_model_nowhere(monkeypatch):
    """A search for the batch that fills a device asks for many batches: none of them is traced for it."""
    layers = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(8))).eval()
    now = costmodel.analyze(layers, torch.empty(1, 3, 40, 40), hw="a100")
    asked = []
    monkeypatch.setattr(now._traces, "retrace", lambda *at: asked.append(at))
    # As where a model is not known to take the same path at another batch: its trace has an open batch, unverified.
    monkeypatch.setattr(Trace, "fits", lambda self, batch, sizes, *, verified: batch == 1 or not verified)
    with pytest.raises(TypeError):
        now.at(batch=2)
    assert asked
    asked.clear()
    assert any(finding.rule == "launch_bound" for finding in findings(now))
    assert not asked


def test_what_parts_the_backward_pass_from_its_flops_is_told_with_its_causes():
    """Seconds and FLOPs of both passes are the rows' own; what it says is apart is their difference."""
    now = analysis("layer", **TRAINING)
    (finding,) = said("backward_is_not_twice", "layer", TRAINING)
    rows = {row.name: row for row in now.rows("phase")}
    ratio = rows["backward"].flops / rows["forward"].flops
    apart = rows["backward"].latency_s - ratio * rows["forward"].latency_s
    assert finding.seconds_at_stake == pytest.approx(abs(apart))
    assert finding.is_gain == (apart < 0)
    assert finding.evidence["flop_ratio"] == ratio


def test_the_split_of_a_training_step_adds_up_by_phase():
    for name in ("normed", "checkpointed", "layer"):
        parts = split(analysis(name, **TRAINING))
        rows = {row.name: row.latency_s for row in analysis(name, **TRAINING).rows("phase")}
        assert {phase.value: sum(causes.values()) for phase, causes in parts.by_phase.items()} == pytest.approx(rows)
        assert sum(rows.values()) == pytest.approx(parts.latency_s)


def test_a_fused_optimizer_is_advised_until_it_is_there():
    (finding,) = said("optimizer_traffic", "layer", {**TRAINING, "optimizer": "adam"})
    fused = {**TRAINING, "optimizer": "adam", "fused_optimizer": True}
    saved = analysis("layer", **TRAINING, optimizer="adam").latency - analysis("layer", **fused).latency
    assert finding.saving_s == pytest.approx(saved) and saved > 0
    (again,) = said("optimizer_traffic", "layer", fused)
    assert again.change == ""


def test_training_is_not_told_to_fold_norms_or_to_convert_its_weights():
    assert said("batch_norm_unfolded", "normed", TRAINING) == []
    assert all(not f.change for f in said("casts", "3x3", {**TRAINING, "dtype": "amp_fp16"}))


def test_what_a_checkpoint_runs_again_runs_in_the_autocast_of_the_first_time():
    """The same kernels as forward, norm for norm and product for product, and none of them in fp32 products."""
    now = analysis("checkpointed", **TRAINING, dtype="amp_fp16")
    nodes = now.bound.nodes
    found = {"forward": [], "again": []}
    for launch in now.plan.launches:
        node, kernel = nodes[launch.nodes[0]], now.plan.kernels[launch.kernel]
        if kernel.matrix_flops and node.op == "aten.convolution":
            found["forward" if node.phase.value == "forward" else "again"].append((kernel.algorithm, kernel.dtype))
    assert found["again"] == found["forward"] and len(found["again"]) == 2
    assert {dtype for _, dtype in found["again"]} == {"fp16"}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_in_training_whose_weight_is_a_list_are_explained(kind):
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = kind(64, 64, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0]

    found = costmodel.analyze(Sequences(), torch.empty(2, 4, 64), hw="a100", phase="training")
    assert found.findings
