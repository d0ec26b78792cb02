"""One learner that ``bench_learner.py`` times: it warms up, then does so many updates each time it is told to.

Runs in a process, and for a peer in an environment, of its own; a peer's needs nothing of this project. It reads words from
its standard input and answers each with one JSON line: after its start what it is, and after a number how many seconds each
of so many updates took.

The work is the same for all: batch 256, observations of 17 and actions of 6 numbers, 2 x 256 hidden units, automatic
temperature, one update of critics, actor, temperature and targets each. Transitions are made up; there is no environment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

OBS_DIM, ACT_DIM, ROWS, BATCH, HIDDEN = 17, 6, 10_000, 256, 256
LEARNING_RATE, POLYAK, DISCOUNT = 3e-4, 0.005, 0.99
WARM_UP = 20

Updates = Callable[[int], None]
"""Does so many updates, the device's work included."""


def main() -> None:
    """Be told what to be, warm up, and answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=["robotsac", "sb3", "sbx", "compiled_peer"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", type=int, default=1, help="updates a call, where a learner can do several")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="of robotsac's configuration")
    arguments = parser.parse_args()
    if arguments.at_once < 1:
        parser.error(f"--at-once {arguments.at_once} is below 1")
    with contextlib.suppress(AttributeError):  # not every system has it
        # XLA takes all cores that it may, whatever it is told.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    begin_s = time.perf_counter()
    try:
        updates, described = KINDS[arguments.kind](arguments)
        updates(WARM_UP * arguments.at_once)
    except Exception as error:  # noqa: BLE001  whatever stops it is the answer
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        return
    answer({"warm_up_s": round(time.perf_counter() - begin_s, 2), **described})
    for line in sys.stdin:
        spent: list[float] = []
        for _ in range(int(line)):
            start_s = time.perf_counter()
            updates(arguments.at_once)
            spent.append((time.perf_counter() - start_s) / arguments.at_once)
        answer({"seconds": spent})


def answer(body: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


def versions(*names: str) -> dict[str, str]:
    """Of what is installed in this environment."""
    return {name: importlib.metadata.version(name) for name in names}


def robotsac(arguments: argparse.Namespace) -> tuple[Updates, dict[str, Any]]:
    """This project's learner, with the backend that ``--set`` names."""
    import numpy as np
    import torch

    from robotsac.config.loading import load_learner_settings
    from robotsac.learner.backends import choose_backend
    from robotsac.learner.device import prepare_torch, resolve_device
    from robotsac.learner.replay import Replay
    from robotsac.learner.variants import create_algorithm
    from robotsac.records import Transitions

    prepare_torch(arguments.threads)
    work = [
        f"learn.hidden=[{HIDDEN}, {HIDDEN}]",
        f"learn.batch_size={BATCH}",
        "learn.critic_layer_norm=false",
        "learn.smooth_time=0",
        "learn.n_step=1",
        f"learn.discount={DISCOUNT}",
        f"learn.polyak={POLYAK}",
        *(f"learn.{name}={LEARNING_RATE}" for name in ("critic_lr", "actor_lr", "temperature_lr")),
        f"learn.device={arguments.device!r}",
        f"learn.threads={arguments.threads}",
    ]
    learn = load_learner_settings(overrides=[*work, *arguments.set]).learn
    device = resolve_device(learn.device)
    algorithm = create_algorithm(learn, OBS_DIM, ACT_DIM, 50.0, device)
    chosen = choose_backend(algorithm, learn, device)
    replay_draws, noise_draws = (torch.Generator(device).manual_seed(seed) for seed in (0, 1))
    replay = Replay.of(learn, ROWS, OBS_DIM, ACT_DIM, replay_draws)
    rng = np.random.default_rng(0)
    replay.append(
        Transitions(
            obs=rng.standard_normal((ROWS, OBS_DIM), dtype=np.float32),
            action=rng.uniform(-1.0, 1.0, (ROWS, ACT_DIM)).astype(np.float32),
            reward=rng.standard_normal(ROWS, dtype=np.float32),
            next_obs=rng.standard_normal((ROWS, OBS_DIM), dtype=np.float32),
            terminal=np.zeros(ROWS, dtype=np.float32),
            steps=np.full(ROWS, learn.n_step, dtype=np.float32) if learn.n_step > 1 else None,
            after=rng.standard_normal((ROWS, OBS_DIM), dtype=np.float32) if learn.n_step > 1 else None,
        )
    )

    def updates(count: int) -> None:
        noise = algorithm.noise_shape.draws(BATCH, count, noise_draws)
        chosen.backend.updates(replay.samples(BATCH, count), noise)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return updates, {"backend": chosen.backend.name, "why": chosen.why, "versions": versions("torch", "numpy")}


def stable_baselines(arguments: argparse.Namespace) -> tuple[Updates, dict[str, Any]]:
    """SAC of stable-baselines3 (PyTorch), or of SBX (JAX), by their own ``train``."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3.common.logger import configure

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)

    class Nowhere(gymnasium.Env[Any, Any]):
        """Of the right shape; never stepped."""

        observation_space = gymnasium.spaces.Box(-10.0, 10.0, (OBS_DIM,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACT_DIM,), np.float32)

    settings: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "buffer_size": ROWS,
        "batch_size": BATCH,
        "tau": POLYAK,
        "gamma": DISCOUNT,
        "policy_kwargs": {"net_arch": [HIDDEN, HIDDEN]},
    }
    if arguments.kind == "sb3":
        from stable_baselines3 import SAC

        model = SAC("MlpPolicy", Nowhere(), device=arguments.device, **settings)
        names = ("stable-baselines3", "torch")
    else:
        from sbx import SAC

        model = SAC("MlpPolicy", Nowhere(), **settings)
        names = ("sbx-rl", "jax")
    model.set_logger(configure(None, []))
    rng = np.random.default_rng(0)
    for _ in range(ROWS):
        obs, next_obs = (rng.standard_normal((1, OBS_DIM)).astype(np.float32) for _ in range(2))
        action = rng.uniform(-1.0, 1.0, (1, ACT_DIM)).astype(np.float32)
        model.replay_buffer.add(obs, next_obs, action, rng.standard_normal(1).astype(np.float32), np.zeros(1), [{}])
    model.num_timesteps, model.learning_starts = ROWS, 0

    def updates(count: int) -> None:
        # Only whole calls: another number of steps would be compiled anew.
        for _ in range(count // arguments.at_once):
            model.train(batch_size=BATCH, gradient_steps=arguments.at_once)
        if arguments.device.startswith("cuda") and arguments.kind == "sb3":
            torch.cuda.synchronize(arguments.device)

    return updates, {"versions": versions(*names)}


def compiled_peer(arguments: argparse.Namespace) -> tuple[Updates, dict[str, Any]]:
    """A learner as LeanRL describes its fastest: two compiled functions, critic and actor, each a CUDA graph; on a GPU."""
    from compiled_peer import CompiledPeer

    peer = CompiledPeer(arguments.device)
    return peer.updates, {"versions": versions("torch")}


KINDS: dict[str, Callable[[argparse.Namespace], tuple[Updates, dict[str, Any]]]] = {
    "robotsac": robotsac,
    "sb3": stable_baselines,
    "sbx": stable_baselines,
    "compiled_peer": compiled_peer,
}

if __name__ == "__main__":
    main()
