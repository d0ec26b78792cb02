"""The temperature α: how much entropy is worth, tuned so that the policy keeps the target entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robotsac.config.learn import ALPHA_MAX, ALPHA_MIN, LearnConfig


def first_log_alpha(learn: LearnConfig, device: torch.device) -> Tensor:
    """log α (), to begin with, and a parameter; or the fixed one, a constant."""
    automatic = learn.temperature == "auto"
    alpha = learn.temperature_init if automatic else learn.temperature
    return torch.tensor(alpha, device=device).log().requires_grad_(automatic)


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """J(α) = mean_b (−α (log π(a|s) + H̄)), α = exp(log_alpha) (Haarnoja et al. 2018b, eq. 18).

    Entropy above the target lowers α, below raises it.

    Args:
        log_alpha: () parameter.
        log_prob: (b,) nats; detached here, α's loss must not move the actor.
        target_entropy: H̄, nats, normalised units.

    Returns:
        ()
    """
    return -log_alpha.exp() * (log_prob.detach().mean() + target_entropy)


@torch.no_grad()
def bound_(log_alpha: Tensor) -> None:
    """Keep α within [ALPHA_MIN, ALPHA_MAX], in place."""
    log_alpha.clamp_(math.log(ALPHA_MIN), math.log(ALPHA_MAX))
