"""Soft Actor-Critic with a value network (Haarnoja et al. 2018a, algorithm 1).

One update, in this order:

1. V          one Adam step on J_V towards min_i Q_θi(s, a) − α log π(a|s), a ~ π(·|s) fresh     eqs. 5 and 6
2. Q          one Adam step on J_Q towards r + γ V_ψ̄(s')                                         eqs. 7, 8 and 9
3. actor, α   as in ``sac``, against the Q-functions just moved                                  eqs. 12 and 13
4. V̄          ψ̄ ← τ ψ + (1 − τ) ψ̄

V averages over actions of the policy as it is now: the action that the robot took is only Q's business. The Q-functions
have no targets of their own, the target of V stands in for them. The paper has α = 1 and scales the reward; here α is
explicit, fixed or learned, which is the same up to a common factor of all values.

With a gradient correction (``correction``), 1 to 3 are one simultaneous step of all three players, then α's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss
from robotsac.learner.actor_step import Constants, update_actor_and_temperature, update_temperature
from robotsac.learner.algorithm import Noise, NoiseShape, actor_of, critic_shape, step
from robotsac.learner.correction import Correction
from robotsac.learner.critic import Critic, critic_loss, discount_over, move_target
from robotsac.learner.networks import Normaliser, same_shape
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import one_later
from robotsac.learner.temperature import first_log_alpha


@dataclass(slots=True)
class SacV1State:
    """SAC v1; an :class:`~robotsac.learner.algorithm.Algorithm`. ``value`` is V_ψ and ``target`` V_ψ̄."""

    constants: Constants
    noise_shape: NoiseShape
    normaliser: Normaliser
    actor: Actor
    critic: Critic
    value: Critic
    target: Critic
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    value_adam: Adam
    alpha_adam: Adam
    correction: Correction | None
    updates: int = 0

    @classmethod
    def create(
        cls, learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: float, device: torch.device
    ) -> SacV1State:
        """Fresh state; the same ``learn.seed`` gives the same weights on every device.

        Raises:
            ConfigError: horizon shorter than a control step.
        """
        seeded = torch.Generator().manual_seed(learn.seed)
        actor = actor_of(learn, obs_dim, act_dim, seeded).to(device)
        critic = Critic.of(learn, critic_shape(learn, obs_dim, act_dim), seeded).to(device)
        shape = critic_shape(learn, obs_dim, 0)
        value, target = (Critic(shape, 1, learn.critic_layer_norm, seeded) for _ in range(2))
        target.load_state_dict(value.state_dict())
        value, target = value.to(device), target.to(device).requires_grad_(False)
        log_alpha = first_log_alpha(learn, device)
        return cls(
            constants=Constants.of(learn, act_dim, control_rate_hz),
            noise_shape=NoiseShape.of(learn, actor.head, obs_dim, act_dim),
            normaliser=Normaliser(obs_dim).to(device),
            actor=actor,
            critic=critic,
            value=value,
            target=target,
            log_alpha=log_alpha,
            actor_adam=Adam(actor.parameters(), lr=learn.actor_lr, fused=True),
            critic_adam=Adam(critic.parameters(), lr=learn.critic_lr, fused=True),
            value_adam=Adam(value.parameters(), lr=learn.critic_lr, fused=True),
            alpha_adam=Adam([log_alpha], lr=learn.temperature_lr, fused=True),
            correction=Correction.of(learn),
        )

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """See :class:`~robotsac.learner.algorithm.Algorithm`; ``value_loss`` and ``v`` (mean) come on top."""
        obs, next_obs = self.normaliser(batch.obs), self.normaliser(batch.next_obs)
        alpha = self.log_alpha.detach().exp()
        if self.correction is not None:
            metrics = _update_together(self, self.correction, batch, obs, next_obs, noise, alpha)
        else:
            metrics = update_value(self, obs, noise, alpha) | update_critics(self, batch, obs, next_obs)
            if with_actor:
                after = one_later(self.normaliser, batch, next_obs)
                metrics |= update_actor_and_temperature(self, obs, after, noise, alpha)
        move_target(self.target.tensors, self.value.tensors, self.constants.polyak)
        return metrics

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        networks = {"actor": self.actor, "critic": self.critic, "value": self.value, "target": self.target}
        return {"normaliser": self.normaliser, **networks}

    def scalars(self) -> Mapping[str, Tensor]:
        """log α."""
        return {"log_alpha": self.log_alpha}

    def optimizers(self) -> Mapping[str, Adam]:
        """One each, by name."""
        own = {"actor": self.actor_adam, "critic": self.critic_adam, "value": self.value_adam}
        return {**own, "alpha": self.alpha_adam}


def update_value(state: SacV1State, obs: Tensor, noise: Noise, alpha: Tensor) -> dict[str, Tensor]:
    """Step 1: one step of V, at the actor's own action; ``obs`` (b, obs_dim) normalised.

    ``noise.next_action``, which nothing else needs here, draws it: V and the actor do not see the same action.
    """
    with torch.no_grad():
        action, log_prob = state.actor.sample(obs, noise.next_action)
        target = value_target(state.critic(obs, action), log_prob, alpha)
    value = value_of(state.value, obs)
    loss = value_loss(value, target)
    step(state.value_adam, loss)
    return {"value_loss": loss.detach(), "v": value.detach().mean()}


def update_critics(state: SacV1State, batch: Batch, obs: Tensor, next_obs: Tensor) -> dict[str, Tensor]:
    """Step 2: one step of the Q-functions, at the replay's action; ``obs``, ``next_obs`` (b, obs_dim) normalised."""
    q = state.critic(obs, batch.action)
    loss = critic_loss(q, target_of_q(state, batch, next_obs))
    step(state.critic_adam, loss)
    return {"critic_loss": loss.detach(), "q": q.detach().mean()}


@torch.no_grad()
def target_of_q(state: SacV1State, batch: Batch, next_obs: Tensor) -> Tensor:
    """:func:`q_target` (b,) of a batch; ``next_obs`` (b, obs_dim) normalised."""
    discount = discount_over(batch, state.constants.discount)
    return q_target(batch.reward, batch.terminal, value_of(state.target, next_obs), discount)


class Losses(NamedTuple):
    """The game of ``correction``: L_V, L_Q and L_π, all in one graph; V (b,) and Q (N, b) at the batch, log π (b,)."""

    value: Tensor
    critic: Tensor
    actor: Tensor
    v: Tensor
    q: Tensor
    log_prob: Tensor


def losses(state: SacV1State, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor) -> Losses:
    """See :class:`Losses`; ``obs``, ``next_obs`` (b, obs_dim) normalised."""
    seen, seen_log_prob = state.actor.sample(obs, noise.next_action)
    v = value_of(state.value, obs)
    v_loss = value_loss(v, value_target(state.critic(obs, seen), seen_log_prob, alpha))
    q = state.critic(obs, batch.action)
    q_loss = critic_loss(q, target_of_q(state, batch, next_obs))
    action, log_prob = state.actor.sample(obs, noise.action)
    policy_loss = actor_loss(log_prob, state.critic(obs, action).amin(dim=0), alpha)
    return Losses(v_loss, q_loss, policy_loss, v.detach(), q.detach(), log_prob.detach())


def _update_together(
    state: SacV1State,
    correction: Correction,
    batch: Batch,
    obs: Tensor,
    next_obs: Tensor,
    noise: Noise,
    alpha: Tensor,
) -> dict[str, Tensor]:
    """Steps 1 to 3 as one simultaneous step along corrected gradients, then α's."""
    game = losses(state, batch, obs, next_obs, noise, alpha)
    correction.step((game.value, game.critic, game.actor), (state.value_adam, state.critic_adam, state.actor_adam))
    update_temperature(state, game.log_prob)
    metrics = {"value_loss": game.value.detach(), "v": game.v.mean(), "critic_loss": game.critic.detach()}
    actors = {"actor_loss": game.actor.detach(), "entropy": -game.log_prob.mean(), "alpha": alpha}
    return metrics | {"q": game.q.mean()} | actors


def value_of(network: Critic, obs: Tensor) -> Tensor:
    """V(s) (b,) of a critic of one that sees an action of no numbers; ``obs`` (b, obs_dim) normalised."""
    value: Tensor = network(obs, obs[:, :0])[0]
    return value


def value_target(q: Tensor, log_prob: Tensor, alpha: Tensor) -> Tensor:
    """min_i Q_θi(s, a) − α log π(a|s): V's target (Haarnoja et al. 2018a, eq. 5; the minimum: section 4.2).

    Args:
        q: (N, b) at a fresh a ~ π(·|s).
        log_prob: (b,) of that action.
        alpha: () temperature.

    Returns:
        (b,)
    """
    same_shape(q[0], log_prob)
    return q.amin(dim=0) - alpha * log_prob


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """J_V = mean_b ½ (V_ψ(s) − target)² (Haarnoja et al. 2018a, eq. 5); both (b,) → ()."""
    same_shape(value, target)
    return 0.5 * (value - target).square().mean()


def q_target(reward: Tensor, terminal: Tensor, next_value: Tensor, discount: Tensor | float) -> Tensor:
    """Q̂ = r + γ (1 − d) V_ψ̄(s') (Haarnoja et al. 2018a, eq. 8). The entropy at s' is in V already.

    Args:
        reward, terminal: (b,); terminal is 1 where the next state must not be bootstrapped from.
        next_value: (b,) of the target network.
        discount: γ, or (b,) γ^k (``critic.discount_over``).

    Returns:
        (b,)
    """
    same_shape(reward, terminal, next_value)
    return reward + discount * (1.0 - terminal) * next_value
