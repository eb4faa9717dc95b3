"""Autocast and checkpoints: what is run again casts its weights again."""

from __future__ import annotations

from collections import Counter

import pytest

from costmodel import analyze

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

WIDTH = 32


class Blocks(nn.Module):
    def __init__(self, *, checkpointed: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(3))
        self.head, self.checkpointed = nn.Linear(WIDTH, 10), checkpointed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.head(x)


class _Casts(TorchDispatchMode):
    """Counts casts of matrices as large as a block's weight from fp32 down."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        low = func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16
        self.count += low and args[0].shape == (WIDTH, WIDTH)
        return func(*args, **(kwargs or {}))


def real_casts(module: nn.Module) -> int:
    """Casts of the blocks' weights in a real step on the CPU, with autocast around the forward pass as recipes do."""
    x = torch.randn(8, WIDTH)  # of another shape than the weights
    with _Casts() as casts:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(x).float().sum()
        loss.backward()
    return casts.count


@pytest.mark.parametrize("checkpointed", [False, True])
def test_weights_are_cast_as_often_as_torch_casts_them(checkpointed: bool) -> None:
    module = Blocks(checkpointed=checkpointed)
    found = analyze(module, torch.empty(8, WIDTH), hw="a100", phase="training", dtype="amp_bf16", use_cache=False)
    plan, graph = found.plan, found.bound
    weights = {t.storage: t.name for t in graph.tensors if t.name.startswith("blocks.") and t.name.endswith("0.weight")}
    cast = Counter(
        weights[read.storage]
        for launch in plan.launches
        for read in launch.reads
        if plan.kernels[launch.kernel].algorithm == "cast" and read.storage in weights
    )
    assert sum(cast.values()) == real_casts(module) == (6 if checkpointed else 3)
    assert set(cast.values()) == {2 if checkpointed else 1}


def test_copies_of_weights_do_not_outlive_their_autocast() -> None:
    """A checkpointed block's copies are gone when the step ends; without checkpoints they are kept for the backward."""
    for checkpointed, blocks in ((False, 3), (True, 0)):
        found = analyze(Blocks(checkpointed=checkpointed), torch.empty(8, WIDTH), hw="a100", phase="training",
                        dtype="amp_bf16", use_cache=False)  # fmt: skip
        sizes = [found.plan.storage_bytes[storage] for storage in found.plan.held]
        assert sizes.count(2 * WIDTH * WIDTH) == blocks
