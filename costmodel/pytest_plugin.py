"""pytest: a fixture that holds models to the costs of a file, and ``--update-costs`` that writes it.

Everything of costmodel is imported when the fixture is first asked for, so that other tests do not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from costmodel.testing import CostBaseline

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-costs``, and ``costmodel_baseline`` in pytest's configuration."""
    group = parser.getgroup("costmodel")
    group.addoption("--update-costs", action="store_true", help="write the costs of models in place of checking them")
    parser.addini("costmodel_baseline", "file that cost_baseline holds models to, from the root", default="costs.json")


@pytest.fixture(scope="session")
def cost_baseline(request: pytest.FixtureRequest) -> Iterator[CostBaseline]:
    """The costs of ``costmodel_baseline``: ``cost_baseline.assert_kept(model, hw="t4")``."""
    from costmodel.testing import CostBaseline

    path = request.config.rootpath / str(request.config.getini("costmodel_baseline"))
    baseline = CostBaseline(path, update=bool(request.config.getoption("--update-costs")))
    yield baseline
    baseline.save()
