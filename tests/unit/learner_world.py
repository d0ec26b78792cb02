"""What the learner's tests share: a small contract, identifiable records, small settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robotsac.config import LearnConfig, LearnerSettings
from robotsac.contract import SCHEMA, Channel, Contract
from robotsac.learner.replay_log import LoggedBatch, ReplayLog
from robotsac.records import EpisodeEnd, Flag, Records, record_dtype

OBS_DIM, ACT_DIM, RATE_HZ = 3, 2, 50
PLAIN: dict[str, object] = {"n_step": 1, "smooth_time": 0.0}
"""What an arm's defaults add to SAC as published, left out."""


def contract(obs_dim: int = OBS_DIM, act_dim: int = ACT_DIM, task: str = "reach") -> Contract:
    return Contract(
        schema=SCHEMA,
        model_digest="m",
        task=task,
        task_parameters={},
        joint_names=tuple(f"j{i}" for i in range(act_dim)),
        control_rate_hz=RATE_HZ,
        history_steps=0,
        observation=(Channel("q", obs_dim, "rad", (1.0,) * obs_dim),),
        action=(Channel("tau", act_dim, "N·m", (1.0,) * act_dim),),
    )


def settings(**learn: object) -> LearnerSettings:
    small: dict[str, object] = {"hidden": (16, 16), "batch_size": 32, "start_steps": 20, "slack_steps": 50}
    return LearnerSettings(learn=LearnConfig.model_validate(small | PLAIN | learn))


def records(count: int, first_seq: int = 0, obs_dim: int = OBS_DIM, act_dim: int = ACT_DIM) -> Records:
    """``count`` records of one running episode; obs[0] is ``seq``, the reward ten times it."""
    made = np.zeros(count, record_dtype(obs_dim, act_dim))
    made["seq"] = np.arange(first_seq, first_seq + count)
    made["episode"] = 1
    made["obs"][:, 0] = made["seq"]
    made["reward"] = 10.0 * made["seq"]
    made["action_asked"] = 0.9
    made["action_applied"] = 0.5
    return made


def episode(
    steps: int,
    end: EpisodeEnd,
    number: int = 1,
    first_seq: int = 0,
    flags: Flag = Flag.NONE,
    reward: float | None = None,
) -> Records:
    """A whole episode: ``steps`` records and the final one."""
    made = records(steps + 1, first_seq)
    made["episode"] = number
    made["flags"] = flags
    made["flags"][-1] |= Flag.FINAL
    made["end"][-1] = end
    if reward is not None:
        made["reward"] = reward
    made["reward"][-1] = 0.0
    return made


def noisy_run(steps: int, seed: int, episode_steps: int = 20) -> Records:
    """Episodes of random numbers, ending by time limit and success in turn, ``seq`` from 0."""
    rng = np.random.default_rng(seed)
    parts, seq, number = [], 0, 1
    while seq < steps:
        end = EpisodeEnd.SUCCESS if number % 2 else EpisodeEnd.TIME_LIMIT
        part = episode(episode_steps, end, number, seq)
        part["obs"] = rng.uniform(-1, 1, part["obs"].shape)
        part["action_applied"] = rng.uniform(-1, 1, part["action_applied"].shape)
        part["reward"][:-1] = -np.square(part["action_applied"][:-1]).sum(axis=1)
        parts.append(part)
        seq, number = seq + len(part), number + 1
    return np.concatenate(parts)


def batches(run: Records, size: int, robot: str = "r", boot: str = "b") -> list[LoggedBatch]:
    """``run`` cut into logged batches of ``size`` records."""
    cuts = range(0, len(run), size)
    return [LoggedBatch(row, robot, boot, run[at : at + size]) for row, at in enumerate(cuts, start=1)]


def write_log(path: Path, run: Records, size: int = 32) -> None:
    """A replay log that holds ``run``."""
    with ReplayLog(path) as log:
        log.bind(contract())
        for batch in batches(run, size):
            log.append(batch.robot, batch.boot, batch.records)
