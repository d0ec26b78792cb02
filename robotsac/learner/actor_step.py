"""The actor's and the temperature's step, which every soft variant takes: steps 2 and 3 of an update of SAC.

What it needs of an algorithm is :class:`ActorLearner`; ``sac``, ``sac_v1`` and ``cross_q`` are some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.optim import Adam

from robotsac.config.learn import LearnConfig
from robotsac.learner.actor import Actor
from robotsac.learner.actor_loss import actor_loss, score_function_loss
from robotsac.learner.algorithm import ACTOR, Noise, discount_of, step
from robotsac.learner.smoothness import smoothness_loss
from robotsac.learner.target_entropy import target_entropy
from robotsac.learner.temperature import bound_, temperature_loss


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


def update_actor_and_temperature(
    state: ActorLearner, obs: Tensor, after: Tensor, noise: Noise, alpha: Tensor
) -> dict[str, Tensor]:
    """Steps 2 and 3 of an update; obs and, one step later, after (b, obs_dim) normalised. Returns their metrics."""
    constants = state.constants
    action, log_prob = state.actor.sample(obs, noise.action, constants.pathwise)
    q = state.critic.frozen(obs, action, noise.dropout_of(ACTOR))
    # Of many critics, and of critics with dropout, the actor follows the mean (REDQ, Chen et al. 2021, algorithm 1; DroQ,
    # Hiraoka et al. 2022, algorithm 2), of two the smaller.
    value = q.amin(dim=0) if noise.subset is None and noise.dropout is None else q.mean(dim=0)
    policy_loss = actor_loss(log_prob, value, alpha)
    # The score function's loss has the gradient of J_π and not its value, so what is told is the other.
    loss = policy_loss if constants.pathwise else score_function_loss(log_prob, value, alpha)
    if constants.smooth_time or constants.smooth_space:
        loss = loss + smoothness_loss(state.actor, obs, after, noise, constants)
    step(state.actor_adam, loss)
    log_prob = log_prob.detach()
    update_temperature(state, log_prob)
    return {"actor_loss": policy_loss.detach(), "entropy": -log_prob.mean(), "alpha": alpha}


def update_temperature(state: ActorLearner, log_prob: Tensor) -> None:
    """One step on J(α), if α is learned."""
    if state.constants.target_entropy is not None:
        step(state.alpha_adam, temperature_loss(state.log_alpha, log_prob, state.constants.target_entropy))
        bound_(state.log_alpha)
