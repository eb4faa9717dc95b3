"""Sparse gradients of embeddings: rows that were looked up are stepped, and the table is left alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from costmodel import analyze
from costmodel.errors import CostmodelError, InputError
from costmodel.execution import NodePhase

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

WORDS, WIDTH, BATCH, LENGTH = 100_000, 64, 8, 16
ROWS = BATCH * LENGTH
ROW, TABLE = 4 * WIDTH, 4 * WIDTH * WORDS


class Bag(nn.Module):
    """Means of embedded words, classified."""

    def __init__(self, *, sparse: bool, words: int = WORDS, heads: int = 10) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(words, WIDTH, sparse=sparse), nn.Linear(WIDTH, heads)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(words).mean(1))


def trained(sparse: bool = True, **how: Any):
    words = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
    how = {"hw": "a100", "optimizer": "sgd", "use_cache": False, **how}
    return analyze(Bag(sparse=sparse), words, phase="training", **how)


def step_of(analysis) -> list[Any]:
    """(node, its cost) of the optimizer's calls for the table."""
    pairs = [(n, analysis.node_costs.of_node(i)) for i, n in enumerate(analysis.bound.nodes)]
    return [(n, c) for n, c in pairs if n.phase is NodePhase.OPTIMIZER and n.module == "embedding"]


def test_sgd_steps_the_rows_and_not_the_table() -> None:
    found = trained()
    scaled, added = step_of(found)
    assert [scaled[0].op, added[0].op] == ["aten.mul", "aten.index_add"]
    moved = 8 * ROWS  # which rows they are
    assert (scaled[1].bytes_read, scaled[1].bytes_written) == (ROWS * ROW, ROWS * ROW)
    assert (added[1].bytes_read, added[1].bytes_written) == (2 * ROWS * ROW + moved, ROWS * ROW)
    assert scaled[1].vector_flops + added[1].vector_flops == 2 * ROWS * WIDTH  # a product and a sum an element
    assert not found.coverage.uncosted


def test_the_gradient_takes_the_memory_of_its_rows() -> None:
    sparse, dense = trained(), trained(sparse=False)
    assert dense.totals.peak_memory_bytes - sparse.totals.peak_memory_bytes > TABLE - 4 * ROWS * ROW
    assert dense.latency > sparse.latency
    gradient = sparse.bound.specs[sparse.bound.tensors[sparse.bound.gradients["embedding.weight"]].spec]
    assert gradient.shape == (ROWS, WIDTH)


def test_batches_follow_without_another_trace() -> None:
    found = trained()
    twice = found.at(batch=2 * BATCH)
    assert [c.bytes_written for _, c in step_of(twice)] == [2 * c.bytes_written for _, c in step_of(found)]


def test_sparse_adam_keeps_whole_moments_and_steps_rows() -> None:
    found = trained(optimizer="sparse_adam")
    costs = step_of(found)
    assert all(max(c.bytes_read, c.bytes_written) < 4 * ROWS * ROW for _, c in costs)
    kept = [t for t in found.bound.tensors if t.name.startswith("embedding.weight.exp_avg")]
    assert sorted(t.name for t in kept) == ["embedding.weight.exp_avg", "embedding.weight.exp_avg_sq"]
    assert sum(found.bound.storages[t.storage].nbytes for t in kept) == 2 * TABLE
    dense = [n.op for n in found.bound.nodes if n.phase is NodePhase.OPTIMIZER and n.module != "embedding"]
    assert "aten._foreach_addcdiv" in dense  # Adam for the others


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sparse = any(isinstance(a, torch.Tensor) and a.is_sparse for a in args)
        first = next((a.numel() for a in args if isinstance(a, torch.Tensor) and not a.is_sparse), 0)
        self.ops.append((func._schema.name.removeprefix("aten::").rstrip("_"), 0 if sparse else first))
        return func(*args, **(kwargs or {}))


def test_the_calls_are_those_of_a_real_step_of_sparse_adam() -> None:
    """On the CPU, where torch computes: arithmetic on values, and sparse tensors added to the three tables."""
    module = Bag(sparse=True, words=1000)
    words = torch.arange(ROWS).reshape(BATCH, LENGTH)
    optimizer = torch.optim.SparseAdam([module.embedding.weight])
    for _ in range(2):
        optimizer.zero_grad()
        module(words).sum().backward()
        with _Seen() as seen:
            optimizer.step()
    values = Counter(op for op, size in seen.ops if size == ROWS * WIDTH)
    arithmetic = {op: n for op, n in values.items() if op in ("sub", "mul", "pow", "add", "sqrt", "div")}
    found = Counter(n.op.removeprefix("aten.") for n, _ in step_of(trained(optimizer="sparse_adam")))
    assert {op: found[op] for op in arithmetic} == arithmetic
    tables = [op for op, _ in seen.ops].count("coalesce"), [op for op, _ in seen.ops].count("sparse_mask")
    assert (found["sparse.coalesce"], found["index_select"]) == (1, 2)
    assert tables[1] == 2
    assert found["index_add"] == 3


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam", "adamw", "adam8bit"])
def test_what_torch_refuses_is_refused_with_what_to_do(optimizer: str) -> None:
    with pytest.raises(InputError, match=r"embedding.weight has a sparse gradient(.|\n)*--optimizer sgd"):
        _ = trained(optimizer=optimizer).latency
    for also in ({"fused_optimizer": True}, {"weight_decay": True}):
        with pytest.raises(InputError, match="sparse gradient"):
            _ = trained(optimizer="sgd", **also).latency


def test_a_scaler_looks_through_the_values() -> None:
    found = trained(dtype="amp_fp16")
    (unscale,) = [n for n in found.bound.nodes if "amp_foreach" in n.op]
    shapes = [found.bound.specs[found.bound.tensors[t].spec].shape for t in unscale.inputs]
    assert (ROWS, WIDTH) in shapes and (WORDS, WIDTH) not in shapes


def test_a_sum_of_sparse_gradients_is_refused() -> None:
    class Twice(Bag):
        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return super().forward(words) + super().forward(words.flip(0))

    with pytest.raises(CostmodelError, match="sum of sparse tensors"):
        analyze(Twice(sparse=True), torch.zeros(BATCH, LENGTH, dtype=torch.int64), hw="a100", phase="training",
                optimizer="sgd", use_cache=False)  # fmt: skip


def test_on_a_cpu_and_from_the_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [n.op for n, _ in step_of(trained(hw="epyc-7763"))] == ["aten.mul", "aten.index_add"]
    from costmodel.graph_json import from_json, to_json

    graph = trained().record
    assert from_json(to_json(graph)).sparse_rows.keys() == {"embedding.weight"}
