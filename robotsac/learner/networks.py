"""What actor and critic are built from: their common shape, normaliser, activations, seeded initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

ActivationName = Literal["relu", "silu", "tanh"]

ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What actor and critics have in common.

    Attributes:
        obs_dim, act_dim: lengths of observation and action.
        hidden: widths of the hidden layers.
        activation: behind each of them.
    """

    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    activation: ActivationName


class Normaliser(nn.Module):
    """(obs − mean) / std, (b, obs_dim) → (b, obs_dim).

    The identity at first, and for good unless ``obs_statistics`` moves it. Its buffers are part of every checkpoint and of
    every exported graph, so that a policy can never be run with other statistics than it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, obs_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(obs_dim))
        self.register_buffer("std", torch.ones(obs_dim))

    def forward(self, obs: Tensor) -> Tensor:
        """Normalised observation."""
        return (obs - self.mean) / self.std


def same_shape(*tensors: Tensor) -> None:
    """Refuse tensors that broadcasting would make fit: (b,) and (b, 1) give (b, b), and a loss that is quietly wrong.

    Raises:
        ValueError: naming the shapes.
    """
    if any(tensor.shape != tensors[0].shape for tensor in tensors[1:]):
        raise ValueError(f"shapes {[tuple(tensor.shape) for tensor in tensors]} are not the same")


def init_uniform_(tensor: Tensor, fan_in: int, generator: torch.Generator, gain: float = 1.0) -> Tensor:
    """Fill with U(−b, b), b = gain / √fan_in, from ``generator``; returns ``tensor``.

    torch's own default for linear layers, but seeded apart from the global generator.
    """
    bound = gain / math.sqrt(fan_in)
    with torch.no_grad():
        return tensor.uniform_(-bound, bound, generator=generator)
