"""Deep Deterministic Policy Gradient, the baseline (Lillicrap et al. 2016, algorithm 1).

One update, in this order:

1. critics   one Adam step towards r + γ min_i Q_θ̄i(s', μ_φ̄(s'))                    eqs. 4 and 5
2. actor     one Adam step up min_i Q_θi(s, μ_φ(s)), every ``actor_delay`` updates    eq. 6
3. targets   θ̄ ← τ θ + (1 − τ) θ̄, φ̄ likewise

``critics = 1`` is DDPG as published; with more, the minimum stands against overestimation (Fujimoto et al. 2018, TD3,
section 4.2). The exploration noise is added on the robot, by the head (eq. 7, with white noise and clipped to the action's
bounds); there is no entropy and no temperature. Left out of the paper: weight decay of the critics, and batch normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.algorithm import Noise, NoiseShape, actor_of, critic_shape, discount_of, step
from robotsac.learner.critic import Critic, critic_loss, discount_over, move_target
from robotsac.learner.networks import Normaliser, same_shape
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import one_later, smoothness_loss


@dataclass(frozen=True, slots=True)
class Constants:
    """What stays fixed: γ per control step, τ, critic updates per actor update, and the actor's smoothness terms."""

    discount: float
    polyak: float
    actor_delay: int
    smooth_time: float
    smooth_space: float
    smooth_sigma: float


@dataclass(slots=True)
class DdpgState:
    """DDPG; an :class:`~robotsac.learner.algorithm.Algorithm`. Of an update's noise it uses ``space`` alone."""

    constants: Constants
    noise_shape: NoiseShape
    normaliser: Normaliser
    actor: Actor
    actor_target: Actor
    critic: Critic
    critic_target: Critic
    actor_adam: Adam
    critic_adam: Adam
    updates: int = 0

    @classmethod
    def create(
        cls, learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: float, device: torch.device
    ) -> DdpgState:
        """Fresh state; the same ``learn.seed`` gives the same weights on every device.

        Raises:
            ConfigError: horizon shorter than a control step.
        """
        seeded = torch.Generator().manual_seed(learn.seed)
        actor, actor_target = (actor_of(learn, obs_dim, act_dim, seeded) for _ in range(2))
        critic, critic_target = (Critic.of(learn, critic_shape(learn, obs_dim, act_dim), seeded) for _ in range(2))
        actor_target.load_state_dict(actor.state_dict())
        critic_target.load_state_dict(critic.state_dict())
        actor, critic = actor.to(device), critic.to(device)
        return cls(
            constants=Constants(
                discount=discount_of(learn, control_rate_hz),
                polyak=learn.polyak,
                actor_delay=learn.actor_delay,
                smooth_time=learn.smooth_time,
                smooth_space=learn.smooth_space,
                smooth_sigma=learn.smooth_sigma,
            ),
            noise_shape=NoiseShape.of(learn, actor.head, obs_dim, act_dim),
            normaliser=Normaliser(obs_dim).to(device),
            actor=actor,
            actor_target=actor_target.to(device).requires_grad_(False),
            critic=critic,
            critic_target=critic_target.to(device).requires_grad_(False),
            actor_adam=Adam(actor.parameters(), lr=learn.actor_lr, fused=True),
            critic_adam=Adam(critic.parameters(), lr=learn.critic_lr, fused=True),
        )

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.algorithm.Algorithm`."""
        obs, next_obs = self.normaliser(batch.obs), self.normaliser(batch.next_obs)
        metrics = update_critics(self, batch, obs, next_obs, noise)
        if with_actor:
            metrics |= update_actor(self, obs, one_later(self.normaliser, batch, next_obs), noise)
        move_target(self.critic_target.tensors, self.critic.tensors, self.constants.polyak)
        move_target(list(self.actor_target.parameters()), list(self.actor.parameters()), self.constants.polyak)
        return metrics

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        networks = {"normaliser": self.normaliser, "actor": self.actor, "critic": self.critic}
        return {**networks, "actor_target": self.actor_target, "critic_target": self.critic_target}

    def scalars(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def optimizers(self) -> Mapping[str, Adam]:
        """One each, by name."""
        return {"actor": self.actor_adam, "critic": self.critic_adam}


def update_critics(state: DdpgState, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise) -> dict[str, Tensor]:
    """Step 1; ``obs``, ``next_obs`` (b, obs_dim) normalised."""
    discount = discount_over(batch, state.constants.discount)
    with torch.no_grad():
        next_action, _ = state.actor_target.sample(next_obs, noise.next_action)
        target = q_target(batch.reward, batch.terminal, state.critic_target(next_obs, next_action), discount)
    q = state.critic(obs, batch.action)
    loss = critic_loss(q, target)
    step(state.critic_adam, loss)
    return {"critic_loss": loss.detach(), "q": q.detach().mean()}


def update_actor(state: DdpgState, obs: Tensor, after: Tensor, noise: Noise) -> dict[str, Tensor]:
    """Step 2; ``obs`` and, one step later, ``after`` (b, obs_dim) normalised."""
    constants = state.constants
    action, _ = state.actor.sample(obs, noise.action)
    loss = actor_loss(state.critic.frozen(obs, action))
    if constants.smooth_time or constants.smooth_space:
        loss = loss + smoothness_loss(state.actor, obs, after, noise, constants)
    step(state.actor_adam, loss)
    return {"actor_loss": loss.detach()}


def q_target(reward: Tensor, terminal: Tensor, next_q: Tensor, discount: Tensor | float) -> Tensor:
    """y = r + γ (1 − d) min_i Q_θ̄i(s', μ_φ̄(s')) (Lillicrap et al. 2016, eq. 5).

    Args:
        reward, terminal: (b,); terminal is 1 where the next state must not be bootstrapped from.
        next_q: (N, b) of the target critics at the target actor's action.
        discount: γ, or (b,) γ^k (``critic.discount_over``).

    Returns:
        (b,)
    """
    same_shape(reward, terminal, next_q[0])
    return reward + discount * (1.0 - terminal) * next_q.amin(dim=0)


def actor_loss(q: Tensor) -> Tensor:
    """−mean_b min_i Q_θi(s, μ_φ(s)) (Lillicrap et al. 2016, eq. 6 is its gradient); q (N, b) → ()."""
    return -q.amin(dim=0).mean()
