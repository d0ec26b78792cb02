"""Smoothness of the policy itself, for the sake of gears (Mysore et al. 2021, CAPS, eqs. 1 to 3).

On deterministic actions, not on rewards: a reward for small changes is learned slowly and traded away, and noise would be
punished with the policy. Distances are squared, where the paper has the norm: no kink at 0, and large steps count more.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from robotsac.learner.actor import Actor
from robotsac.learner.algorithm import Noise
from robotsac.learner.networks import Normaliser
from robotsac.learner.replay import Batch


class Weights(Protocol):
    """Weights of the two terms, and σ of the neighbours, normalised observation units."""

    @property
    def smooth_time(self) -> float:
        """Of |μ(s) − μ(s')|²."""
        ...

    @property
    def smooth_space(self) -> float:
        """Of |μ(s) − μ(s + ε)|²."""
        ...

    @property
    def smooth_sigma(self) -> float:
        """Of ε."""
        ...


def one_later(normaliser: Normaliser, batch: Batch, next_obs: Tensor) -> Tensor:
    """What came one step after ``batch.obs``, normalised: ``next_obs`` (b, obs_dim), unless that is further ahead."""
    after: Tensor = next_obs if batch.after is None else normaliser(batch.after)
    return after


def smoothness_loss(actor: Actor, obs: Tensor, after: Tensor, noise: Noise, weights: Weights) -> Tensor:
    """w_t·mean |μ(s) − μ(s')|² + w_s·mean |μ(s) − μ(s + ε)|², μ the deterministic action.

    Args:
        actor: whose.
        obs, after: s and, one step later, s' (b, obs_dim) normalised.
        noise: ``space`` (b, obs_dim) when the second term has a weight.
        weights: of the terms.

    Returns:
        ()
    """
    others, shares = [], []
    if weights.smooth_time:
        others.append(after)
        shares.append(weights.smooth_time)
    if noise.space is not None:
        others.append(obs + weights.smooth_sigma * noise.space)
        shares.append(weights.smooth_space)
    # All of them in one pass.
    rows = torch.cat((obs, *others))
    actions = actor.action(rows, noise.action.new_zeros(len(rows), noise.action.shape[1]))
    here, *there = torch.split(actions, len(obs))
    return sum(
        (share * (here - action).square().sum(dim=-1).mean() for share, action in zip(shares, there, strict=True)),
        start=obs.new_zeros(()),
    )
