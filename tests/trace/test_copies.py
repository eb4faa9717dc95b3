"""The tracer's copy of a module: made where deepcopy refuses, and at home in inference mode."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from costmodel import analyze  # noqa: E402

NORMALIZED = {
    "weight_norm": (nn.utils.weight_norm, 0),
    "parametrized_weight_norm": (nn.utils.parametrizations.weight_norm, 0),
    "spectral_norm": (nn.utils.spectral_norm, 4 * 6 + 4),  # u . (W v) in each forward pass
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", NORMALIZED)
def test_a_module_with_a_computed_weight_is_copied_and_counted(name: str) -> None:
    normalize, more = NORMALIZED[name]
    module = nn.Sequential(normalize(nn.Linear(6, 4)), nn.ReLU())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    analysis = analyze(module, torch.zeros(3, 6), hw="a100")
    assert analysis.totals.macs == 3 * 4 * 6 + more
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(p.is_meta for p in module.parameters())


class Merged(nn.Module):
    """Two linear layers merged into one before each use, as re-parameterized networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.both = nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.both.weight.data = self.second.weight @ self.first.weight
        return self.both(x)


def test_a_weight_may_take_the_data_of_a_result() -> None:
    module = Merged()
    kept = module.both.weight.clone()
    assert analyze(module, torch.zeros(3, 6), hw="a100").totals.macs == 4 * 5 * 6 + 3 * 4 * 6
    assert torch.equal(module.both.weight, kept)


class Interval(nn.Module):
    """Looks at neighbours in a buffer that was moved to where the input lies."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)
        self.register_buffer("times", torch.linspace(0, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        times = self.times.to(x.device)
        for step in times[1:] - times[:-1]:
            x = x + step * self.net(x)
        return x


def test_a_buffer_moved_to_the_input_is_viewed() -> None:
    assert analyze(Interval(), torch.zeros(2, 4), hw="a100").totals.macs == 3 * 2 * 4 * 4
