"""Soft Actor-Critic: the state of learning, and one update of it (Haarnoja et al. 2018b, algorithm 1).

One update, in this order:

1. critics   one Adam step on J_Q towards the soft Bellman target            (``critic``)
2. actor     one Adam step on J_π against the critics just moved             (``actor_loss``), every ``actor_delay`` updates
3. α         one Adam step on J(α) with the log-probabilities of step 2      (``temperature``), together with 2
4. targets   θ̄ ← τ θ + (1 − τ) θ̄                                             (``critic.move_target``)

Nothing in it reads a tensor back to the host, so on a GPU updates queue up behind each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam

from robotsac.config.schema import LearnConfig
from robotsac.errors import ConfigError
from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss
from robotsac.learner.critic import Critic, bellman_target, critic_loss, move_target
from robotsac.learner.networks import Normaliser, Shape
from robotsac.learner.policy_head import sample
from robotsac.learner.replay import Batch
from robotsac.learner.target_entropy import check_feasible, target_entropy
from robotsac.learner.temperature import bound_, temperature_loss


@dataclass(frozen=True, slots=True)
class Noise:
    """The randomness of one update, standard normal, (b, act_dim) each: for the action at s' and the one at s."""

    next_action: Tensor
    action: Tensor

    @classmethod
    def draw(cls, batch_size: int, act_dim: int, generator: torch.Generator) -> Noise:
        """Fresh noise on the generator's device."""
        both = torch.randn(2, batch_size, act_dim, generator=generator, device=generator.device)
        return cls(both[0], both[1])


@dataclass(frozen=True, slots=True)
class Constants:
    """What stays fixed: γ per control step, τ, H̄ in nats, critic updates per actor update."""

    discount: float
    polyak: float
    target_entropy: float
    actor_delay: int


@dataclass(slots=True)
class SacState:
    """Everything that an update reads or changes; what a checkpoint must hold, besides replay and generators."""

    constants: Constants
    normaliser: Normaliser
    actor: Actor
    critic: Critic
    target: Critic
    log_alpha: Tensor
    actor_adam: Adam
    critic_adam: Adam
    alpha_adam: Adam
    updates: int = 0

    @classmethod
    def create(
        cls, learn: LearnConfig, obs_dim: int, act_dim: int, control_rate_hz: int, device: torch.device
    ) -> SacState:
        """Fresh state; the same ``learn.seed`` gives the same weights on every device.

        Raises:
            ConfigError: target entropy out of reach, horizon shorter than a control step, a layer without units.
        """
        check_feasible(learn, act_dim)
        _check_shape(learn, control_rate_hz)
        seeded = torch.Generator().manual_seed(learn.seed)
        shape = Shape(obs_dim, act_dim, learn.hidden, learn.activation)
        actor = Actor(shape, learn.log_std_min, learn.log_std_max, seeded).to(device)
        critic, target = (Critic(shape, learn.critics, learn.critic_layer_norm, seeded) for _ in range(2))
        target.load_state_dict(critic.state_dict())
        critic, target = critic.to(device), target.to(device).requires_grad_(False)
        log_alpha = torch.tensor(learn.temperature_init, device=device).log().requires_grad_()
        return cls(
            constants=Constants(
                discount=1.0 - 1.0 / (learn.horizon_s * control_rate_hz),
                polyak=learn.polyak,
                target_entropy=target_entropy(learn.target_sigma, act_dim),
                actor_delay=learn.actor_delay,
            ),
            normaliser=Normaliser(obs_dim).to(device),
            actor=actor,
            critic=critic,
            target=target,
            log_alpha=log_alpha,
            actor_adam=Adam(actor.parameters(), lr=learn.actor_lr, fused=True),
            critic_adam=Adam(critic.parameters(), lr=learn.critic_lr, fused=True),
            alpha_adam=Adam([log_alpha], lr=learn.temperature_lr, fused=True),
        )


def update(state: SacState, batch: Batch, noise: Noise) -> dict[str, Tensor]:
    """One SAC update, in place; deterministic in ``(state, batch, noise)``.

    Args:
        state: changed.
        batch: b transitions.
        noise: two draws of (b, act_dim).

    Returns:
        Device scalars: ``critic_loss``, ``q`` (mean), and when the actor was updated ``actor_loss``, ``entropy`` (nats,
        an estimate) and ``alpha``. Read them rarely: reading waits for the device.
    """
    obs, next_obs = state.normaliser(batch.obs), state.normaliser(batch.next_obs)
    alpha = state.log_alpha.detach().exp()
    target = _target(state, batch, next_obs, noise.next_action, alpha)
    metrics = _update_critics(state, obs, batch.action, target)
    state.updates += 1
    if state.updates % state.constants.actor_delay == 0:
        metrics |= _update_actor_and_temperature(state, obs, noise.action, alpha)
    move_target(state.target.tensors, state.critic.tensors, state.constants.polyak)
    return metrics


@torch.no_grad()
def _target(state: SacState, batch: Batch, next_obs: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    mean, log_std = state.actor(next_obs)
    next_action, next_log_prob = sample(mean, log_std, noise)
    next_q = state.target(next_obs, next_action)
    return bellman_target(batch.reward, batch.terminal, next_q, next_log_prob, alpha, state.constants.discount)


def _update_critics(state: SacState, obs: Tensor, action: Tensor, target: Tensor) -> dict[str, Tensor]:
    q = state.critic(obs, action)
    loss = critic_loss(q, target)
    _step(state.critic_adam, loss)
    return {"critic_loss": loss.detach(), "q": q.detach().mean()}


def _update_actor_and_temperature(state: SacState, obs: Tensor, noise: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    mean, log_std = state.actor(obs)
    action, log_prob = sample(mean, log_std, noise)
    loss = actor_loss(log_prob, state.critic.frozen(obs, action), alpha)
    _step(state.actor_adam, loss)
    log_prob = log_prob.detach()
    _step(state.alpha_adam, temperature_loss(state.log_alpha, log_prob, state.constants.target_entropy))
    bound_(state.log_alpha)
    return {"actor_loss": loss.detach(), "entropy": -log_prob.mean(), "alpha": alpha}


def _step(adam: Adam, loss: Tensor) -> None:
    adam.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


def _check_shape(learn: LearnConfig, control_rate_hz: int) -> None:
    if learn.horizon_s * control_rate_hz <= 1.0:
        raise ConfigError(
            f"learn.horizon_s {learn.horizon_s} s is not longer than one control step of {1 / control_rate_hz:.3g} s",
            reason="the discount would be 0 or below",
            command="robotsac learn --set learn.horizon_s=1.0",
        )
    if any(width < 1 for width in learn.hidden):
        raise ConfigError(
            f"learn.hidden {learn.hidden} has a layer without units",
            reason="the width of a layer is 1 or more",
            command="robotsac learn --set learn.hidden=[256,256]",
        )


def resolve_device(name: str) -> torch.device:
    """The device that ``learn.device`` names; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"learn.device {name!r} cannot be used here",
            reason=str(error).splitlines()[0],
            command="robotsac learn --set learn.device=auto",
        ) from error
    return device
