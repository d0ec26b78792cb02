"""The actor: an MLP from the normalised observation to the raw numbers that its head reads as a distribution."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from robotsac.learner.heads import Draw, Head
from robotsac.learner.networks import ACTIVATIONS, Shape, init_uniform_

LAST_LAYER_GAIN = 0.01
"""The first policy has a mean of about 0 and one spread everywhere: on an arm, noise around gravity compensation."""


class Actor(nn.Module):
    """π_φ(·|s).

    Args:
        shape: of the network.
        head: what its output means.
        generator: seeds the weights; on the CPU.
    """

    def __init__(self, shape: Shape, head: Head, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (shape.obs_dim, *shape.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(sizes[-1], head.outputs * shape.act_dim)
        self.activation = ACTIVATIONS[shape.activation]
        self.head = head
        for layer in (*self.layers, self.last):
            assert isinstance(layer, nn.Linear)
            gain = LAST_LAYER_GAIN if layer is self.last else 1.0
            init_uniform_(layer.weight, layer.in_features, generator, gain)
            init_uniform_(layer.bias, layer.in_features, generator, gain)

    def forward(self, obs: Tensor) -> Tensor:
        """Raw numbers (b, head.outputs·act_dim); ``obs`` (b, obs_dim) normalised."""
        x = obs
        for layer in self.layers:
            x = self.activation(layer(x))
        raw: Tensor = self.last(x)
        return raw

    def action(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Action (b, act_dim) as on the robot; all-zero noise gives the deterministic one."""
        return self.head.action(self(obs), noise)

    def sample(self, obs: Tensor, noise: Tensor, pathwise: bool = True) -> Draw:
        """Action and log-probability (see :meth:`robotsac.learner.heads.Head.sample`)."""
        return self.head.sample(self(obs), noise, pathwise)
