"""The tasks of ``bench_learning.py``: what is run, with which settings, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Options = tuple[str, ...]
"""``key.path=value``, one per ``--set``."""

SHOWN_CHARS = 32
"""Of a name: what most ids and their steps need."""

GYM = ("--config", "configs/gym.toml")


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the benchmark.

    Args:
        name: on the command line, of its folder and its files.
        title: above its picture; ``""`` = its name.
        arguments: of ``robotsac train --sync``: world and configuration.
        options: of all variants.
        variants: by name, what each adds.
        steps, eval_every, eval_episodes: see ``robotsac train --help``.
        seeds: how many, from 0 on, unless the command line says otherwise.
        measure: what counts: mean return, or success rate.
        must, stretch: of the mean over seeds, at ``at`` steps each (0 = the end).
    """

    name: str
    arguments: tuple[str, ...]
    options: Options
    variants: dict[str, Options]
    steps: int
    eval_every: int
    eval_episodes: int
    seeds: int
    measure: Literal["return", "success"] = "return"
    must: float | None = None
    must_at: int = 0
    stretch: float | None = None
    stretch_at: int = 0
    title: str = ""

    @property
    def env_id(self) -> str | None:
        """Of gymnasium; ``None`` for an arm."""
        option, world, *_ = self.arguments
        return world if option == "--env" else None


def shortened(name: str) -> str:
    """``name`` as a table and a line have room for it, cut between its words where it can be."""
    if len(name) <= SHOWN_CHARS:
        return name
    room = name[: SHOWN_CHARS - 1]
    return (room.rpartition("-")[0] or room) + "…"


# One joint, one torque: smaller networks and larger steps than on HalfCheetah learn it in a tenth of the time.
_PENDULUM: Options = (
    "learn.hidden=[64, 64]",
    "learn.actor_lr=1e-3",
    "learn.critic_lr=1e-3",
    "learn.temperature_lr=1e-3",
    "learn.start_steps=500",
)

# Batch-normalised critics, step sizes and actor delay of Bhatt et al. 2024, table 1.
_BATCH_NORM: Options = (
    "learn.critic='batch_norm'",
    "learn.actor_lr=1e-3",
    "learn.critic_lr=1e-3",
    "learn.temperature_lr=1e-3",
    "learn.actor_delay=3",
)

TASKS = {
    task.name: task
    for task in (
        Task(
            name="pendulum",
            arguments=("--env", "Pendulum-v1", *GYM),
            options=_PENDULUM,
            variants={"sac": ()},
            steps=20_000,
            eval_every=1000,
            eval_episodes=10,
            seeds=10,
            must=-180.0,
            stretch=-150.0,
        ),
        Task(
            name="halfcheetah",
            arguments=("--env", "HalfCheetah-v4", *GYM),
            # From 1 the temperature takes 20,000 steps to come down to where it is of use here, and nothing is learned meanwhile.
            options=("learn.temperature_init=0.1",),
            variants={
                # These bring values forward faster: without them the first 1,800 are reached 13,000 steps later.
                "sac": ("learn.critic_layer_norm=true", "learn.critic_lr=1e-3"),
                "batch_norm": _BATCH_NORM,
            },
            steps=100_000,
            eval_every=5000,
            eval_episodes=10,
            seeds=3,
            must=6000.0,
        ),
        Task(
            name="halfcheetah-wide",
            arguments=("--env", "HalfCheetah-v4", *GYM),
            # Critics twice as wide as the actor, where the paper has eight times: more than a processor can do.
            options=("learn.temperature_init=0.1", "learn.critic_hidden=[512, 512]"),
            variants={"batch_norm": _BATCH_NORM},
            steps=100_000,
            eval_every=5000,
            eval_episodes=10,
            seeds=3,
            must=8000.0,
            stretch=9815.0,  # FlashSAC's, the best published
        ),
        Task(
            name="hopper",
            arguments=("--env", "Hopper-v4", *GYM),
            options=("learn.temperature_init=0.1",),
            variants={"batch_norm": _BATCH_NORM},
            steps=100_000,
            eval_every=5000,
            eval_episodes=10,
            seeds=3,
            must=1778.0,  # REDQ's (Chen et al. 2021) 2,750 less its standard deviation of 972
            stretch=2927.0,  # SimbaV2's, the best published
        ),
        Task(
            name="ant",
            arguments=("--env", "Ant-v4", *GYM),
            options=(),
            # The same networks and step sizes; as published, DDPG has one critic.
            variants={"sac": (), "ddpg": ("learn.variant='ddpg'", "learn.critics=1")},
            steps=300_000,
            eval_every=10_000,
            eval_episodes=10,
            seeds=3,
        ),
        Task(
            name="reach",
            arguments=("--robot", "arm0-sim"),
            options=(),
            # Two processor cores hold the defaults in real time beside the virtual arm, and four updates a step all but (3.8).
            variants={
                "defaults": (),
                "rough": ("learn.smooth_time=0",),
                "one_step": ("learn.n_step=1",),
                "stay": ("task.home_after=[]",),  # wherever the last episode ended, as it was before
                "utd8": ("learn.updates_per_step=8",),
            },
            steps=5000,
            eval_every=1000,
            eval_episodes=50,
            seeds=5,
            measure="success",
            must=0.95,
            must_at=5000,
            stretch=0.95,
            stretch_at=3000,
        ),
        Task(
            name="variants",
            arguments=("--env", "Pendulum-v1", *GYM),
            options=_PENDULUM,
            variants={
                "auto": (),
                "fixed": ("learn.temperature=0.2",),
                "sac_v1": ("learn.variant='sac_v1'", "learn.temperature=0.2"),
                "ddpg": ("learn.variant='ddpg'", "learn.critics=1"),  # as published: one critic, no minimum
            },
            steps=20_000,
            eval_every=1000,
            eval_episodes=10,
            seeds=3,
        ),
    )
}
