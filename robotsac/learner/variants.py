"""From ``[learn]`` to the algorithm that it names."""

from __future__ import annotations

import torch

from robotsac.config.learn import LearnConfig
from robotsac.learner.algorithm import Algorithm
from robotsac.learner.sac import SacState


def create_algorithm(
    learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: float, device: torch.device
) -> Algorithm:
    """Fresh state of ``learn.variant``; the same ``learn.seed`` gives the same weights on every device.

    Args:
        learn: the settings.
        obs_dim, act_dim: lengths of observation and action.
        control_rate_hz: of the policy; turns a horizon in seconds into a discount.
        device: where it lies.

    Raises:
        ConfigError: horizon shorter than a control step.
    """
    return SacState.create(learn, obs_dim, act_dim, control_rate_hz, device)
