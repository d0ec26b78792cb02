"""What the replay costs: bytes of a full one, microseconds of a minibatch and of appending.

    python tools/bench_replay.py --json
    python tools/bench_replay.py --capacity 100000 --robots 4 --records 5
    python tools/bench_replay.py --set learn.n_step=1 --device cuda

The transitions are those that the learner's assembler makes of episodes of 50 to 100 steps, as reach on arm0 has them; the
numbers in them are random, and bytes do not depend on them. Printed are the megabytes (1e6 B) of the replay's tensors: all
of them, what is resident when it is full, and when half as many transitions again have made it wrap.
Costs are medians over calls on the full replay that take turns: a minibatch, one transition appended, and one of 512 that
are appended at once.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from learning_machine import Machine
from tool_error import give_up

from robotsac.config.learn import LearnConfig
from robotsac.config.loading import load_learner_settings
from robotsac.errors import RobotsacError
from robotsac.learner.algorithm import discount_of
from robotsac.learner.assembler import Assembler
from robotsac.learner.device import prepare_torch, resolve_device
from robotsac.learner.replay import Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.records import EpisodeEnd, Flag, Records, Transitions, record_dtype

STEPS_MIN, STEPS_MAX, RATE_HZ = 50, 100, 50.0
EPISODES = 200
"""Of a robot, before its numbers are drawn anew."""
PART, CALLS = 512, 20
"""Transitions of a long call, and calls of each kind in a turn."""


def main() -> None:
    """Parse, measure, print."""
    arguments = parse(sys.argv[1:])
    try:
        overrides = [f"learn.device={arguments.device!r}", *arguments.set]
        learn = load_learner_settings(overrides=overrides).learn
        device = resolve_device(learn.device)
    except RobotsacError as error:
        give_up(error)
    prepare_torch(learn.threads)
    stream = Stream(learn, arguments)
    generator = torch.Generator(device).manual_seed(learn.seed)
    replay = Replay.of(learn, arguments.capacity, arguments.obs_dim, arguments.act_dim, generator)
    memory = {"reserved": sum(tensor.nbytes for tensor in replay.tensors)}
    for name, total in (("full", arguments.capacity), ("wrapped", arguments.capacity * 3 // 2)):
        while replay.total < total:
            replay.append(stream.take(min(PART, total - replay.total)))
        memory[name] = sum(map(resident_bytes, replay.tensors))
    row = {f"mb_{name}": round(count / 1e6, 1) for name, count in memory.items()}
    row |= costs(replay, stream, learn.batch_size, arguments.turns, device)
    if arguments.json:
        machine = Machine(device.type, learn.threads)
        print(json.dumps({"machine": machine.described(), "settings": vars(arguments), "replay": row}))
        return
    for name, value in row.items():
        print(f"{name:<26} {value:10.2f}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="repeatable")
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--obs-dim", type=int, default=34, help="of the task reach on arm0 by default")
    parser.add_argument("--act-dim", type=int, default=6)
    parser.add_argument("--robots", type=int, default=1, help="that take turns")
    parser.add_argument("--records", type=int, default=32, help="of a robot in its turn")
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--device", default="cpu", help="learn.device")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    for name in ("capacity", "obs_dim", "act_dim", "robots", "records", "turns"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is below 1")
    return arguments


class Stream:
    """Transitions without end, of robots that take turns.

    Args:
        learn: how many steps a transition has.
        arguments: the command line.
    """

    def __init__(self, learn: LearnConfig, arguments: argparse.Namespace) -> None:
        rng = np.random.default_rng(learn.seed)
        assembler = Assembler(learn.n_step, discount_of(learn, RATE_HZ))
        robots = [logged(str(number), rng, arguments) for number in range(arguments.robots)]
        self._parts = (assembler.add(next(robot))[0] for robot in itertools.cycle(robots))
        self._left = next(self._parts)

    def take(self, count: int) -> Transitions:
        """The next ``count``."""
        parts = [self._left]
        while sum(map(len, parts)) < count:
            parts.append(next(self._parts))
        columns = [[getattr(part, field.name) for part in parts] for field in fields(Transitions)]
        joined = [None if column[0] is None else np.concatenate(column) for column in columns]
        self._left = Transitions(*(None if column is None else column[count:] for column in joined))
        return Transitions(*(None if column is None else column[:count] for column in joined))


def logged(robot: str, rng: np.random.Generator, arguments: argparse.Namespace) -> Iterator[LoggedBatch]:
    """What one robot sends, for ever."""
    for boot in itertools.count():
        run = records(rng, arguments.obs_dim, arguments.act_dim)
        for first in range(0, len(run), arguments.records):
            yield LoggedBatch(1, robot, str(boot), run[first : first + arguments.records])


def records(rng: np.random.Generator, obs_dim: int, act_dim: int) -> Records:
    """Episodes that end by time limit."""
    lengths = rng.integers(STEPS_MIN, STEPS_MAX + 1, EPISODES) + 1
    made = np.zeros(lengths.sum(), record_dtype(obs_dim, act_dim))
    made["seq"] = np.arange(len(made))
    made["episode"] = np.repeat(np.arange(EPISODES), lengths)
    made["obs"] = rng.standard_normal(made["obs"].shape, dtype=np.float32)
    last = lengths.cumsum() - 1
    made["end"][last], made["flags"][last] = EpisodeEnd.TIME_LIMIT, Flag.FINAL
    return made


def resident_bytes(tensor: torch.Tensor) -> int:
    """Of its memory, what the kernel says has been written to; on a GPU all of it."""
    if not tensor.is_cpu:
        return tensor.nbytes
    page = os.sysconf("SC_PAGE_SIZE")
    start = tensor.data_ptr() // page * page
    count = -(-(tensor.data_ptr() + tensor.nbytes - start) // page)
    pages = (ctypes.c_ubyte * count)()
    if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(start), ctypes.c_size_t(count * page), pages):
        raise OSError(ctypes.get_errno(), "mincore")
    return page * int((np.frombuffer(pages, np.uint8) & 1).sum())


def costs(replay: Replay, stream: Stream, batch_size: int, turns: int, device: torch.device) -> dict[str, float]:
    """Microseconds, by kind of call."""
    spent: dict[str, list[float]] = {"us_sample": [], "us_append_one": [], "us_append_of_many": []}
    for _ in range(turns):
        for _ in range(CALLS):
            spent["us_sample"].append(timed(lambda: replay.sample(batch_size), device))
        for one in [stream.take(1) for _ in range(CALLS)]:
            spent["us_append_one"].append(timed(lambda one=one: replay.append(one), device))
        for part in [stream.take(PART) for _ in range(CALLS // 5)]:
            spent["us_append_of_many"].append(timed(lambda part=part: replay.append(part), device) / PART)
    return {name: round(statistics.median(values), 2) for name, values in spent.items()}


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Microseconds of ``call``, the device's work included."""
    wait(device)
    start_s = time.perf_counter()
    call()
    wait(device)
    return (time.perf_counter() - start_s) * 1e6


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
