"""What people write around their layers: devices asked by name, branches, loops, wrappers, lazy layers.

Every expected count is the arithmetic beside it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import costmodel
from costmodel.errors import TraceError


def analyzed(module: nn.Module, *inputs: torch.Tensor, hw: str = "a100", **options: Any) -> costmodel.Analysis:
    return costmodel.analyze(module.eval(), inputs, hw=hw, **options)


class Calls(nn.Module):
    """A forward pass given as a function of (self, *inputs)."""

    def __init__(self, forward: Any, **children: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.run(self, *inputs)


# -- the device's name --------------------------------------------------------------------------


def by_device(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.wide(x) if x.device.type == "cuda" else self.narrow(x)


def test_a_model_sees_the_kind_of_device_that_it_is_analyzed_for():
    analysis = analyzed(Calls(by_device, wide=nn.Linear(8, 32), narrow=nn.Linear(8, 2)), torch.zeros(3, 8))
    assert analysis.totals.macs == 3 * 8 * 32
    assert analysis.at(hw="mi250x").totals.macs == 3 * 8 * 32
    assert analysis.at(hw="epyc-7763").totals.macs == 3 * 8 * 2
    assert analysis.at(hw="epyc-7763").at(hw="t4").totals.macs == 3 * 8 * 32


def test_a_trace_depends_on_the_device_only_if_the_model_asked():
    asked = analyzed(Calls(by_device, wide=nn.Linear(8, 32), narrow=nn.Linear(8, 2)), torch.zeros(3, 8))
    assert asked.record.device == "cuda"
    assert analyzed(nn.Linear(8, 4), torch.zeros(3, 8)).record.device == ""
    assert asked.at(hw="epyc-7763").record.device == "cpu"


@pytest.mark.parametrize("hw", ["a100", "epyc-7763"])
@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.head(x.cuda()),
        lambda self, x: self.head(x.to("cuda:0")),
        lambda self, x: self.head(x.to(device=x.device, dtype=torch.float32)),
        lambda self, x: self.head(x + torch.ones(8, device=x.device)),
        lambda self, x: self.head(x + torch.arange(8, device=torch.device("cuda")).type_as(x)),
        lambda self, x: self.to(x.device).head(x),
        lambda self, x: self.head(x.float()) if x.is_cuda == torch.cuda.is_available() else x,
        lambda self, x: self.head(x) if x.get_device() == (0 if torch.cuda.device_count() else -1) else x,
        lambda self, x: torch.utils.checkpoint.checkpoint(self.head, x, use_reentrant=False),
        lambda self, x: torch.compile(self.head)(x),
    ],
    ids="cuda to_cuda to_device made_there made_on_cuda module_to is_cuda get_device checkpoint compile".split(),
)
def test_ways_to_name_a_device(forward, hw):
    assert analyzed(Calls(forward, head=nn.Linear(8, 4)), torch.zeros(2, 8), hw=hw).totals.macs == 2 * 8 * 4


def test_a_choice_by_compute_capability_is_said():
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) if torch.cuda.get_device_capability(x.device) >= (8, 0) else x

    analysis = analyzed(Calls(forward, head=nn.Linear(8, 4)), torch.zeros(2, 8))
    assert analysis.totals.macs == 2 * 8 * 4
    assert any("asks what its GPU can do" in note and "(8.0)" in note for note in analysis.record.notes)


def test_torch_answers_as_before_once_the_trace_is_made():
    before = torch.cuda.is_available, torch.compile, torch.autocast.__enter__
    said = torch.cuda.is_available()
    with pytest.raises(TraceError):
        analyzed(Calls(lambda self, x: x.nothing), torch.zeros(2, 8))
    assert (torch.cuda.is_available, torch.compile, torch.autocast.__enter__) == before
    assert torch.cuda.is_available() == said
    assert torch.zeros(1).device.type == "cpu"


def test_a_cached_trace_serves_the_kinds_of_device_that_it_holds_for(tmp_path, monkeypatch):
    monkeypatch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path / "cache"))
    lines = [
        "from torch import nn, zeros",
        "class Net(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(8, 2)",
        "    def forward(self, x):",
        "        return self.wide(x) if x.is_cuda else self.narrow(x)",
        "def net():",
        "    return Net(), zeros(1, 8)",
    ]
    (tmp_path / "net.py").write_text("\n".join(lines))
    for hw, macs in 2 * [("a100", 8 * 32), ("epyc-7763", 8 * 2), ("t4", 8 * 32)]:
        assert costmodel.analyze(f"{tmp_path}/net.py:net", hw=hw).totals.macs == macs
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2


# -- autocast regions ---------------------------------------------------------------------------


def test_autocast_switched_off_around_a_layer():
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.second(x.float())

    analysis = analyzed(Calls(forward, first=nn.Linear(8, 4), second=nn.Linear(4, 2)), torch.zeros(2, 8))
    assert analysis.totals.macs == 2 * (8 * 4 + 4 * 2)
    assert [node.autocast for node in analysis.record.nodes if node.op == "aten.linear"] == ["", "off"]


def regions(self: Any, x: torch.Tensor) -> torch.Tensor:
    """fp32, then a layer in half precision, then one that asks for fp32."""
    x = self.first(x)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        x = self.second(x)
    with torch.autocast(x.device.type, enabled=False):
        return self.third(x.float())


def dtypes_of_products(analysis: costmodel.Analysis) -> list[str]:
    kernels = [analysis.plan.kernels[launch.kernel] for launch in analysis.plan.launches]
    return [kernel.dtype for kernel in kernels if kernel.matrix_flops]


@pytest.mark.parametrize(
    ("dtype", "products"),
    [
        ("fp32", ["fp32", "bf16", "fp32"]),
        ("amp_fp16", ["fp16", "bf16", "fp32"]),
        ("amp_bf16", ["bf16", "bf16", "fp32"]),
    ],
)
def test_products_run_in_the_dtype_of_their_autocast_region(dtype, products):
    layers = {name: nn.Linear(8, 8) for name in ("first", "second", "third")}
    assert dtypes_of_products(analyzed(Calls(regions, **layers), torch.zeros(2, 8), dtype=dtype)) == products


# -- operators that take functions --------------------------------------------------------------


def heads(n: int, heads: int, length: int, width: int) -> list[torch.Tensor]:
    return [torch.zeros(n, heads, length, width) for _ in range(3)]


def test_flex_attention_counts_every_pair():
    analysis = analyzed(Calls(lambda self, q, k, v: flex_attention(q, k, v)), *heads(2, 3, 64, 16))
    assert analysis.totals.macs == 2 * 3 * 64 * 64 * (16 + 16)
    assert any("flex_attention" in note for note in analysis.record.notes)
    assert analysis.latency > 0


def test_compiled_flex_attention_is_the_same():
    fused = torch.compile(flex_attention)
    assert analyzed(Calls(lambda self, q: fused(q, q, q)), heads(1, 2, 64, 16)[0]).totals.macs == 2 * 64 * 64 * 32


def test_flex_attention_counts_the_blocks_of_its_mask():
    causal = create_block_mask(lambda b, h, q, k: q >= k, None, None, 320, 320, device="cpu")
    q = heads(2, 4, 320, 16)
    analysis = analyzed(Calls(lambda self, q, k, v: flex_attention(q, k, v, block_mask=causal)), *q)
    # Blocks of 128: rows 0..127 meet keys 0..127, rows 128..255 keys 0..255, the last 64 rows all 320.
    assert analysis.totals.macs == 2 * 4 * (128 * 128 + 128 * 256 + 64 * 320) * 32
    whole = analyzed(Calls(lambda self, q, k, v: flex_attention(q, k, v)), *q)
    assert analysis.latency < whole.latency


def test_score_mod_is_counted_for_every_score():
    plain = analyzed(Calls(lambda self, q: flex_attention(q, q, q)), heads(1, 2, 64, 16)[0])
    bent = analyzed(
        Calls(lambda self, q: flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: torch.tanh(s / 20) * 20)),
        heads(1, 2, 64, 16)[0],
    )
    assert bent.totals.flops - plain.totals.flops == 2 * 64 * 64 * 3  # a division, a tanh, a product


def test_cond_takes_the_branch_that_is_known():
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(torch.tensor(x.shape[1] > 4), self.wide.forward, self.narrow.forward, (x,))

    module = Calls(forward, wide=nn.Linear(8, 32), narrow=nn.Linear(8, 2))
    assert analyzed(module, torch.zeros(3, 8)).totals.macs == 3 * 8 * 32


@pytest.mark.parametrize("dearer", ["true", "false"])
def test_of_an_unknown_branch_the_dearer_one_is_counted(dearer):
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        branches = (self.wide, self.narrow) if dearer == "true" else (self.narrow, self.wide)
        return self.head(torch.cond(x.sum() > 0, *branches, (x,)))

    wide, narrow = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 4)), nn.Linear(8, 4)
    analysis = analyzed(Calls(forward, wide=wide, narrow=narrow, head=nn.Linear(4, 4)), torch.zeros(3, 8))
    assert analysis.totals.macs == 3 * (8 * 32 + 32 * 4 + 4 * 4)
    assert any("torch.cond" in note and f"that of {dearer}" in note for note in analysis.record.notes)


def test_a_loop_of_known_length_is_unrolled():
    from torch._higher_order_ops import while_loop

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        start = torch.tensor(0)
        return while_loop(lambda i, x: i < 5, lambda i, x: (i + 1, self.step(x)), (start, x))[1]

    assert analyzed(Calls(forward, step=nn.Linear(8, 8)), torch.zeros(3, 8)).totals.macs == 5 * 3 * 8 * 8


def test_a_loop_that_ends_by_values_is_refused():
    from torch._higher_order_ops import while_loop

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return while_loop(lambda x: x.sum() < 5, lambda x: (self.step(x),), (x,))[0]

    with pytest.raises(TraceError, match="while_loop"):
        analyzed(Calls(forward, step=nn.Linear(8, 8)), torch.zeros(3, 8))


def test_scan_and_map_take_a_step_a_row():
    from torch._higher_order_ops import map as map_rows
    from torch._higher_order_ops import scan

    def scanned(self: Any, x: torch.Tensor) -> torch.Tensor:
        return scan(lambda c, row: ((h := self.step(c + row)), h.clone()), torch.zeros(4, 8), x, dim=1)[1]

    def mapped(self: Any, x: torch.Tensor) -> torch.Tensor:
        return map_rows(self.step, x.transpose(0, 1))

    for forward in (scanned, mapped):
        module = Calls(forward, step=nn.Linear(8, 8))
        assert analyzed(module, torch.zeros(4, 6, 8)).totals.macs == 6 * 4 * 8 * 8


# -- wrappers, lazy layers, masks ---------------------------------------------------------------


def test_data_parallel_is_taken_off():
    analysis = analyzed(nn.DataParallel(nn.Linear(8, 8)), torch.zeros(2, 8))
    assert analysis.totals.macs == 2 * 8 * 8
    assert any("DataParallel" in note for note in analysis.record.notes)


def test_a_distributed_module_is_taken_off(tmp_path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        analysis = analyzed(nn.parallel.DistributedDataParallel(nn.Linear(8, 8)), torch.zeros(2, 8))
    finally:
        dist.destroy_process_group()
    assert analysis.totals.macs == 2 * 8 * 8
    assert any("DistributedDataParallel" in note for note in analysis.record.notes)


def test_a_wrapper_inside_a_model_keeps_its_place():
    module = nn.Sequential(nn.DataParallel(nn.Linear(8, 8)), nn.Linear(8, 4))
    analysis = analyzed(module, torch.zeros(2, 8))
    assert analysis.totals.macs == 2 * (8 * 8 + 8 * 4)
    assert [node.module for node in analysis.record.nodes] == ["0.module", "1"]


def test_compiled_modules_are_taken_off():
    analysis = analyzed(torch.compile(nn.Linear(8, 8)), torch.zeros(2, 8))
    assert analysis.totals.macs == 2 * 8 * 8
    assert any("torch.compile" in note for note in analysis.record.notes)


def test_lazy_layers_are_made_on_a_copy():
    module = nn.Sequential(nn.LazyConv2d(6, 3, padding=1), nn.Flatten(), nn.LazyLinear(16), nn.LazyBatchNorm1d())
    analysis = analyzed(module, torch.zeros(2, 3, 4, 4))
    assert analysis.totals.macs == 2 * (4 * 4 * 6 * 3 * 9 + 4 * 4 * 6 * 16)
    assert analysis.totals.params == (6 * 3 * 9 + 6) + (96 * 16 + 16) + 2 * 16
    assert all(module[i].has_uninitialized_params() for i in (0, 2, 3))


def test_a_padding_mask_is_counted_as_if_it_hid_nothing():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    inputs = torch.zeros(2, 10, 32), None, torch.zeros(2, 10, dtype=torch.bool)
    analysis = costmodel.analyze(nn.TransformerEncoder(layer, 2).eval(), inputs, hw="a100")
    # Of each of 2 layers: 4 projections, 2 layers of the feed-forward network, and two products of attention.
    assert analysis.totals.macs == 2 * (2 * 10 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 2 * 10 * 10 * 32)
    assert any("padding mask" in note for note in analysis.record.notes)


def test_a_range_of_the_profiler_is_no_operator():
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.profiler.record_function("head"):
            return self.head(x)

    analysis = analyzed(Calls(forward, head=nn.Linear(8, 4)), torch.zeros(2, 8))
    assert [node.op for node in analysis.record.nodes] == ["aten.linear"]


def test_transposed_and_unequal_shapes():
    depthwise = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=4)
    assert analyzed(depthwise, torch.zeros(2, 4, 8, 8)).totals.macs == 2 * 4 * 8 * 8 * 9  # inputs times taps
    grouped = nn.ConvTranspose2d(6, 6, 2, stride=2, groups=3)
    assert analyzed(grouped, torch.zeros(2, 6, 8, 8)).totals.macs == 2 * 6 * 8 * 8 * 2 * 4
    q, k, v = (torch.zeros(1, 4, 32, d) for d in (24, 24, 16))
    attention = Calls(lambda self, q, k, v: nn.functional.scaled_dot_product_attention(q, k, v))
    assert analyzed(attention, q, k, v).totals.macs == 4 * 32 * 32 * (24 + 16)


def test_a_module_is_never_touched():
    module = Calls(by_device, wide=nn.Linear(8, 32), narrow=nn.Linear(8, 2)).eval()
    before = copy.deepcopy(module.state_dict())
    analyzed(module, torch.zeros(3, 8)).at(hw="epyc-7763")
    after = module.state_dict()
    assert all(torch.equal(after[k], before[k]) and not after[k].is_meta for k in before)


# -- packed sequences, quantized layers, sparse matrices ----------------------------------------


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences_count_the_steps_that_they_hold(kind):
    def forward(self: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

    module = Calls(forward, rnn=kind(8, 16, batch_first=True, bidirectional=True))
    gates = {nn.LSTM: 4, nn.GRU: 3}[kind]
    analysis = analyzed(module, torch.zeros(3, 5, 8), torch.tensor([5, 2, 4]))
    assert analysis.totals.macs == (5 + 2 + 4) * 2 * gates * 16 * (8 + 16)
    assert analysis.coverage.uncosted == ()


def test_dynamically_quantized_layers_read_a_byte_a_weight():
    plain = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    module = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    analysis = analyzed(module, torch.zeros(2, 64), hw="epyc-7763")
    assert analysis.totals.macs == 2 * (64 * 32 + 32 * 16)
    assert analysis.totals.params == 64 * 32 + 32 + 32 * 16 + 16
    assert analysis.record.parameter_bytes_of == {"int8": 64 * 32 + 32 * 16, "float32": 4 * (32 + 16)}
    assert analysis.coverage.uncosted == ()
    assert analysis.latency > 0
    assert any("CPUs alone" in note for note in analysis.at(hw="a100").record.notes)


class Int8Weight(torch.Tensor):
    """A weight kept as integers and a scale a row, which a linear layer widens: a small copy of what torchao makes."""

    @staticmethod
    def __new__(cls, integers: torch.Tensor, scale: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype, device=integers.device)

    def __init__(self, integers: torch.Tensor, scale: torch.Tensor) -> None:
        self.integers, self.scale = integers, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["integers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, torch.Tensor], *_: Any) -> Any:
        return cls(inner["integers"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].integers, args[0].scale)
        if func is torch.ops.aten.linear.default:
            x, weight, *bias = args
            return torch.nn.functional.linear(x, weight.integers.to(x.dtype) * weight.scale, *bias)
        raise NotImplementedError(func)


def test_weights_that_are_subclasses_run_as_what_they_are_made_of():
    module = nn.Linear(64, 32)
    module.weight = nn.Parameter(
        Int8Weight(torch.zeros(32, 64, dtype=torch.int8), torch.ones(32, 1)), requires_grad=False
    )
    analysis = analyzed(module, torch.zeros(2, 64))
    assert [node.op for node in analysis.record.nodes] == ["aten._to_copy", "aten.mul", "aten.linear"]
    assert analysis.totals.macs == 2 * 64 * 32
    assert analysis.totals.params == 64 * 32 + 32
    assert analysis.record.parameter_bytes_of == {"int8": 64 * 32, "float32": 4 * (32 + 32)}
    assert isinstance(module.weight, Int8Weight)
    assert not module.weight.integers.is_meta


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_product_does_the_work_of_what_is_stored(layout):
    matrix = torch.zeros(6, 5)
    matrix[[0, 1, 1, 4], [2, 0, 3, 4]] = 1.0
    module = Calls(lambda self, x: torch.sparse.mm(self.matrix, x) + (self.matrix @ x))
    module.register_buffer("matrix", matrix.to_sparse() if layout == "coo" else matrix.to_sparse_csr())
    analysis = analyzed(module, torch.zeros(5, 7))
    assert analysis.totals.macs == 2 * 4 * 7  # 4 elements, a row of 7 each, two products
    assert analysis.coverage.uncosted == ()


def test_a_sparse_matrix_made_of_its_indices():
    def forward(self: Any, edges: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(edges.shape[1], device=x.device)
        return torch.sparse.mm(torch.sparse_coo_tensor(edges, ones, (x.shape[0], x.shape[0])), x)

    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    assert analyzed(Calls(forward), edges, torch.zeros(6, 8)).totals.macs == 3 * 8
