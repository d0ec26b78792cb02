"""Batch-normalised critics that need no target network (Bhatt et al. 2024, CrossQ).

Each layer's input is normalised over the batch. (s, a) and (s', a') go through together, so that both are seen with the
statistics of their mixture: with statistics of (s, a) alone, Q(s', a') would be off by as much as the policy has moved on
since the replay was filled, and that is what made batch normalisation fail in off-policy learning before. Running means
of the statistics serve where the actor asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robotsac.learner.networks import ACTIVATIONS, Shape, init_uniform_

MOMENTUM = 0.01
"""Share of the newest batch in the running statistics."""
EPS = 1e-3
"""Added to a variance (the paper's value): a channel that never changes must not be blown up."""


class NormedLayer(NamedTuple):
    """One layer of N critics: scale and shift of its normalised input (N, 1, in), weight (N, in, out), bias (N, 1, out)."""

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor


class BatchNormCritic(nn.Module):
    """Q_θ1 … Q_θN in one parameter block, without targets.

    Args:
        shape: of each network.
        critics: N.
        generator: seeds the weights, each critic its own; on the CPU.
    """

    def __init__(self, shape: Shape, critics: int, generator: torch.Generator) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shape.activation]
        self.parts = nn.ParameterList()
        self.layers: list[NormedLayer] = []
        sizes = (shape.obs_dim + shape.act_dim, *shape.hidden, 1)
        for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            layer = NormedLayer(
                scale=nn.Parameter(torch.ones(critics, 1, fan_in)),
                shift=nn.Parameter(torch.zeros(critics, 1, fan_in)),
                weight=nn.Parameter(init_uniform_(torch.empty(critics, fan_in, fan_out), fan_in, generator)),
                bias=nn.Parameter(init_uniform_(torch.empty(critics, 1, fan_out), fan_in, generator)),
            )
            self.layers.append(layer)
            self.parts.extend(layer)
            self.register_buffer(f"mean{depth}", torch.zeros(critics, 1, fan_in))
            self.register_buffer(f"variance{depth}", torch.ones(critics, 1, fan_in))

    def joint(self, obs: Tensor, action: Tensor, next_obs: Tensor, next_action: Tensor) -> tuple[Tensor, Tensor]:
        """Q(s, a) and Q(s', a'), (N, b) each, by the statistics of both together; moves the running statistics.

        Args:
            obs, next_obs: (b, obs_dim) normalised.
            action, next_action: (b, act_dim).
        """
        both = torch.cat((torch.cat((obs, action), dim=1), torch.cat((next_obs, next_action), dim=1)))
        x = both.expand(len(self.layers[0].weight), *both.shape)
        for depth, layer in enumerate(self.layers):
            variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            self._remember(depth, mean.detach(), variance.detach())
            x = self._layer(depth, layer, x, mean, variance)
        q, next_q = x.squeeze(-1).chunk(2, dim=1)
        return q, next_q

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q(s, a) by the running statistics: obs (b, obs_dim) normalised, action (b, act_dim) → (N, b)."""
        return self._by_running_statistics(self.layers, obs, action)

    def frozen(self, obs: Tensor, action: Tensor, uniform: Tensor | None = None) -> Tensor:
        """:meth:`forward` with a gradient to the action and none to the critics' parameters. ``uniform`` is unused."""
        layers = [NormedLayer(*(part.detach() for part in layer)) for layer in self.layers]
        return self._by_running_statistics(layers, obs, action)

    def _by_running_statistics(self, layers: Sequence[NormedLayer], obs: Tensor, action: Tensor) -> Tensor:
        first = torch.cat((obs, action), dim=1)
        x = first.expand(len(layers[0].weight), *first.shape)
        for depth, layer in enumerate(layers):
            x = self._layer(depth, layer, x, *self._running(depth))
        return x.squeeze(-1)

    def _layer(self, depth: int, layer: NormedLayer, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        normed = torch.addcmul(layer.shift, (x - mean) * torch.rsqrt(variance + EPS), layer.scale)
        x = torch.baddbmm(layer.bias, normed, layer.weight)
        return x if depth == len(self.layers) - 1 else self.activation(x)

    @property
    def statistics(self) -> tuple[Tensor, ...]:
        """The running means and variances (N, 1, in), layer by layer."""
        return tuple(itertools.chain.from_iterable(self._running(depth) for depth in range(len(self.layers))))

    def _running(self, depth: int) -> tuple[Tensor, Tensor]:
        mean, variance = self.get_buffer(f"mean{depth}"), self.get_buffer(f"variance{depth}")
        return mean, variance

    @torch.no_grad()
    def _remember(self, depth: int, mean: Tensor, variance: Tensor) -> None:
        running_mean, running_variance = self._running(depth)
        running_mean.lerp_(mean, MOMENTUM)
        running_variance.lerp_(variance, MOMENTUM)
