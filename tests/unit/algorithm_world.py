"""What the tests of the algorithms share: each of them by name, a random minibatch, its noise, and what an update has changed."""

from __future__ import annotations

import torch
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings
from torch import Tensor

from robotsac.learner.algorithm import Algorithm, Noise
from robotsac.learner.replay import Batch
from robotsac.learner.variants import create_algorithm

VARIANTS: dict[str, dict[str, object]] = {
    "sac": {},
    "sac_v1": {"variant": "sac_v1"},
    "ddpg": {"variant": "ddpg"},
    "cross_q": {"critic": "batch_norm"},
}
"""What ``[learn]`` says for each algorithm."""


def fresh_variant(name: str, **learn: object) -> Algorithm:
    """A fresh learner of that algorithm, on the CPU."""
    learn_config = settings(**VARIANTS[name], **learn).learn
    return create_algorithm(learn_config, OBS_DIM, ACT_DIM, RATE_HZ, torch.device("cpu"))


def some_batch(rows: int = 8, seed: int = 0, obs_dim: int = OBS_DIM, act_dim: int = ACT_DIM) -> Batch:
    """Random transitions, none of them terminal."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(rows, obs_dim * 2 + act_dim + 1, generator=generator)
    obs, next_obs, action, reward = wide.split([obs_dim, obs_dim, act_dim, 1], dim=1)
    return Batch(obs, action.tanh(), reward[:, 0], next_obs, torch.zeros(rows))


def noise_for(state: Algorithm, seed: int = 1, rows: int = 8) -> Noise:
    """Noise of the shape that ``state`` takes."""
    return state.noise_shape.draw(rows, torch.Generator().manual_seed(seed))


def weights(state: Algorithm) -> dict[str, Tensor]:
    """Copies of every number that is learned, by the name of its network."""
    named = {
        f"{name}.{key}": tensor.clone()
        for name, module in state.modules().items()
        for key, tensor in module.state_dict().items()
    }
    return named | {name: value.detach().clone() for name, value in state.scalars().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the networks and scalars that differ."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
