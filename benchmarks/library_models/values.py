"""Models whose course depends on values: solvers of differential equations, distributions, flows,
packed sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import rnn

from library_models.registry import Built, entry, family


class Dynamics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(y)


class Ode(nn.Module):
    def __init__(self, method: str) -> None:
        super().__init__()
        self.dynamics, self.method = Dynamics(), method
        self.register_buffer("times", torch.linspace(0, 1, 5))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        from torchdiffeq import odeint

        return odeint(self.dynamics, y, self.times, method=self.method)


@family("torchdiffeq", ["euler", "midpoint", "rk4", "explicit_adams"])
def fixed_steps(name: str) -> Built:
    return Ode(name).eval(), torch.zeros(4, 16)


@family("torchdiffeq", ["dopri5", "bosh3"], executed=True)
def adaptive_steps(name: str) -> Built:
    torch.manual_seed(0)
    return Ode(name).eval(), torch.rand(4, 16)


@entry("torchsde", "euler", executed=True)
def sde() -> Built:
    import torchsde

    class Sde(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self) -> None:
            super().__init__()
            self.drift, self.diffusion = nn.Linear(8, 8), nn.Linear(8, 8)

        def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.drift(y)

        def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.diffusion(y).sigmoid()

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return torchsde.sdeint(self, y, torch.linspace(0, 1, 5), method="euler", dt=0.25)

    return Sde().eval(), torch.rand(4, 8)


class Policy(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body, self.kind = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8)), kind

    def forward(self, x: torch.Tensor) -> Any:
        from torch import distributions as d

        out = self.body(x)
        if self.kind == "categorical":
            chosen = d.Categorical(logits=out)
            action = chosen.sample()
            return action, chosen.log_prob(action), chosen.entropy()
        mean, scale = out.chunk(2, -1)
        normal = d.Normal(mean, scale.exp())
        if self.kind == "tanh_normal":
            squashed = d.TransformedDistribution(normal, d.TanhTransform())
            action = squashed.rsample()
            return action, squashed.log_prob(action)
        if self.kind == "mixture":
            mixture = d.MixtureSameFamily(d.Categorical(logits=out[:, :4]), normal)
            return mixture.log_prob(x[:, 0])
        action = normal.rsample()
        return (
            action,
            normal.log_prob(action),
            d.kl_divergence(normal, d.Normal(torch.zeros_like(mean), torch.ones_like(scale))),
        )


@family("torch.distributions", ["categorical", "normal", "tanh_normal", "mixture"])
def policy(name: str) -> Built:
    return Policy(name).eval(), torch.rand(4, 8)


@entry("torch.distributions", "multivariate_normal")
def multivariate() -> Built:
    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(8, 4)
            self.register_buffer("factor", torch.eye(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.distributions.MultivariateNormal(self.mean(x), scale_tril=self.factor).log_prob(x[:, :4])

    return Gaussian().eval(), torch.rand(4, 8)


@entry("pyro", "vae_guide")
def pyro_vae() -> Built:
    import pyro.distributions as dist

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.scale = nn.Linear(64, 32), nn.Linear(32, 8), nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> Any:
            hidden = self.hidden(x).relu()
            latent = dist.Normal(self.mean(hidden), self.scale(hidden).exp()).to_event(1)
            sample = latent.rsample()
            return sample, latent.log_prob(sample)

    return Encoder().eval(), torch.rand(4, 64)


@entry("nflows", "masked_autoregressive")
def nflows_maf() -> Built:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    class Density(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [
                layer for _ in range(2) for layer in (ReversePermutation(8), MaskedAffineAutoregressiveTransform(8, 32))
            ]
            self.flow = Flow(CompositeTransform(layers), StandardNormal([8]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flow.log_prob(x)

    return Density().eval(), torch.rand(4, 8)


@entry("normflows", "real_nvp")
def real_nvp() -> Built:
    import normflows as nf

    class Density(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            masks = [torch.tensor([float((i + k) % 2) for i in range(4)]) for k in range(4)]
            flows = [nf.flows.MaskedAffineFlow(b, nf.nets.MLP([4, 16, 4]), nf.nets.MLP([4, 16, 4])) for b in masks]
            self.flow = nf.NormalizingFlow(nf.distributions.base.DiagGaussian(4), flows)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.flow.log_prob(x)

    return Density().eval(), torch.rand(4, 4)


class Tagger(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.rnn = getattr(nn, kind)(32, 48, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(96, 10)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = rnn.pack_padded_sequence(self.embed(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


@family("packed", ["LSTM", "GRU"])
def packed(name: str) -> Built:
    return Tagger(name).eval(), (torch.zeros(3, 20, dtype=torch.long), torch.tensor([20, 12, 7]))


@entry("pytorch-crf", "bilstm_crf_decode", executed=True)
def crf() -> Built:
    from torchcrf import CRF

    class BiLstmCrf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = nn.Embedding(100, 16), nn.LSTM(16, 16, batch_first=True, bidirectional=True)
            self.head, self.crf = nn.Linear(32, 5), CRF(5, batch_first=True)

        def forward(self, tokens: torch.Tensor) -> Any:
            return self.crf.decode(self.head(self.rnn(self.embed(tokens))[0]))

    torch.manual_seed(0)
    return BiLstmCrf().eval(), torch.zeros(2, 12, dtype=torch.long)


@entry("gpytorch", "variational_gp", executed=True)
def gaussian_process() -> Built:
    import gpytorch

    class Gp(gpytorch.models.ApproximateGP):
        def __init__(self) -> None:
            points = torch.linspace(0, 1, 16).unsqueeze(-1)
            found = gpytorch.variational.CholeskyVariationalDistribution(16)
            super().__init__(
                gpytorch.variational.VariationalStrategy(self, points, found, learn_inducing_locations=True)
            )
            self.mean = gpytorch.means.ConstantMean()
            self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, x: torch.Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gp = Gp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gp(x).mean

    return Mean().eval(), torch.rand(8, 1)
