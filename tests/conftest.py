"""What every test shares: no cache left behind, and an independent counter of MACs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from costmodel.sources import LoadedModel


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Traces that tests store go to a directory of their own, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COSTMODEL_CACHE_DIR", str(tmp_path_factory.mktemp("traces")))
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
