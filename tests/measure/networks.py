"""Small networks whose recorded traces lie in data/, and how they were recorded:

    python tests/measure/networks.py        # writes data/*.json.gz anew, with the torch that is installed

What a trace says of the machine (its name, process numbers, file names) is taken out.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DATA = Path(__file__).parent / "data"


class Residual(nn.Module):
    """Convolutions, batch normalization, in-place ReLU and addition, pooling, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 2)
        y = self.bn2(self.conv2(x))
        y += x
        return self.fc(self.drop(self.relu(y).flatten(1)))


class Attention(nn.Module):
    """torch's own attention, whose fast path on real tensors is one operator of which a static trace knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class Windows(nn.Module):
    """Views that become copies, and attention written out: batched products and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = torch.roll(x, (1, 1), (1, 2))
        windows = x.view(batch, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        q, k, v = self.qkv(windows).chunk(3, -1)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return y.reshape(batch, -1).mean(1)


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (2, 3, 16, 16)),
    "attention": (Attention, (2, 6, 16)),
    "windows": (Windows, (2, 4, 4, 8)),
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, and the input that its trace was recorded with."""
    kind, shape = NETWORKS[name]
    return kind().eval(), torch.zeros(shape)


def anonymous(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace without what it tells of the machine, times from 0, and only of the first thread."""
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X" and e.get("cat") != "Trace"]
    first = min(float(e["ts"]) for e in events)
    kept = ("External id", "Input Dims", "correlation")
    return {
        "schemaVersion": 1,
        "traceEvents": [
            {
                "ph": "X",
                "cat": e["cat"],
                "name": e["name"],
                "pid": 1,
                "tid": 1,
                "ts": round(float(e["ts"]) - first, 3),
                "dur": e.get("dur", 0),
                "args": {key: e["args"][key] for key in kept if key in e.get("args", {})},
            }
            for e in events
        ],
    }


def _record(name: str, mode: str, steps: int = 3) -> None:
    from costmodel.execution import Execution
    from costmodel.measure.profiling import record_steps
    from costmodel.measure.running import Runnable

    module, x = network(name)
    function: Any = torch.compile(module) if mode == "compile" else module

    def call() -> object:
        with torch.inference_mode():
            return function(x)

    Runnable(name=name, device="cpu", execution=Execution.of(mode=mode), call=call, sizes={}).check()
    path = DATA / f"{name}_{mode}.json"
    record_steps(call, steps=steps, keep=path)
    trace = anonymous(json.loads(path.read_text()))
    path.unlink()
    with gzip.GzipFile(path.with_suffix(".json.gz"), "wb", mtime=0) as file:
        file.write(json.dumps(trace, separators=(",", ":")).encode())


if __name__ == "__main__":
    torch.set_num_threads(1)  # times that mean something beside other work
    DATA.mkdir(exist_ok=True)
    for which in NETWORKS:
        _record(which, "eager")
    _record("residual", "compile")
