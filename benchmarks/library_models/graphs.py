"""Graph networks of PyTorch Geometric, on a small graph whose edges are given."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, family

NODES, EDGES, WIDTH = 64, 256, 32


def _edges() -> torch.Tensor:
    return torch.randint(NODES, (2, EDGES), generator=torch.Generator().manual_seed(0))


def _features() -> torch.Tensor:
    return torch.rand(NODES, 16, generator=torch.Generator().manual_seed(1))


BASIC = ["GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN"]


@family("torch_geometric", BASIC)
def basic(name: str) -> Built:
    from torch_geometric import nn

    return getattr(nn, name)(16, WIDTH, 2, 4).eval(), (_features(), _edges())


@family(
    "torch_geometric",
    [
        "GATv2",
        "Transformer",
        "SuperGAT",
        "GEN",
        "Graph",
        "Tag",
        "Cheb",
        "Gated",
        "RGCN",
        "ResGated",
        "PNA",
        "SG",
        "ARMA",
    ],
)
def convolution(name: str) -> Built:
    from torch_geometric import nn

    options: dict[str, Any] = {"Cheb": {"K": 3}, "RGCN": {"num_relations": 3}, "Tag": {"K": 2}}
    degrees = torch.bincount(_edges()[1], minlength=NODES).bincount()
    options["PNA"] = {"aggregators": ["mean", "max"], "scalers": ["identity", "amplification"], "deg": degrees}
    kinds = {"Tag": "TAGConv", "Gated": "GatedGraphConv", "ResGated": "ResGatedGraphConv"}
    kind = getattr(nn, kinds.get(name, f"{name}Conv"))
    model = kind(WIDTH, 2) if name == "Gated" else kind(16, WIDTH, **options.get(name, {}))
    extra = (torch.arange(EDGES) % 3,) if name == "RGCN" else ()
    return model.eval(), (_features(), _edges(), *extra)


@family("torch_geometric", ["GraphUNet", "SAGPooling", "TopKPooling"], executed=True)
def pooling(name: str) -> Built:
    from torch_geometric import nn

    torch.manual_seed(0)
    model = nn.GraphUNet(16, WIDTH, 4, 2) if name == "GraphUNet" else getattr(nn, name)(16)
    return model.eval(), (_features(), _edges())


@family("torch_geometric", ["SchNet"])
def schnet(name: str) -> Built:
    from torch_geometric.nn import SchNet

    class Fixed(torch.nn.Module):
        """The edges within the cutoff are given, as a data loader would."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("edges", _edges())

        def forward(self, positions: torch.Tensor, batch: torch.Tensor) -> Any:
            row, column = self.edges
            return self.edges, (positions[row] - positions[column]).norm(dim=-1)

    model = SchNet(hidden_channels=32, num_filters=32, num_interactions=2, num_gaussians=16, interaction_graph=Fixed())
    positions = torch.rand(NODES, 3, generator=torch.Generator().manual_seed(2))
    return model.eval(), (torch.ones(NODES, dtype=torch.long), positions)


@family("torch_geometric", ["Node_classifier", "Graph_classifier"])
def classifier(name: str) -> Built:
    from torch_geometric import nn

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.GCNConv(16, WIDTH), nn.GATConv(WIDTH, WIDTH)
            self.head = torch.nn.Linear(WIDTH, 4)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor, batch: torch.Tensor | None = None) -> torch.Tensor:
            x = self.second(self.first(x, edge_index).relu(), edge_index).relu()
            return self.head(x if batch is None else nn.global_mean_pool(x, batch))

    inputs = (_features(), _edges())
    return Classifier().eval(), inputs if name.startswith("Node") else (*inputs, torch.arange(NODES) // 16)
