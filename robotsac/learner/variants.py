"""From ``[learn]`` to the algorithm that it names."""

from __future__ import annotations

import torch

from robotsac.config.learn import LearnConfig
from robotsac.learner.algorithm import Algorithm
from robotsac.learner.cross_q import CrossQState
from robotsac.learner.ddpg import DdpgState
from robotsac.learner.sac import SacState
from robotsac.learner.sac_v1 import SacV1State


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
    if learn.critic == "batch_norm":
        return CrossQState.create(learn, obs_dim, act_dim, control_rate_hz, device)
    if learn.variant == "sac_v1":
        return SacV1State.create(learn, obs_dim, act_dim, control_rate_hz, device)
    if learn.variant == "ddpg":
        return DdpgState.create(learn, obs_dim, act_dim, control_rate_hz, device)
    return SacState.create(learn, obs_dim, act_dim, control_rate_hz, device)
