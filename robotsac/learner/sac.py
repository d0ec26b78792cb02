"""Soft Actor-Critic: the state of learning, and one update of it (Haarnoja et al. 2018b, algorithm 1).

One update, in this order:

1. critics   one Adam step on J_Q towards the soft Bellman target            (``critic``)
2. actor     one Adam step on J_π against the critics just moved             (``actor_loss``), every ``actor_delay`` updates
3. α         one Adam step on J(α) with the log-probabilities of step 2      (``temperature``), together with 2
4. targets   θ̄ ← τ θ + (1 − τ) θ̄                                             (``critic.move_target``)

Nothing in it reads a tensor back to the host, so on a GPU updates queue up behind each other. Options, each off by
default: a fixed temperature; the score-function gradient; many critics of which a random few are the target (REDQ);
dropout in them (DroQ); smoothness terms (``smoothness``); gradient corrections (``correction``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss, score_function_loss
from robotsac.learner.algorithm import Noise, NoiseShape, actor_of, critic_shape, discount_of, step
from robotsac.learner.correction import Correction
from robotsac.learner.critic import Critic, bellman_target, critic_loss, discount_over, move_target
from robotsac.learner.networks import Normaliser
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import smoothness_loss
from robotsac.learner.target_entropy import target_entropy
from robotsac.learner.temperature import bound_, first_log_alpha, temperature_loss


@dataclass(frozen=True, slots=True)
class Constants:
    """What stays fixed: γ per control step, τ, H̄ in nats (``None``: α is fixed), critic updates per actor update, whether
    the actor's gradient is pathwise, and the weights of its smoothness terms in time and space, ε's σ."""

    discount: float
    polyak: float
    target_entropy: float | None
    actor_delay: int
    pathwise: bool
    smooth_time: float
    smooth_space: float
    smooth_sigma: float

    @classmethod
    def of(cls, learn: LearnConfig, act_dim: int, control_rate_hz: float) -> Constants:
        """As ``[learn]`` says. Raises ConfigError: horizon shorter than a control step."""
        automatic = learn.temperature == "auto"
        return cls(
            discount=discount_of(learn, control_rate_hz),
            polyak=learn.polyak,
            target_entropy=target_entropy(learn.target_sigma, act_dim) if automatic else None,
            actor_delay=learn.actor_delay,
            pathwise=learn.policy_gradient == "reparameterised",
            smooth_time=learn.smooth_time,
            smooth_space=learn.smooth_space,
            smooth_sigma=learn.smooth_sigma,
        )


class FrozenCritic(Protocol):
    """Critics as the actor sees them."""

    def frozen(self, obs: Tensor, action: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Q (N, b) with a gradient to the action and none to the critics' parameters."""
        ...


class ActorLearner(Protocol):
    """What step 2 and 3 of an update need."""

    constants: Constants
    actor: Actor
    log_alpha: Tensor
    actor_adam: Adam
    alpha_adam: Adam

    @property
    def critic(self) -> FrozenCritic:
        """Whom the actor follows."""
        ...


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

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """See :func:`update`."""
        return update(self, batch, noise)

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        return {"normaliser": self.normaliser, "actor": self.actor, "critic": self.critic, "target": self.target}

    def scalars(self) -> Mapping[str, Tensor]:
        """log α."""
        return {"log_alpha": self.log_alpha}

    def optimizers(self) -> Mapping[str, Adam]:
        """One each, by name."""
        return {"actor": self.actor_adam, "critic": self.critic_adam, "alpha": self.alpha_adam}


def update(state: SacState, batch: Batch, noise: Noise) -> dict[str, Tensor]:
    """One SAC update, in place; deterministic in ``(state, batch, noise)``.

    Args:
        state: changed.
        batch: b transitions.
        noise: of ``state.noise_shape``.

    Returns:
        Device scalars: ``critic_loss``, ``q`` (mean), and when the actor was updated ``actor_loss``, ``entropy`` (nats,
        an estimate) and ``alpha``. Read them rarely: reading waits for the device.
    """
    obs, next_obs = state.normaliser(batch.obs), state.normaliser(batch.next_obs)
    alpha = state.log_alpha.detach().exp()
    if state.correction is not None:
        metrics = _update_together(state, state.correction, batch, obs, next_obs, noise, alpha)
        state.updates += 1
    else:
        metrics = _update_critics(state, batch, obs, next_obs, noise, alpha)
        state.updates += 1
        if state.updates % state.constants.actor_delay == 0:
            metrics |= update_actor_and_temperature(state, obs, next_obs, noise, alpha)
    move_target(state.target.tensors, state.critic.tensors, state.constants.polyak)
    return metrics


def soft_target(state: SacState, batch: Batch, next_obs: Tensor, noise: Noise, alpha: Tensor) -> Tensor:
    """The soft Bellman target y (b,) (``critic.bellman_target``); within the graph of the actor if there is one."""
    next_action, next_log_prob = state.actor.sample(next_obs, noise.next_action)
    next_q = state.target(next_obs, next_action, _dropout(noise, 0))
    if noise.subset is not None:
        next_q = next_q.index_select(0, noise.subset)
    discount = discount_over(batch, state.constants.discount)
    return bellman_target(batch.reward, batch.terminal, next_q, next_log_prob, alpha, discount)


def update_temperature(state: ActorLearner, log_prob: Tensor) -> None:
    """One step on J(α), if α is learned."""
    if state.constants.target_entropy is not None:
        step(state.alpha_adam, temperature_loss(state.log_alpha, log_prob, state.constants.target_entropy))
        bound_(state.log_alpha)


def _update_critics(
    state: SacState, batch: Batch, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor
) -> dict[str, Tensor]:
    with torch.no_grad():
        target = soft_target(state, batch, next_obs, noise, alpha)
    q = state.critic(obs, batch.action, _dropout(noise, 1))
    loss = critic_loss(q, target)
    step(state.critic_adam, loss)
    return {"critic_loss": loss.detach(), "q": q.detach().mean()}


def update_actor_and_temperature(
    state: ActorLearner, obs: Tensor, next_obs: Tensor, noise: Noise, alpha: Tensor
) -> dict[str, Tensor]:
    """Steps 2 and 3 of an update; obs, next_obs (b, obs_dim) normalised. Returns their metrics."""
    constants = state.constants
    action, log_prob = state.actor.sample(obs, noise.action, constants.pathwise)
    q = state.critic.frozen(obs, action, _dropout(noise, 2))
    # Of many critics, and of critics with dropout, the actor follows the mean (REDQ, Chen et al. 2021, algorithm 1; DroQ,
    # Hiraoka et al. 2022, algorithm 2), of two the smaller.
    value = q.amin(dim=0) if noise.subset is None and noise.dropout is None else q.mean(dim=0)
    loss = (actor_loss if constants.pathwise else score_function_loss)(log_prob, value, alpha)
    if constants.smooth_time or constants.smooth_space:
        loss = loss + smoothness_loss(state.actor, obs, next_obs, noise, constants)
    step(state.actor_adam, loss)
    log_prob = log_prob.detach()
    update_temperature(state, log_prob)
    # J_π itself: the score function's loss has its gradient, not its value.
    value_of_loss = actor_loss(log_prob, value.detach(), alpha)
    return {"actor_loss": value_of_loss, "entropy": -log_prob.mean(), "alpha": alpha}


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


def _dropout(noise: Noise, use: int) -> Tensor | None:
    return None if noise.dropout is None else noise.dropout[use]
