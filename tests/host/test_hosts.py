"""The room of hosts: files, spans, what operators cost, and what intervals make of a host that nobody named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import costmodel
from costmodel import hardware
from costmodel.engines import engine_names
from costmodel.errors import InputError, ProfileError
from costmodel.execution import Phase, Software
from costmodel.hardware import load
from costmodel.host import INSTANT, HostProfile, costs_of, host_names, host_of, hosts, read_host, span_of
from costmodel.host.costs import CLASSES, class_of

DEVICES = [name for name in hardware.names() if load(name).family.issues_ahead]


@pytest.fixture(scope="module")
def net():
    """Convolutions, norms, activations, a cat, a product: 13 operators of nearly no work."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.b = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))

    return costmodel.analyze(Net().eval(), torch.empty(1, 8, 8, 8), hw="a100")


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", hosts(), ids=lambda host: host.name)
def test_every_host_has_a_figure_and_its_source(host):
    assert host.name in host_names()
    assert 0.3 < host.slowdown < 5
    assert 0 < host.spread < 0.5
    assert len(host.source) > 20
    assert host.cpu


@pytest.mark.parametrize("name", DEVICES)
def test_the_usual_host_of_a_machine_lies_within_its_span(name):
    span = span_of("usual", load(name))
    assert span.quickest.slowdown <= span.assumed.slowdown <= span.slowest.slowdown
    quick, slow = span.bounds
    assert quick.slowdown < span.quickest.slowdown and slow.slowdown > span.slowest.slowdown
    assert not span.is_named


def test_a_named_host_is_the_only_one():
    span = span_of("epyc-7742", load("t4"))
    assert span.is_named and span.assumed.name == "epyc-7742"
    assert span_of("instant", load("t4")).assumed is INSTANT
    assert [host.slowdown for host in span_of("instant", load("t4")).bounds] == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "h"\ntitle = "H"\nslowdown = 0\nsource = "s"\n', "slowdown: must be a number between 0 and 100"),
        ('name = "h"\ntitle = "H"\nslowdown = 1\n', "source: is missing"),
        ('name = "h"\ntitle = "H"\nslowdown = 1\nsource = "s"\nspeed = 3\n', "speed: no such key"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_a_broken_host_file_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    (tmp_path / "h.toml").write_text(text)
    with pytest.raises(ProfileError, match=message):
        read_host(tmp_path / "h.toml")


def test_a_host_file_is_used_by_its_path(tmp_path: Path, net):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "mine"\nslowdown = 3.0\nspread = 0.1\nsource = "measured here"\n')
    mine = net.at(host=str(path))
    assert mine.host.name == "mine"
    assert mine.latency == pytest.approx(net.latency_under(HostProfile(name="x", slowdown=3.0)))
    with pytest.raises(InputError, match="there is no host profile"):
        net.at(host=str(tmp_path / "absent.toml"))


def test_a_gpu_measured_with_its_host_knows_its_host():
    own = dataclasses.replace(load("t4"), measured_slowdown=1.7)
    assert host_of("usual", own).slowdown == 1.7
    assert span_of("usual", own).is_named


# -- what operators cost -------------------------------------------------------------------------------------------


def test_classes_are_those_that_have_a_cost():
    ops = [
        "conv2d",
        "relu",
        "view",
        "cat",
        "linear",
        "batch_norm",
        "scaled_dot_product_attention",
        "max_pool2d",
        "lstm",
    ]
    assert {class_of(f"aten.{op}") for op in ops} <= set(CLASSES)
    for software in (Software(), Software(torch="1.7.0")):
        assert set(costs_of(software).classes) == set(CLASSES)
        assert min(costs_of(software).classes.values()) > 0


@pytest.mark.parametrize("mode", engine_names(Phase.INFERENCE))
def test_host_time_is_in_proportion_to_the_host(net, mode):
    """Twice as slow a host takes twice as long for what is the host's own: all but the gaps within a graph."""
    now = net.at(mode=mode)
    one, two = (HostProfile(name="h", slowdown=s) for s in (1.0, 2.0))
    slow, quick = (now.engine.issued(now.plan, now.bound, now.execution, host) for host in (two, one))
    gap = costs_of(Software()).reduce_overhead.gap_us if mode == "reduce-overhead" else 0.0
    gap = costs_of(Software()).cudagraph.gap_us if mode == "cudagraph" else gap
    for i, (a, b) in enumerate(zip(slow, quick, strict=True)):
        assert a - gap * 1e-6 * i == pytest.approx(2 * (b - gap * 1e-6 * i))


def test_the_host_of_an_eager_step_is_the_sum_of_its_parts(net):
    """Counted by hand: two convolutions, one of them with cuDNN, with their modules; norms, activations, cat, mean,
    linear; and the kernels beyond each operator's first."""
    costs = costs_of(Software())
    c = costs.classes
    operators = c["convolution"] + c["native_convolution"] + 2 * c["normalization"] + 2 * c["pointwise"]
    operators += c["concatenation"] + c["reduction"] + c["product"]
    results = 9 * costs.allocation  # the two activations too: nn.ReLU() is out of place
    modules = (2 + 1 + 1 + 2 + 1 + 1 + 1) * costs.module  # a.0 enters two modules, a.1 and a.2 one each; b alike; head
    plan, graph = net.plan, net.bound
    algorithms = [plan.kernels[launch.kernel].algorithm for launch in plan.launches]
    biases, conversions = algorithms.count("bias"), sum("nhwc" in word for word in algorithms)
    assert biases == 1  # of the convolution by cuDNN; the native one and the product add theirs themselves
    working = len({launch.nodes[-1] for launch in plan.launches})
    further = (len(algorithms) - working - biases - conversions) * costs.launch
    further += biases * costs.inner + conversions * costs.conversion
    assert further == pytest.approx(biases * costs.inner + conversions * costs.conversion)
    host = HostProfile(name="h", slowdown=1.0)
    issued = net.engine.issued(plan, graph, net.execution, host)
    assert issued[-1] == pytest.approx((operators + results + modules + further) * 1e-6)


@pytest.mark.parametrize("name", ["net", "resnet18"])
def test_autocast_never_makes_the_host_quicker(net, name):
    """Casts and looks into the cache come on top: at batch 1 the host issues fp32 no later."""
    now = net if name == "net" else costmodel.analyze("torchvision:resnet18", hw="a100")
    for mode in ("eager", "compile"):
        fp32, amp = (now.at(dtype=dtype, mode=mode).issued[-1] for dtype in ("fp32", "amp_fp16"))
        assert amp >= fp32 or mode == "compile"


@pytest.mark.parametrize("dtype", ["fp32", "amp_fp16"])
def test_a_compiled_step_takes_no_less_than_its_launches_need(net, dtype):
    now = net.at(mode="compile", dtype=dtype)
    least = min(costs_of(Software()).compiled.generated, costs_of(Software()).compiled.product)
    assert now.issued[-1] >= now.host.seconds(least * len(now.plan.launches))


# -- copies, train mode, intervals ---------------------------------------------------------------------------------


def test_guards_in_python_made_a_compiled_call_dearer(net):
    """PyTorch checks them in C++ since 2.5; eager steps know none."""
    for mode, dearer in (("compile", True), ("reduce-overhead", True), ("eager", False)):
        before, since = (net.at(mode=mode, torch=release).issued[0] for release in ("2.4.1", "2.5.0"))
        assert (before > since + 100e-6) == dearer


def test_inputs_on_the_host_are_copied_first(net):
    copied = net.at(inputs="host")
    nbytes = 1 * 8 * 8 * 8 * 4
    assert copied.issuing.input_bytes == nbytes
    assert copied.latency == pytest.approx(net.latency + nbytes / net.host.copy_bytes_per_s)
    with pytest.raises(InputError, match="place of inputs 'disk'"):
        net.at(inputs="disk")


def test_how_fast_a_host_copies_is_less_certain_where_nobody_named_it():
    """Bounds hold the assumed rate, the quick one above and the slow one below; naming the host draws them in."""
    usual, named = span_of("usual", load("titan-rtx")), span_of("server-2019", load("titan-rtx"))
    assert usual.assumed.name == named.assumed.name == "server-2019"
    (quick, slow), (near, far) = usual.bounds, named.bounds
    rate = named.assumed.copy_bytes_per_s
    assert slow.copy_bytes_per_s < far.copy_bytes_per_s < rate < near.copy_bytes_per_s < quick.copy_bytes_per_s


def test_train_mode_takes_the_statistics_of_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained, usual = (
        costmodel.analyze(model, torch.empty(4, 3, 16, 16), hw="a100", train_mode=mode) for mode in (True, False)
    )
    (norm,) = (call for call in trained.bound.calls if call.op == "aten.batch_norm")
    assert dict(norm.arguments)["training"] is True
    assert trained.totals.macs == usual.totals.macs
    assert trained.issued[-1] > usual.issued[-1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_at_another_train_mode_traces_the_module_again():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    usual = costmodel.analyze(model, torch.empty(4, 3, 16, 16), hw="a100")
    trained = usual.at(train_mode=True)
    (norm,) = (call for call in trained.bound.calls if call.op == "aten.batch_norm")
    assert dict(norm.arguments)["training"] is True
    assert any(node.op == "aten.add" for node in trained.bound.nodes)  # the count of batches that were seen
    again = trained.at(train_mode=False)
    assert [node.op for node in again.bound.nodes] == ["aten.conv2d", "aten.batch_norm", "aten.relu"]


def test_a_host_that_nobody_named_widens_the_interval(net):
    usual, named = net, net.at(host=net.host.name)
    assert usual.latency == named.latency
    assert usual.totals.latency_low_s < named.totals.latency_low_s < named.latency
    assert usual.totals.latency_high_s > named.totals.latency_high_s > named.latency


def test_a_step_of_long_kernels_hangs_on_no_host():
    big = costmodel.analyze(nn.Conv2d(256, 256, 3, padding=1), torch.empty(256, 256, 56, 56), hw="a100")
    usual, named = big.totals, big.at(host="epyc-7742").totals
    assert usual.latency_high_s == pytest.approx(named.latency_high_s, rel=0.01)
    assert usual.latency_low_s == pytest.approx(named.latency_low_s, rel=0.01)
