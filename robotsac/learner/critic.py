"""The critics: N Q-functions in one parameter block, their target, their loss.

Each layer holds the weights of all N critics in one tensor and is one ``baddbmm``, so N = 10 costs ten times the
arithmetic but not ten times the calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from robotsac.config.learn import LearnConfig
from robotsac.learner.networks import ACTIVATIONS, Activation, Shape, init_uniform_, same_shape
from robotsac.learner.replay import Batch

LAYER_NORM_EPS = 1e-5


class Layer(NamedTuple):
    """One layer of N critics: weight (N, in, out), bias (N, 1, out), LayerNorm scale and shift (N, 1, out) or None."""

    weight: Tensor
    bias: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def detached(self) -> Layer:
        """The same values outside the graph: what reads them sends no gradient here."""
        scale = None if self.scale is None else self.scale.detach()
        shift = None if self.shift is None else self.shift.detach()
        return Layer(self.weight.detach(), self.bias.detach(), scale, shift)


class Critic(nn.Module):
    """Q_θ1 … Q_θN.

    Args:
        shape: of each network.
        critics: N.
        normed: LayerNorm before each activation; keeps Q bounded between the data at several updates per step.
        generator: seeds the weights, each critic its own; on the CPU.
        dropout: share of hidden units left out at a time (Hiraoka et al. 2022, DroQ), before LayerNorm.
    """

    def __init__(
        self, shape: Shape, critics: int, normed: bool, generator: torch.Generator, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.hidden_units = sum(shape.hidden)
        self.activation = ACTIVATIONS[shape.activation]
        self.parts = nn.ParameterList()
        self.layers: list[Layer] = []
        sizes = (shape.obs_dim + shape.act_dim, *shape.hidden, 1)
        for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            weight = nn.Parameter(init_uniform_(torch.empty(critics, fan_in, fan_out), fan_in, generator))
            bias = nn.Parameter(init_uniform_(torch.empty(critics, 1, fan_out), fan_in, generator))
            scale = shift = None
            if normed and depth < len(shape.hidden):
                scale = nn.Parameter(torch.ones(critics, 1, fan_out))
                shift = nn.Parameter(torch.zeros(critics, 1, fan_out))
            self.layers.append(Layer(weight, bias, scale, shift))
            self.parts.extend(part for part in self.layers[-1] if part is not None)
        self.tensors: list[Tensor] = list(self.parts)

    @classmethod
    def of(cls, learn: LearnConfig, shape: Shape, generator: torch.Generator) -> Critic:
        """As ``[learn]`` says."""
        return cls(shape, learn.critics, learn.critic_layer_norm, generator, learn.critic_dropout)

    def forward(self, obs: Tensor, action: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Q(s, a): obs (b, obs_dim) normalised, action (b, act_dim) → (N, b).

        ``uniform`` (N, b, hidden_units) in [0, 1) chooses what dropout leaves out; without it nothing is.
        """
        return q_values(self.layers, self.activation, obs, action, self._kept(uniform))

    def frozen(self, obs: Tensor, action: Tensor, uniform: Tensor | None = None) -> Tensor:
        """:meth:`forward` with a gradient to the action and none to the critics' parameters."""
        layers = [layer.detached() for layer in self.layers]
        return q_values(layers, self.activation, obs, action, self._kept(uniform))

    def _kept(self, uniform: Tensor | None) -> Sequence[Tensor] | None:
        """Per hidden layer (N, b, width): 0 where a unit is left out, else what keeps the mean as it was."""
        if uniform is None or not self.dropout:
            return None
        widths = [layer.weight.shape[2] for layer in self.layers[:-1]]
        return torch.split((uniform >= self.dropout) / (1.0 - self.dropout), widths, dim=-1)


def q_values(
    layers: Sequence[Layer],
    activation: Activation,
    obs: Tensor,
    action: Tensor,
    kept: Sequence[Tensor] | None = None,
) -> Tensor:
    """All critics at once: obs (b, obs_dim), action (b, act_dim) → (N, b). ``kept``: per hidden layer, a factor of units."""
    first = torch.cat((obs, action), dim=-1)
    x = first.expand(layers[0].weight.shape[0], *first.shape)
    for depth, layer in enumerate(layers[:-1]):
        x = torch.baddbmm(layer.bias, x, layer.weight)
        if kept is not None:
            x = x * kept[depth]
        if layer.scale is not None and layer.shift is not None:
            x = torch.addcmul(layer.shift, layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS), layer.scale)
        x = activation(x)
    return torch.baddbmm(layers[-1].bias, x, layers[-1].weight).squeeze(-1)


def bellman_target(
    reward: Tensor, terminal: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor, discount: Tensor | float
) -> Tensor:
    """y = r + γ (1 − d) (min_i Q_θ̄i(s', a') − α log π(a'|s')) (Haarnoja et al. 2018b, eqs. 2, 3 and 5; the minimum: section 6).

    The entropy of the next state stands inside the bracket: a terminal state has no value and no entropy.

    Args:
        reward, terminal, next_log_prob: (b,); terminal is 1 where the next state must not be bootstrapped from.
        next_q: (N, b) target critics at a fresh a' ~ π(·|s').
        alpha: () temperature.
        discount: γ, or (b,) γ^k where the reward is that of k steps (:func:`discount_over`).

    Returns:
        (b,)
    """
    same_shape(reward, terminal, next_log_prob, next_q[0])
    soft_value = next_q.amin(dim=0) - alpha * next_log_prob
    return reward + discount * (1.0 - terminal) * soft_value


def discount_over(batch: Batch, discount: float) -> Tensor | float:
    """γ^k (b,) for transitions over k steps (Sutton and Barto 2018, eq. 7.1); γ where all are of one."""
    return discount if batch.steps is None else discount**batch.steps


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """J_Q = Σ_i mean_b ½ (Q_θi(s, a) − y)² (Haarnoja et al. 2018b, eq. 5); q (N, b), target (b,) → ().

    Summed over critics, so that each gets the gradient it would have alone.
    """
    same_shape(q[0], target)
    return 0.5 * (q - target).square().mean(dim=1).sum()


@torch.no_grad()
def move_target(target: Sequence[Tensor], online: Sequence[Tensor], polyak: float) -> None:
    """θ̄ ← τ θ + (1 − τ) θ̄, in place, one call for all tensors (Haarnoja et al. 2018b, algorithm 1)."""
    torch._foreach_lerp_(list(target), list(online), polyak)
