"""SAC with batch-normalised critics and no target networks (Bhatt et al. 2024, CrossQ, section 3).

One update:

1. critics   Q(s, a) and Q(s', a') in one forward pass; the latter, without its gradient, is the target of the former
2. actor, α  as in SAC (``sac``), against critics that use their running statistics

Adam's β1 is ½: without a target network that lags, momentum would carry the critics past a target that has moved.

Departures from the published code: plain batch statistics instead of batch renormalisation with a warm-up, and no
normalisation in the actor, which would have to be exported with it. Width and the actor's delay are the configuration's
(``critic_hidden``, ``actor_delay``); the paper's critics are 2048 wide, and its actor moves at every third update.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.actor_step import Constants, update_actor_and_temperature
from robotsac.learner.algorithm import Noise, NoiseShape, actor_of, critic_shape, step
from robotsac.learner.batch_norm_critic import BatchNormCritic
from robotsac.learner.critic import bellman_target, critic_loss, discount_over
from robotsac.learner.networks import Normaliser
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import one_later
from robotsac.learner.temperature import first_log_alpha

BETAS = (0.5, 0.999)


@dataclass(slots=True)
class CrossQState:
    """CrossQ's state; an :class:`~robotsac.learner.algorithm.Algorithm`."""

    constants: Constants
    noise_shape: NoiseShape
    normaliser: Normaliser
    actor: Actor
    critic: BatchNormCritic
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam
    updates: int = 0

    @classmethod
    def create(
        cls, learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: float, device: torch.device
    ) -> CrossQState:
        """Fresh state; the same ``learn.seed`` gives the same weights on every device.

        Raises:
            ConfigError: horizon shorter than a control step.
        """
        seeded = torch.Generator().manual_seed(learn.seed)
        actor = actor_of(learn, obs_dim, act_dim, seeded).to(device)
        critic = BatchNormCritic(critic_shape(learn, obs_dim, act_dim), learn.critics, seeded).to(device)
        log_alpha = first_log_alpha(learn, device)
        return cls(
            constants=Constants.of(learn, act_dim, control_rate_hz),
            noise_shape=NoiseShape.of(learn, actor.head, obs_dim, act_dim),
            normaliser=Normaliser(obs_dim).to(device),
            actor=actor,
            critic=critic,
            log_alpha=log_alpha,
            actor_adam=Adam(actor.parameters(), lr=learn.actor_lr, betas=BETAS, fused=True),
            critic_adam=Adam(critic.parameters(), lr=learn.critic_lr, betas=BETAS, fused=True),
            alpha_adam=Adam([log_alpha], lr=learn.temperature_lr, betas=BETAS, fused=True),
        )

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.algorithm.Algorithm`."""
        obs, next_obs = self.normaliser(batch.obs), self.normaliser(batch.next_obs)
        alpha = self.log_alpha.detach().exp()
        metrics = self._update_critics(batch, obs, next_obs, noise, alpha)
        if with_actor:
            after = one_later(self.normaliser, batch, next_obs)
            metrics |= update_actor_and_temperature(self, obs, after, noise, alpha)
        return metrics

    def _update_critics(
        self, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            next_action, next_log_prob = self.actor.sample(next_obs, noise.next_action)
        q, next_q = self.critic.joint(obs, batch.action, next_obs, next_action)
        next_q = next_q.detach()
        if noise.subset is not None:
            next_q = next_q.index_select(0, noise.subset)
        discount = discount_over(batch, self.constants.discount)
        loss = critic_loss(q, bellman_target(batch.reward, batch.terminal, next_q, next_log_prob, alpha, discount))
        step(self.critic_adam, loss)
        return {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        return {"normaliser": self.normaliser, "actor": self.actor, "critic": self.critic}

    def scalars(self) -> Mapping[str, Tensor]:
        """log α."""
        return {"log_alpha": self.log_alpha}

    def optimizers(self) -> Mapping[str, Adam]:
        """One each, by name."""
        return {"actor": self.actor_adam, "critic": self.critic_adam, "alpha": self.alpha_adam}
