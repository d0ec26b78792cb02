"""``[learn]``: which SAC, and how the learner uses its machine.

The keys are in the order in which the learner is read: variant and networks, then each loss, then data, then the machine.
What cannot work is refused here, when the configuration is read, with the reason; it needs no torch to know.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from robotsac.config.base import Count, NotNegative, Positive, Share, Table
from robotsac.config.entropy import GAUSSIAN_ENTROPY_NATS, SIGMA_MAX, squashed_sigma, widest_sigma

UPDATES_PER_STEP_MAX = 5.0
"""Above, critics that nothing stabilises overfit the newest data and their values run away (Chen et al. 2021, section 3)."""
HORIZON_S = 0.3
"""The default: what is another horizon was asked for."""
ENSEMBLE = 5
"""A minimum over a random few, at most half, of at least this many critics stabilises too (Chen et al. 2021, figure 3)."""


BETA_SIGMA_MIN = 0.016
"""Of the Beta head's narrowest action in the middle: 1/√(2c + 1) at its largest concentrations c = 2001."""
ALPHA_MIN, ALPHA_MAX = 1e-5, 10.0
"""A learned α never leaves these bounds. At one of them for long, target entropy and reward scale do not fit each other."""


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise ValueError(f"must be auto, cpu, cuda or cuda:N, not {name!r}")
    return name


class LearnConfig(Table):
    """``[learn]``: SAC and the learner's processes."""

    # sac: Haarnoja et al. 2018b. sac_v1: with a value network, Haarnoja et al. 2018a. ddpg: Lillicrap et al. 2016.
    variant: Literal["sac", "sac_v1", "ddpg"] = "sac"

    # Networks.
    hidden: tuple[Count, ...] = (128, 128)
    activation: Literal["relu", "silu", "tanh"] = "relu"

    # Critics. batch_norm: batch-normalised critics without target networks (Bhatt et al. 2024, CrossQ); critic_layer_norm and
    # polyak then have nothing to act on.
    critic: Literal["mlp", "batch_norm"] = "mlp"
    critic_layer_norm: bool = True
    critic_hidden: tuple[Count, ...] | None = None
    critics: Annotated[int, Field(ge=1, le=32)] = 2
    # Targets take the minimum over a random choice of so many critics; all of them when there are no more.
    critic_subset: Count = 2
    critic_dropout: Share = 0.0
    critic_lr: Positive = 1e-3
    polyak: Annotated[float, Field(gt=0, le=1)] = 0.02

    # Actor.
    head: Literal["gaussian", "mixture", "beta"] = "gaussian"
    mixture_components: Annotated[int, Field(ge=1, le=16)] = 3
    # Of log σ before squashing. Beyond these bounds σ or 1/σ is no number in float32, or squashing leaves nothing of it.
    log_std_min: Annotated[float, Field(ge=-20, le=2)] = -5.0
    log_std_max: Annotated[float, Field(ge=-20, le=2)] = 2.0
    actor_lr: Positive = 1e-3
    actor_delay: Count = 1
    policy_gradient: Literal["reparameterised", "score"] = "reparameterised"
    # Weights of |μ(s) − μ(s')|² and |μ(s) − μ(s + ε)|², ε of smooth_sigma normalised units (Mysore et al. 2021, CAPS).
    smooth_time: NotNegative = 0.1
    smooth_space: NotNegative = 0.0
    smooth_sigma: Positive = 0.05

    # Temperature: "auto" keeps the target entropy, a number is kept as it is.
    temperature: Literal["auto"] | Positive = "auto"
    temperature_init: Annotated[float, Field(ge=ALPHA_MIN, le=ALPHA_MAX)] = 0.02
    temperature_lr: Positive = 1e-3
    # Target entropy as the standard deviation of a Gaussian action, in normalised units, per dimension.
    target_sigma: Positive = 0.15

    # Game-theoretic correction of the gradients, an experiment (see learner/correction.py).
    correction: Literal["none", "consensus", "symplectic"] = "none"
    correction_weight: Positive = 0.1
    correction_normalised: bool = False

    # DDPG's exploration noise, normalised action units.
    exploration_sigma: Positive = 0.1

    # Discount per control step: from a horizon in seconds, gamma = 1 - 1 / (horizon_s * control_rate_hz); or as it is.
    discount: Literal["from_horizon"] | Annotated[float, Field(ge=0, lt=1)] = "from_horizon"
    horizon_s: Positive = HORIZON_S
    # Rewards of so many steps, then the bootstrap; never across the end of an episode.
    n_step: Annotated[int, Field(ge=1, le=20)] = 3

    # Data. normalise_obs: by the mean and spread of all observations so far, for worlds that do not scale theirs.
    normalise_obs: bool = False
    batch_size: Count = 256
    replay_capacity: Count = 1_000_000
    # Replay logs of earlier runs on the same robot and task, and the share of each batch that comes from them; not with --sync.
    prior_data: tuple[str, ...] = ()
    prior_share: Share = 0.5
    # Critic updates per new transition, and the slack (in transitions) before either side waits for the other.
    updates_per_step: Annotated[float, Field(gt=0, le=64)] = 2.0
    slack_steps: Count = 200
    start_steps: Count = 300

    # The machine. Whether this computer has the device is asked by ``learn`` and ``train``; the robot's has no torch to ask.
    device: Annotated[str, AfterValidator(_device)] = "auto"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    # How updates are computed. auto: native (C++) on a CPU, graphed (compiled, and replayed as a CUDA graph) on a GPU, where they
    # can be had and pass the check at the start; else eager.
    backend: Literal["auto", "eager", "native", "native_bfloat16", "compiled", "compiled_bfloat16", "graphed"] = "auto"
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    publish_every_s: Positive = 1.0
    checkpoint_every_s: Positive = 30.0
    checkpoints_kept: Count = 2
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def horizon_too_short(self, control_rate_hz: float) -> str:
        """In words, that the horizon is not longer than a control step, which leaves no discount; ``""`` where it is."""
        if self.discount != "from_horizon" or self.horizon_s * control_rate_hz > 1.0:
            return ""
        step_s = 1.0 / control_rate_hz
        return f"learn.horizon_s {self.horizon_s:g} s is not longer than one control step of {step_s:.3g} s"

    @property
    def stabilised(self) -> bool:
        """Whether something keeps the critics' values in bounds at many updates per step.

        Dropout alone does not (Hiraoka et al. 2022, section 4.3), nor batch normalisation, which was shown at one update.
        """
        ensemble = self.critics >= ENSEMBLE and 2 * self.critic_subset <= self.critics
        return ensemble or (self.critic == "mlp" and self.critic_layer_norm)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.log_std_min >= self.log_std_max:
            raise ValueError(f"log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}")
        if self.critic_subset > self.critics and self.critics != 1:
            raise ValueError(f"critic_subset {self.critic_subset} is more than the {self.critics} critics there are")
        if self.updates_per_step > UPDATES_PER_STEP_MAX and not self.stabilised:
            raise ValueError(
                f"updates_per_step {self.updates_per_step:g} is above {UPDATES_PER_STEP_MAX:g} and nothing stabilises the "
                f"critics: set critic_layer_norm with critic 'mlp', or critics of {ENSEMBLE} or more, twice critic_subset at least"
            )
        return self

    @model_validator(mode="after")
    def _entropy_within_reach(self) -> Self:
        """In normalised units uniform actions have log 2 nats per dimension, and a narrowest policy the least."""
        if self.variant == "ddpg" or self.temperature != "auto":
            return self
        if self.target_sigma >= SIGMA_MAX:
            raise ValueError(
                f"target_sigma {self.target_sigma:g} is at or above {SIGMA_MAX:.4f}: it asks for an entropy of "
                f"{GAUSSIAN_ENTROPY_NATS + math.log(self.target_sigma):.2f} nat per action dimension, and uniform actions "
                f"have {math.log(2.0):.2f} nat; the temperature would grow without end"
            )
        if self.head == "beta":
            return self._beta_within_reach()
        narrowest, widest = squashed_sigma(math.exp(self.log_std_min)), widest_sigma(self.log_std_max)
        if self.target_sigma <= narrowest:
            raise ValueError(
                f"target_sigma {self.target_sigma:g} is at or below {narrowest:.3g}, which is what log_std_min "
                f"{self.log_std_min:g} leaves of the narrowest policy; the temperature would shrink without end"
            )
        # A mixture of K has at most log K nats more than one component (Cover and Thomas 2006, theorem 2.6.4).
        components = self.mixture_components if self.head == "mixture" else 1
        if self.target_sigma >= components * widest:
            raise ValueError(
                f"target_sigma {self.target_sigma:g} is at or above {components * widest:.3g}, which is what squashing and "
                f"log_std_max {self.log_std_max:g} leave of the widest policy; the temperature would grow without end"
            )
        return self

    def _beta_within_reach(self) -> Self:
        if self.target_sigma <= BETA_SIGMA_MIN:
            raise ValueError(
                f"target_sigma {self.target_sigma:g} is at or below {BETA_SIGMA_MIN:g}, which is what the largest concentrations "
                "leave of head 'beta'; the temperature would shrink without end"
            )
        return self

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        """Options that exclude each other; all that are wrong are named."""
        reasons = (
            self._wrong_for_variant() | self._wrong_for_correction() | self._wrong_for_data() | self._without_effect()
        )
        if wrong := [reason for reason, holds in reasons.items() if holds]:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong_for_variant(self) -> dict[str, bool]:
        ddpg, sac = self.variant == "ddpg", self.variant == "sac"
        return {
            "variant 'ddpg' has a deterministic actor: leave head alone": ddpg and self.head != "gaussian",
            "variant 'ddpg' has no score function: policy_gradient must be 'reparameterised'": ddpg
            and self.policy_gradient == "score",
            "variant 'ddpg' has no entropy and so no temperature: leave temperature alone": ddpg
            and self.temperature != "auto",
            "critic 'batch_norm' is for variant 'sac' alone": self.critic == "batch_norm" and not sac,
            "critic_dropout is for variant 'sac' with critic 'mlp'": self.critic_dropout > 0
            and (self.critic != "mlp" or not sac),
            f"variant {self.variant!r} takes the minimum over all its critics: critics must not exceed critic_subset": (
                not sac and self.critics > self.critic_subset
            ),
        }

    def _wrong_for_correction(self) -> dict[str, bool]:
        on = self.correction != "none"
        plain = self.critic_dropout == 0 and self.critics <= self.critic_subset and self.actor_delay == 1
        smooth = self.smooth_time > 0 or self.smooth_space > 0
        return {
            "correction is for the games of 'sac' and 'sac_v1' with critic 'mlp', reparameterised": on
            and (self.variant == "ddpg" or self.critic != "mlp" or self.policy_gradient == "score"),
            "correction knows no critic_dropout, random critic_subset or actor_delay": on and not plain,
            "correction knows no smoothness term: set smooth_time and smooth_space to 0": on and smooth,
            "correction needs second derivatives, and 'relu' has none: activation must be 'silu' or 'tanh'": on
            and self.activation == "relu",
            "correction needs second derivatives, and head 'beta' has none: head must be 'gaussian' or 'mixture'": on
            and self.head == "beta",
        }

    def _wrong_for_data(self) -> dict[str, bool]:
        of_prior = round(self.prior_share * self.batch_size)
        return {
            f"prior_share {self.prior_share:g} of batch_size {self.batch_size} is {of_prior}: with prior_data, both prior "
            "and fresh data need a row": bool(self.prior_data) and not 0 < of_prior < self.batch_size,
            f"batch_size {self.batch_size} is more than the {self.replay_capacity} transitions that replay_capacity keeps": (
                self.batch_size > self.replay_capacity
            ),
        }

    def _without_effect(self) -> dict[str, bool]:
        return {
            f"horizon_s {self.horizon_s:g} has no effect beside discount {self.discount}: set discount to 'from_horizon'": (
                self.discount != "from_horizon" and self.horizon_s != HORIZON_S
            )
        }
