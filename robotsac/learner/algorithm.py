"""What every learning algorithm is to the rest of the learner, and what one update of it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError
from robotsac.learner.actor import Actor
from robotsac.learner.heads import Beta, Deterministic, Head, TanhGaussian, TanhMixture
from robotsac.learner.networks import Normaliser, Shape
from robotsac.learner.replay import Batch
from robotsac.learner.traced_adam import traced_step

TARGET, LOSS, ACTOR = range(3)
"""What critics are asked for in an update, each with units of its own dropped out."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The randomness of one update, all of it, so that an update is a function. Or of several: each tensor has one more
    dimension then, its first.

    Attributes:
        next_action, action: (b, noises·act_dim) standard normal, for the action at s' and the one at s.
        space: (b, obs_dim) standard normal, for neighbours of s; ``None`` when nobody asks.
        subset: (M,) indices of the critics whose minimum is the target; ``None`` = all.
        dropout: (3, N, b, units) uniform in [0, 1), for the critics at target, loss and actor; ``None`` = no dropout.
    """

    next_action: Tensor
    action: Tensor
    space: Tensor | None = None
    subset: Tensor | None = None
    dropout: Tensor | None = None

    def each(self) -> list[Noise]:
        """Of several updates: views of what each takes."""
        count = len(self.next_action)
        more = ([None] * count if part is None else part.unbind() for part in (self.space, self.subset, self.dropout))
        return [Noise(*one) for one in zip(self.next_action, self.action, *more, strict=True)]

    def as_several(self) -> Noise:
        """Of one update: a view of it as several, of which there is one."""
        more = (None if part is None else part[None] for part in (self.space, self.subset, self.dropout))
        return Noise(self.next_action[None], self.action[None], *more)

    def dropout_of(self, use: int) -> Tensor | None:
        """The uniform numbers of one ``use``: TARGET, LOSS or ACTOR."""
        return None if self.dropout is None else self.dropout[use]


@dataclass(frozen=True, slots=True)
class NoiseShape:
    """How much randomness an update takes (see :class:`Noise`); 0 = none of that kind."""

    action: int
    space: int = 0
    critics: int = 0
    subset: int = 0
    dropout_units: int = 0

    @classmethod
    def of(cls, learn: LearnConfig, head: Head, obs_dim: int, act_dim: int, dropout_units: int = 0) -> NoiseShape:
        """As ``[learn]`` says. ``dropout_units``: hidden units of one critic, when they are dropped out at all."""
        return cls(
            action=head.noises * act_dim,
            space=obs_dim if learn.smooth_space else 0,
            critics=learn.critics,
            subset=learn.critic_subset if learn.critic_subset < learn.critics else 0,
            dropout_units=dropout_units if learn.critic_dropout else 0,
        )

    def draw(self, batch_size: int, generator: torch.Generator) -> Noise:
        """Fresh noise on the generator's device."""
        (noise,) = self.draws(batch_size, 1, generator).each()
        return noise

    def draws(self, batch_size: int, count: int, generator: torch.Generator) -> Noise:
        """That of ``count`` updates: the same numbers as of so many calls of :meth:`draw`."""

        def room(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
            return torch.empty(count, *shape, device=generator.device, dtype=dtype)

        both = room(2, batch_size, self.action)
        space = room(batch_size, self.space) if self.space else None
        subset = room(self.subset, dtype=torch.int64) if self.subset else None
        dropout = room(3, self.critics, batch_size, self.dropout_units) if self.dropout_units else None
        for number in range(count):
            both[number].normal_(generator=generator)
            if space is not None:
                space[number].normal_(generator=generator)
            if subset is not None:
                drawn = torch.randperm(self.critics, generator=generator, device=generator.device)
                subset[number] = drawn[: self.subset]
            if dropout is not None:
                dropout[number].uniform_(generator=generator)
        return Noise(both[:, 0], both[:, 1], space, subset, dropout)


class Delayed(Protocol):
    """What every algorithm's constants have."""

    @property
    def actor_delay(self) -> int:
        """Critic updates per actor update."""
        ...


class Algorithm(Protocol):
    """Everything that an update reads or changes; what a checkpoint must hold, besides replay and generators.

    Attributes:
        normaliser, actor: what is exported.
        updates: critic updates so far.
        noise_shape: what an update takes.
        constants: what stays fixed.
    """

    normaliser: Normaliser
    actor: Actor
    updates: int
    noise_shape: NoiseShape

    @property
    def constants(self) -> Delayed:
        """What stays fixed."""
        ...

    def compute(self, batch: Batch, noise: Noise, with_actor: bool) -> dict[str, Tensor]:
        """One update, in place, not counted; a function of state, batch and noise, and what backends make faster.

        It must stay one graph: no number of a tensor is read, and nothing branches on one.

        Args:
            batch: b transitions.
            noise: of ``noise_shape``.
            with_actor: whether actor and temperature move too.

        Returns:
            Device scalars, by name; ``critic_loss`` and ``q`` always, ``actor_loss`` when the actor was updated. Read them
            rarely: reading waits for the device.
        """
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """Every network, by name."""
        ...

    def scalars(self) -> Mapping[str, Tensor]:
        """Every learned number outside the networks, by name."""
        ...

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Every optimizer, by name."""
        ...


def head_of(learn: LearnConfig) -> Head:
    """The policy head that ``[learn]`` names."""
    if learn.variant == "ddpg":
        return Deterministic(learn.exploration_sigma)
    if learn.head == "mixture":
        return TanhMixture(learn.mixture_components, learn.log_std_min, learn.log_std_max)
    if learn.head == "beta":
        return Beta()
    return TanhGaussian(learn.log_std_min, learn.log_std_max)


def actor_of(learn: LearnConfig, obs_dim: int, act_dim: int, seeded: torch.Generator) -> Actor:
    """A fresh actor."""
    return Actor(Shape(obs_dim, act_dim, learn.hidden, learn.activation), head_of(learn), seeded)


def critic_shape(learn: LearnConfig, obs_dim: int, act_dim: int) -> Shape:
    """Of the critics; their width may be their own."""
    return Shape(obs_dim, act_dim, learn.critic_hidden or learn.hidden, learn.activation)


def discount_of(learn: LearnConfig, control_rate_hz: float) -> float:
    """γ per control step.

    Raises:
        ConfigError: the horizon is not longer than a control step.
    """
    if learn.discount != "from_horizon":
        return learn.discount
    if wrong := learn.horizon_too_short(control_rate_hz):
        raise ConfigError(wrong, reason="the discount would be 0 or below", command="--set learn.horizon_s=1.0")
    return 1.0 - 1.0 / (learn.horizon_s * control_rate_hz)


def actor_due(algorithm: Algorithm, ahead: int = 0) -> bool:
    """Whether the next update moves the actor, or the one ``ahead`` of it."""
    return (algorithm.updates + 1 + ahead) % algorithm.constants.actor_delay == 0


def update(algorithm: Algorithm, batch: Batch, noise: Noise) -> dict[str, Tensor]:
    """One update, counted, operation by operation as it is written: the reference for every backend.

    Returns:
        As :meth:`Algorithm.compute`.
    """
    metrics = algorithm.compute(batch, noise, actor_due(algorithm))
    algorithm.updates += 1
    return metrics


def step(optimizer: Optimizer, loss: Tensor) -> None:
    """One step of ``optimizer`` down ``loss``."""
    if torch.compiler.is_compiling():
        traced_step(optimizer, loss)
        return
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def smaller_step(learn: LearnConfig) -> str:
    """Where training has diverged: the option that makes the largest of the step sizes in use a tenth."""
    automatic = learn.temperature == "auto" and learn.variant != "ddpg"
    names = ("critic_lr", "actor_lr") + (("temperature_lr",) if automatic else ())
    largest = max(names, key=lambda name: float(getattr(learn, name)))
    return f"--set learn.{largest}={min(getattr(learn, largest) / 10, 1e-3):g}"
