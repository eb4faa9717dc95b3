"""Models that run: conditions of the run, memory that does not suffice, forward passes that fail."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.errors import InputError, ModelError
from costmodel.execution import Execution

torch = pytest.importorskip("torch")

from costmodel.measure import run  # noqa: E402
from costmodel.measure.run import device_name, fitting, place, time_and_profile  # noqa: E402
from costmodel.measure.running import OutOfMemory, Runnable, prepare  # noqa: E402
from costmodel.traced import load_trace  # noqa: E402

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append((x.shape, x.dtype, x.is_contiguous(memory_format=torch.channels_last), x.requires_grad,
                          torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), self.training))
        return self.conv(x).relu_()

def net():
    return Net(), torch.zeros(1, 3, 16, 16)

def broken():
    class Broken(Net):
        def forward(self, x):
            if not x.is_meta:
                raise ValueError("no such colour")
            return self.conv(x)
    return Broken(), torch.zeros(1, 3, 16, 16)

def lookup():
    return nn.Embedding(7, 4), torch.zeros(1, 5, dtype=torch.int64)
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nets") / "net.py"
    path.write_text(NET)
    return f"{path}:net"


def seen_by(runnable: Runnable) -> Any:
    """What the network above saw in its last call."""
    runnable.call()
    cells = [cell.cell_contents for cell in runnable.call.__closure__ or ()]
    module = next(cell for cell in cells if isinstance(cell, torch.nn.Module))
    return module.seen[-1]


def test_a_model_runs_in_eval_mode_without_autograd_at_its_batch(net: str) -> None:
    shape, dtype, _, grad, inference, _, training = seen_by(prepare(net, Execution.of(batch=3)))
    assert shape == (3, 3, 16, 16) and dtype == torch.float32
    assert inference and not grad and not training


def test_layout_dtype_and_autocast_are_those_of_the_execution(net: str) -> None:
    assert seen_by(prepare(net, Execution.of(layout="nhwc", batch=2)))[2] is True
    assert seen_by(prepare(net, Execution.of(dtype="bf16")))[1] == torch.bfloat16
    _, dtype, _, _, _, autocast, _ = seen_by(prepare(net, Execution.of(dtype="amp_bf16")))
    assert dtype == torch.float32 and autocast is True


def test_weights_and_inputs_repeat(net: str) -> None:
    first, second = (prepare(net, Execution()).call() for _ in range(2))
    assert torch.equal(first, second)


def test_token_inputs_are_rows_of_the_table(net: str) -> None:
    runnable = prepare(net.replace(":net", ":lookup"), Execution.of(batch=50))
    runnable.check()  # an index beyond the table would raise


def test_a_forward_pass_that_fails_is_the_models_error(net: str) -> None:
    with pytest.raises(ModelError, match=r"Broken|broken.*eager.*no such colour"):
        prepare(net.replace(":net", ":broken"), Execution()).check()


def fails_above(limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let models above this batch run out of memory, as torch's CPU allocator says it; the batches that were tried."""
    tried: list[int] = []

    def check(self: Runnable) -> None:
        tried.append(self.execution.batch)
        if self.execution.batch > limit:
            raise OutOfMemory("does not fit")

    monkeypatch.setattr(Runnable, "check", check)
    return tried


def test_the_batch_is_halved_only_when_asked(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fails_above(3, monkeypatch)
    assert fitting(net, Execution.of(batch=16), halve=True).execution.batch == 2
    assert tried == [16, 8, 4, 2]
    with pytest.raises(OutOfMemory):
        fitting(net, Execution.of(batch=16))


def test_the_first_run_has_the_threads_of_the_measurement(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code is guarded by the number of threads: with another one it would be compiled again, untimed."""
    seen: list[int] = []
    monkeypatch.setattr(Runnable, "check", lambda self: seen.append(torch.get_num_threads()))
    fitting(net, Execution(), threads=1)
    assert seen == [1]


def test_halving_ends_at_one(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fails_above(0, monkeypatch)
    with pytest.raises(OutOfMemory):
        fitting(net, Execution.of(batch=4), halve=True)
    assert tried == [4, 2, 1]


def test_torchs_words_for_missing_memory_are_understood(net: str) -> None:
    def call() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried")

    runnable = Runnable(name="net", device="cpu", execution=Execution.of(batch=8), call=call, sizes={})
    with pytest.raises(OutOfMemory, match=r"(?s)batch 8.*--halve-batch"):
        runnable.check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where no GPU is")
def test_no_gpu_is_said_before_anything_is_built() -> None:
    with pytest.raises(InputError, match="CUDA"):
        prepare("no-such-model", Execution(), device="cuda")


def test_a_live_run_lands_on_the_nodes_of_its_graph(net: str) -> None:
    runnable = fitting(net, Execution.of(batch=2))
    timed = time_and_profile(runnable, repeats=3, steps=2, threads=1)
    graph = load_trace(net, use_cache=False).graph.bind({"batch": 2})
    measured = place(timed, graph, model=net, device=device_name("cpu"))
    assert [node.op for node in measured.nodes] == ["aten.conv2d", "aten.relu"]
    assert all(node.measured_us > 0 for node in measured.nodes)
    assert measured.attributed_share == 1.0
    assert (measured.threads, measured.repeats, measured.execution.batch) == (1, 3, 2)
    assert measured.sizes == {"height": 16, "width": 16} and measured.torch == torch.__version__


def test_a_run_that_does_not_settle_is_said(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "end_to_end", lambda *a, **k: run.Latency((1.0, 2.0), 50, False))
    runnable = fitting(net, Execution())
    timed = time_and_profile(runnable, repeats=2, steps=1)
    graph = load_trace(net, use_cache=False).graph.bind({"batch": 1})
    assert any("had not settled after 50" in note for note in place(timed, graph, model=net, device="x").notes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("mode", ["eager", "compile"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "amp_bf16"])
def test_a_gpus_kernels_land_on_nodes(net: str, mode: str, dtype: str) -> None:
    runnable = fitting(net, Execution.of(batch=4, mode=mode, dtype=dtype), device="cuda")
    timed = time_and_profile(runnable, repeats=3, steps=2)
    graph = load_trace(net, use_cache=False).graph.bind({"batch": 4})
    measured = place(timed, graph, model=net, device=device_name("cuda"))
    assert measured.on_device and measured.attributed_share > 0.95
    assert measured.nodes[0].measured_us > 0
