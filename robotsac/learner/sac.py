"""Soft Actor-Critic: the state of learning, and one update of it (Haarnoja et al. 2018b, algorithm 1).

One update, in this order:

1. critics   one Adam step on J_Q towards the soft Bellman target            (``critic``)
2. actor     one Adam step on J_π against the critics just moved             (``actor_step``), every ``actor_delay`` updates
3. α         one Adam step on J(α) with the log-probabilities of step 2      (``temperature``), together with 2
4. targets   θ̄ ← τ θ + (1 − τ) θ̄                                             (``critic.move_target``)

Nothing in it reads a tensor back to the host, so on a GPU updates queue up behind each other. Options: a fixed
temperature; the score-function gradient; many critics of which a random few are the target (REDQ); dropout in them
(DroQ); smoothness terms (``smoothness``), one of which an arm has by default; gradient corrections (``correction``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss
from robotsac.learner.actor_step import Constants, update_actor_and_temperature, update_temperature
from robotsac.learner.algorithm import LOSS, TARGET, Noise, NoiseShape, actor_of, critic_shape, step
from robotsac.learner.correction import Correction
from robotsac.learner.critic import Critic, bellman_target, critic_loss, discount_over, move_target
from robotsac.learner.networks import Normaliser
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import one_later
from robotsac.learner.temperature import first_log_alpha


@dataclass(slots=True)
class SacState:
    """SAC with automatic or fixed temperature; an :class:`~robotsac.learner.algorithm.Algorithm`."""

    constants: Constants
    noise_shape: NoiseShape
    normaliser: Normaliser
    actor: Actor
    critic: Critic
    target: Critic
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam
    correction: Correction | None
    updates: int = 0

    @classmethod
    def create(
        cls, learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: float, device: torch.device
    ) -> SacState:
        """Fresh state; the same ``learn.seed`` gives the same weights on every device.

        Raises:
            ConfigError: horizon shorter than a control step.
        """
        seeded = torch.Generator().manual_seed(learn.seed)
        actor = actor_of(learn, obs_dim, act_dim, seeded).to(device)
        critic, target = (Critic.of(learn, critic_shape(learn, obs_dim, act_dim), seeded) for _ in range(2))
        target.load_state_dict(critic.state_dict())
        critic, target = critic.to(device), target.to(device).requires_grad_(False)
        log_alpha = first_log_alpha(learn, device)
        return cls(
            constants=Constants.of(learn, act_dim, control_rate_hz),
            noise_shape=NoiseShape.of(learn, actor.head, obs_dim, act_dim, critic.hidden_units),
            normaliser=Normaliser(obs_dim).to(device),
            actor=actor,
            critic=critic,
            target=target,
            log_alpha=log_alpha,
            actor_adam=Adam(actor.parameters(), lr=learn.actor_lr, fused=True),
            critic_adam=Adam(critic.parameters(), lr=learn.critic_lr, fused=True),
            alpha_adam=Adam([log_alpha], lr=learn.temperature_lr, fused=True),
            correction=Correction.of(learn),
        )

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.algorithm.Algorithm`.

        Returns:
            Device scalars: ``critic_loss``, ``q`` (mean), and when the actor was updated ``actor_loss``, ``entropy``
            (nats, an estimate) and ``alpha``.
        """
        obs, next_obs = self.normaliser(batch.obs), self.normaliser(batch.next_obs)
        alpha = self.log_alpha.detach().exp()
        if self.correction is not None:
            metrics = _update_together(self, self.correction, batch, obs, next_obs, noise, alpha)
        else:
            metrics = _update_critics(self, batch, obs, next_obs, noise, alpha)
            if with_actor:
                after = one_later(self.normaliser, batch, next_obs)
                metrics |= update_actor_and_temperature(self, obs, after, noise, alpha)
        move_target(self.target.tensors, self.critic.tensors, self.constants.polyak)
        return metrics

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        return {"normaliser": self.normaliser, "actor": self.actor, "critic": self.critic, "target": self.target}

    def scalars(self) -> Mapping[str, Tensor]:
        """log α."""
        return {"log_alpha": self.log_alpha}

    def optimizers(self) -> Mapping[str, Adam]:
        """One each, by name."""
        return {"actor": self.actor_adam, "critic": self.critic_adam, "alpha": self.alpha_adam}


def soft_target(state: SacState, batch: Batch, next_obs: Tensor, noise: Noise, alpha: Tensor) -> Tensor:
    """The soft Bellman target y (b,) (``critic.bellman_target``); within the graph of the actor if there is one."""
    next_action, next_log_prob = state.actor.sample(next_obs, noise.next_action)
    next_q = state.target(next_obs, next_action, noise.dropout_of(TARGET))
    if noise.subset is not None:
        next_q = next_q.index_select(0, noise.subset)
    discount = discount_over(batch, state.constants.discount)
    return bellman_target(batch.reward, batch.terminal, next_q, next_log_prob, alpha, discount)


def _update_critics(
    state: SacState, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor
) -> dict[str, Tensor]:
    with torch.no_grad():
        target = soft_target(state, batch, next_obs, noise, alpha)
    q = state.critic(obs, batch.action, noise.dropout_of(LOSS))
    loss = critic_loss(q, target)
    step(state.critic_adam, loss)
    return {"critic_loss": loss.detach(), "q": q.detach().mean()}


def _update_together(
    state: SacState, correction: Correction, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor
) -> dict[str, Tensor]:
    """Steps 1 to 3 as one simultaneous step of critics and actor along their corrected gradients, then α's."""
    q = state.critic(obs, batch.action)
    # The target's own graph leads to the actor alone: the target network takes no gradient.
    q_loss = critic_loss(q, soft_target(state, batch, next_obs, noise, alpha))
    action, log_prob = state.actor.sample(obs, noise.action)
    policy_loss = actor_loss(log_prob, state.critic(obs, action).amin(dim=0), alpha)
    correction.step((q_loss, policy_loss), (state.critic_adam, state.actor_adam))
    log_prob = log_prob.detach()
    update_temperature(state, log_prob)
    metrics = {"critic_loss": q_loss.detach(), "q": q.detach().mean()}
    return metrics | {"actor_loss": policy_loss.detach(), "entropy": -log_prob.mean(), "alpha": alpha}
