"""What every test shares: no cache left behind, and an independent counter of MACs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from costmodel.graph import OpGraph
    from costmodel.sources import LoadedModel

settings.register_profile("costmodel", deadline=None)  # the first example pays for imports, and machines are shared
settings.load_profile("costmodel")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Traces that tests store go to a directory of their own, never to the user's; all processes of a run share it."""
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "traces"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSTMODEL_CACHE_DIR", str(folder))
        yield


@pytest.fixture(scope="session")
def torch_macs() -> Callable[[LoadedModel], int]:
    """MACs of one picture or sequence by torch's own FlopCounterMode (2 FLOP per MAC), on the meta device."""

    def count(loaded: LoadedModel) -> int:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        args, kwargs = loaded.inputs({"batch": 1})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            loaded.module(*args, **kwargs)
        return counter.get_total_flops() // 2

    return count


@pytest.fixture(scope="session")
def params() -> Callable[[LoadedModel], int]:
    """Weights of a module, shared ones once."""
    return lambda loaded: sum(p.numel() for p in loaded.module.parameters())


@pytest.fixture(scope="session")
def traced() -> Callable[..., OpGraph]:
    """A module of one's own, traced at the batch of its inputs: ``traced(module, x, y, layout="nhwc")``, in numbers."""

    def trace_module(module: nn.Module, *inputs: torch.Tensor, layout: str = "nchw") -> OpGraph:
        from costmodel.execution import Variant
        from costmodel.sources import from_module
        from costmodel.trace import trace

        graph = trace(from_module(module.eval(), inputs), variant=Variant(layout))
        return graph.bind({"batch": inputs[0].shape[0]} if "batch" in graph.symbols else {})

    return trace_module
