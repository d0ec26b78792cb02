"""What one update costs: each member of the SAC family against the default, in one run.

    python tools/bench_update.py --json
    python tools/bench_update.py --set 'learn.hidden=[256, 256]' --obs-dim 17 --threads 2
    python tools/bench_update.py --only ten_critics batch_norm --device cuda

An update is that of critics, actor, temperature and targets on a sampled batch of made-up transitions; acting, the
environment and exports are not in it. The cases take turns, so that a machine that slows down slows them all. Printed are
the milliseconds of an update (median over the turns), and how many times the default's they are (median over the turns of
the ratio within one).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from learning_machine import Machine
from tool_error import give_up

from robotsac.config.learn import LearnConfig
from robotsac.config.loading import load_learner_settings
from robotsac.errors import RobotsacError
from robotsac.learner.algorithm import update as algorithm_update
from robotsac.learner.device import prepare_torch, resolve_device
from robotsac.learner.replay import Replay
from robotsac.learner.variants import create_algorithm
from robotsac.records import Transitions

ROWS, RATE_HZ, WARM_UP = 10_000, 50.0, 20

BASE = "default"
CASES: dict[str, tuple[str, ...]] = {
    BASE: (),
    "no_layer_norm": ("learn.critic_layer_norm=false",),
    "wide": ("learn.hidden=[256, 256]",),
    "fixed_temperature": ("learn.temperature=0.2",),
    "sac_v1": ("learn.variant='sac_v1'",),
    "ddpg": ("learn.variant='ddpg'", "learn.critics=1"),
    "mixture": ("learn.head='mixture'",),
    "beta": ("learn.head='beta'",),
    "score": ("learn.policy_gradient='score'",),
    "rough": ("learn.smooth_time=0",),
    "smooth_space": ("learn.smooth_space=0.1",),
    "actor_delay_2": ("learn.actor_delay=2",),
    "ten_critics": ("learn.critics=10",),
    "dropout": ("learn.critic_dropout=0.01",),
    "batch_norm": ("learn.critic='batch_norm'",),
    "silu": ("learn.activation='silu'", "learn.smooth_time=0"),
    "consensus": ("learn.activation='silu'", "learn.correction='consensus'", "learn.smooth_time=0"),
    "symplectic": ("learn.activation='silu'", "learn.correction='symplectic'", "learn.smooth_time=0"),
}
"""By name, what each sets besides ``--set``."""


def main() -> None:
    """Parse, measure, print."""
    arguments = parse(sys.argv[1:])
    names = [BASE, *(name for name in arguments.only or CASES if name != BASE)]
    try:
        common = [f"learn.device={arguments.device!r}", f"learn.threads={arguments.threads}", *arguments.set]
        settings = {name: learn_of([*common, *CASES[name]]) for name in names}
        device = resolve_device(settings[BASE].device)
    except RobotsacError as error:
        give_up(error)
    prepare_torch(settings[BASE].threads)
    machine = Machine(device.type, settings[BASE].threads)
    updates = {name: ready(learn, arguments.obs_dim, arguments.act_dim, device) for name, learn in settings.items()}
    turns = measure(updates, arguments.turns, arguments.updates, device)
    rows = {name: summary(turns, name) for name in names}
    if arguments.json:
        print(json.dumps({"machine": machine.described(), "settings": vars(arguments), "cases": rows}))
        return
    for name, row in rows.items():
        print(f"{name:<18} {row['ms']:8.3f} ms   {row['times_default']:6.2f} x")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), help="these, besides the default")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="for all of them; repeatable")
    parser.add_argument("--obs-dim", type=int, default=34, help="of the task reach on arm0 by default")
    parser.add_argument("--act-dim", type=int, default=6)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--updates", type=int, default=20, help="of each case a turn")
    parser.add_argument("--device", default="cpu", help="learn.device of all")
    parser.add_argument("--threads", type=int, default=1, help="learn.threads of all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    for name in ("obs_dim", "act_dim", "turns", "updates", "threads"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is below 1")
    return arguments


def learn_of(overrides: Sequence[str]) -> LearnConfig:
    """``[learn]`` with ``overrides``. Raises ConfigError."""
    return load_learner_settings(overrides=overrides).learn


def ready(learn: LearnConfig, obs_dim: int, act_dim: int, device: torch.device) -> Callable[[], object]:
    """One update of a fresh algorithm, to be called again and again; warmed up."""
    algorithm = create_algorithm(learn, obs_dim, act_dim, RATE_HZ, device)
    generator = torch.Generator(device).manual_seed(learn.seed)
    replay = Replay.of(learn, ROWS, obs_dim, act_dim, generator)
    replay.append(transitions(obs_dim, act_dim, learn.n_step))

    def update() -> object:
        return algorithm_update(
            algorithm, replay.sample(learn.batch_size), algorithm.noise_shape.draw(learn.batch_size, generator)
        )

    for _ in range(WARM_UP):
        update()
    return update


def transitions(obs_dim: int, act_dim: int, n_step: int) -> Transitions:
    """``ROWS`` of them over ``n_step`` steps each, standard normal where not actions; none ends an episode."""
    rng = np.random.default_rng(0)
    return Transitions(
        obs=rng.standard_normal((ROWS, obs_dim), dtype=np.float32),
        action=rng.uniform(-1.0, 1.0, (ROWS, act_dim)).astype(np.float32),
        reward=rng.standard_normal(ROWS, dtype=np.float32),
        next_obs=rng.standard_normal((ROWS, obs_dim), dtype=np.float32),
        terminal=np.zeros(ROWS, dtype=np.float32),
        steps=np.full(ROWS, n_step, dtype=np.float32) if n_step > 1 else None,
        after=rng.standard_normal((ROWS, obs_dim), dtype=np.float32) if n_step > 1 else None,
    )


def measure(
    updates: dict[str, Callable[[], object]], turns: int, count: int, device: torch.device
) -> list[dict[str, float]]:
    """Milliseconds of an update in each turn, by case."""
    return [{name: timed(update, count, device) for name, update in updates.items()} for _ in range(turns)]


def timed(update: Callable[[], object], count: int, device: torch.device) -> float:
    """Milliseconds of one of ``count`` updates, the device's work included."""
    wait(device)
    start_s = time.perf_counter()
    for _ in range(count):
        update()
    wait(device)
    return (time.perf_counter() - start_s) / count * 1e3


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(turns: Sequence[dict[str, float]], name: str) -> dict[str, Any]:
    """Of one case."""
    return {
        "ms": round(statistics.median(turn[name] for turn in turns), 4),
        "times_default": round(statistics.median(turn[name] / turn[BASE] for turn in turns), 3),
    }


if __name__ == "__main__":
    main()
