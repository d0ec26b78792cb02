"""One control tick by part: exchange, admit, observe, infer, record; in simulation and on the twin.

    python tools/bench_tick.py --json

Runs the real episode loop with an exported policy and times the real calls. ``exchange`` and ``admit`` are summed over
the bus ticks of a control tick; ``exchange`` on the twin is waiting for the bus, in simulation it is the port alone (the
physics runs in the clock). ``software`` is everything but ``exchange``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tool_error import give_up

from robotsac.actor.contract import robot_contract
from robotsac.actor.episodes import EpisodeRunner
from robotsac.actor.realtime import collect_garbage, freeze_garbage, make_realtime
from robotsac.config import Config, load_config
from robotsac.env.arm_env import ArmEnv
from robotsac.errors import RobotsacError
from robotsac.learner.export import PolicyExporter
from robotsac.learner.sac import SacState
from robotsac.policy.accept import accept
from robotsac.policy.runner import Policy
from robotsac.records import record_dtype
from robotsac.shared import RecordRing

PARTS = ("exchange", "admit", "observe", "infer", "record")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=3000, help="control ticks per robot")
    parser.add_argument("--robots", nargs="+", default=["arm0-sim", "arm0-twin"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.ticks < 1:
        parser.error(f"--ticks {arguments.ticks} is below 1")
    result: dict[str, Any] = {"machine": machine(), "ticks": arguments.ticks, "unit": "us"}
    try:
        # All names first: the last one's spelling should not cost the minutes of the others.
        configs = {robot: load_config(robot) for robot in arguments.robots}
        result |= {robot: measure(config, arguments.ticks) for robot, config in configs.items()}
    except RobotsacError as error:
        give_up(error)
    if arguments.json:
        print(json.dumps(result))
        return
    for robot in configs:
        print(f"{robot}  ({result[robot]['overruns']} overruns)")
        for part, row in result[robot]["parts"].items():
            print(f"  {part:<10} p50 {row['p50']:8.1f}   p99 {row['p99']:8.1f}   p99.9 {row['p99.9']:8.1f} µs")


def measure(config: Config, ticks: int) -> dict[str, Any]:
    """Percentiles of each part over ``ticks`` control ticks."""
    env = ArmEnv(config)
    policy = fresh_policy(config)
    contract = env.contract
    ring = RecordRing.create(record_dtype(contract.obs_dim, contract.act_dim), 4096)
    sums: dict[str, float] = defaultdict(float)
    rows: list[dict[str, float]] = []
    time_calls(env.task, "judge", sums, "observe")
    time_calls(env, "_observe", sums, "observe")
    time_calls(policy, "action", sums, "infer")

    def push(record: np.ndarray) -> bool:
        pushed = ring.push(record)
        if ring.fill > 2048:
            ring.advance(ring.fill)
        return pushed

    def on_step() -> None:
        tick = env.last_tick
        assert tick is not None
        rows.append({**sums, "exchange": tick.exchange_ns, "admit": tick.admit_ns})
        sums.clear()

    runner = EpisodeRunner(env, _Fixed(policy), push, seed=0, random_hold_s=0.2)
    time_calls(runner, "_put", sums, "record")
    try:
        env.arm.connect()
        if env.arm.clock.free_running:
            make_realtime(config.collect.realtime_priority)
        else:
            freeze_garbage()
        env.start()
        while len(rows) < ticks:
            runner.run(lambda: len(rows) >= ticks, on_step)
            collect_garbage()
            sums.clear()
    finally:
        env.close()
        ring.close()
        ring.unlink()
    return summary(rows) | {"overruns": env.guard.counters.overruns, "lost_rounds": env.guard.counters.lost_rounds}


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """p50, p99, p99.9 of each part and of the software's sum, µs."""
    columns = {part: np.array([row.get(part, 0.0) for row in rows]) / 1000 for part in PARTS}
    columns["software"] = sum(columns[part] for part in PARTS if part != "exchange")
    return {
        "parts": {
            part: {f"p{q:g}": round(float(np.percentile(values, q)), 2) for q in (50, 99, 99.9)}
            for part, values in columns.items()
        }
    }


def fresh_policy(config: Config) -> Policy:
    """An untrained policy of the configured size, exported and accepted as any other."""
    contract = robot_contract(config)
    device = torch.device("cpu")
    state = SacState.create(config.learn, contract.obs_dim, contract.act_dim, contract.control_rate_hz, device)
    exporter = PolicyExporter(state.normaliser, state.actor, contract, "bench", "bench")
    exporter.prepare()
    return accept(exporter.bundle(1, 0), contract, config.policy)


def time_calls(owner: object, name: str, sums: dict[str, float], part: str) -> None:
    """Add the time of each call of ``owner.name`` to ``sums[part]``, ns."""
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin_ns = time.perf_counter_ns()
        try:
            return original(*args, **kwargs)
        finally:
            sums[part] += time.perf_counter_ns() - begin_ns

    setattr(owner, name, timed)


def machine() -> dict[str, Any]:
    """Where this was measured, and at which commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


class _Fixed:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def swap(self) -> Policy:
        return self._policy


if __name__ == "__main__":
    main()
