"""The actor: an MLP from the normalised observation to mean and log σ of the tanh-Gaussian."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from robotsac.learner.networks import ACTIVATIONS, Shape, init_uniform_
from robotsac.learner.policy_head import bounded_log_std

LAST_LAYER_GAIN = 0.01
"""The first policy has a mean of about 0 and one σ everywhere: on an arm, noise around gravity compensation."""


class Actor(nn.Module):
    """π_φ(·|s).

    Args:
        shape: of the network.
        log_std_min, log_std_max: bounds of log σ, normalised action units.
        generator: seeds the weights; on the CPU.
    """

    def __init__(self, shape: Shape, log_std_min: float, log_std_max: float, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (shape.obs_dim, *shape.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 2 * shape.act_dim)
        self.activation = ACTIVATIONS[shape.activation]
        self.act_dim = shape.act_dim
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        for layer in (*self.layers, self.head):
            assert isinstance(layer, nn.Linear)
            gain = LAST_LAYER_GAIN if layer is self.head else 1.0
            init_uniform_(layer.weight, layer.in_features, generator, gain)
            init_uniform_(layer.bias, layer.in_features, generator, gain)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """``(mean, log_std)``, each (b, act_dim), of the Gaussian before squashing; ``obs`` (b, obs_dim) normalised."""
        x = obs
        for layer in self.layers:
            x = self.activation(layer(x))
        raw = self.head(x)
        mean, raw_log_std = raw[:, : self.act_dim], raw[:, self.act_dim :]
        return mean, bounded_log_std(raw_log_std, self.log_std_min, self.log_std_max)
