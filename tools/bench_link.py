"""What the link between robots and learner can do, over loopback, with real processes and real sockets.

    python tools/bench_link.py ingest --json
    python tools/bench_link.py robots --robots 8 --json
    python tools/bench_link.py latency --json

``ingest``: how many records per second the ingest process takes, each acknowledged only after its commit to SQLite has
been synced to the disk. ``robots``: whether robots that stream at 100 Hz slow the trainer down, see ``link_trainer``.
``latency``: from a published policy to the first action that it computed on the robot, see ``link_policy``.

The records are those of arm0 (34 numbers of observation, 6 of action), made up by the processes of ``link_senders``. In
``ingest`` they share the machine with it, so what is measured is the lower bound of what a machine of its own takes; the
CPU time of either is printed. Everything is bounded in time, and every record is looked for in the log afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import link_policy
import link_trainer
from learning_machine import Machine, what_is_wrong
from link_check import busy_s, cpu_s, free_link, lost_records, rows_in, sync_ms
from link_senders import Order, Senders
from tool_error import give_up

from robotsac.actor.contract import robot_contract
from robotsac.config import load_config
from robotsac.config.learn import LearnConfig
from robotsac.config.schema import LearnerSettings, LinkConfig
from robotsac.errors import LinkError, RobotsacError
from robotsac.learner.board import LEARNER_FIELDS
from robotsac.learner.ingest import IngestArgs, ingest_main
from robotsac.shared import SharedBlock

ROBOT = "arm0-sim"
UP_PATIENCE_S = 60.0
WARM_UP_S = 1.0


def main() -> None:
    """Parse, measure, print."""
    arguments = parse(sys.argv[1:])
    measure = {"ingest": ingest, "robots": robots, "latency": latency}[arguments.what]
    try:
        runs = [with_others(lambda: measure(arguments)) for _ in range(arguments.runs)]
    except RobotsacError as error:
        give_up(error)
    report = {"machine": Machine().described(), "settings": vars(arguments), "median": medians(runs), "runs": runs}
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report["median"].items():
        print(f"{name:<32} {value:>12,}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    ceiling = commands.add_parser("ingest", help="records per second with durable acknowledgements")
    ceiling.add_argument("--robots", type=int, default=8)
    ceiling.add_argument("--seconds", type=float, default=8.0, help="measured, of each run")
    streaming = commands.add_parser("robots", help="the trainer's rate while robots stream")
    streaming.add_argument("--robots", type=int, default=8)
    streaming.add_argument("--rate-hz", type=float, default=100.0, help="records per second and robot")
    streaming.add_argument("--turns", type=int, default=4, help="of quiet, streaming, streaming, quiet in each run")
    streaming.add_argument("--seconds", type=float, default=3.0, help="of each of the four")
    streaming.add_argument("--nice", type=int, default=LearnConfig().nice, help="learn.nice of the trainer")
    policy = commands.add_parser("latency", help="from published policy to its first action")
    policy.add_argument("--robot", default="arm0-twin", help="must run in real time")
    policy.add_argument("--publications", type=int, default=60)
    for command in (ceiling, streaming, policy):
        command.add_argument("--runs", type=int, default=1)
        command.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(words)
    for name, value in vars(arguments).items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or name == "nice":
            continue
        if not (math.isfinite(value) and value > 0):
            parser.error(f"--{name.replace('_', '-')} {value} must be above 0")
    if arguments.what == "robots" and (wrong := what_is_wrong(nice=arguments.nice)):
        parser.error(wrong)
    return arguments


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over the runs, of all that is a number."""
    return {
        name: round(statistics.median(run[name] for run in runs), 3)
        for name, value in runs[0].items()
        if isinstance(value, (int, float))
    }


def with_others(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` finds, and how much of the processor others used meanwhile, in cores."""
    begin_s, busy_before_s, own_before_s = time.monotonic(), busy_s(), sum(os.times()[:4])
    found = measure()
    others_s = busy_s() - busy_before_s - (sum(os.times()[:4]) - own_before_s)
    return found | {"others_cpu_share": round(others_s / (time.monotonic() - begin_s), 3)}


def ingest(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of the ingest process against senders that are as fast as it acknowledges."""
    contract, link = robot_contract(load_config(ROBOT)), free_link(arguments.robots)
    with (
        tempfile.TemporaryDirectory(prefix="bench-link-") as folder,
        ingest_process(link, Path(folder)) as pid,
        Senders(link, arguments.robots, 1, contract, rate_hz=0.0) as senders,
    ):
        wait_for("all links to be up", lambda: senders.total("up") == arguments.robots)
        senders.order(Order.STREAM)
        time.sleep(WARM_UP_S)
        before, rows = counts(senders, pid), rows_in(Path(folder))
        time.sleep(arguments.seconds)
        after, rows = counts(senders, pid), rows_in(Path(folder)) - rows
        made = senders.finish()
        seconds, records, sender_s, ingest_s = (b - a for a, b in zip(before, after, strict=True))
        return {
            "records_per_s": round(records / seconds),
            "records_per_row": round(records / rows, 1),
            "ingest_cpu_share": round(ingest_s / seconds, 3),
            "sender_cpu_share": round(sender_s / seconds, 3),
            "resends": senders.total("resends"),
            "made": sum(made.values()),
            "lost": lost_records(Path(folder), made),
            "sync_ms": sync_ms(Path(folder)),
        }


def counts(senders: Senders, pid: int) -> tuple[float, float, float, float]:
    """Time, records acknowledged, CPU time of the senders and of ingest; s."""
    return time.monotonic(), senders.total("durable"), senders.total("cpu_ns") / 1e9, cpu_s(pid)


@contextmanager
def ingest_process(link: LinkConfig, folder: Path) -> Iterator[int]:
    """The ingest process of a run without a trainer; its process id."""
    board = SharedBlock.create(LEARNER_FIELDS)
    args = IngestArgs(LearnerSettings(link=link), folder, "bench", board.name)
    process = multiprocessing.get_context("spawn").Process(target=ingest_main, args=(args,))
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.terminate()
        process.join(10.0)
        process.kill()
        board.close()
        board.unlink()


def wait_for(what: str, reached: Callable[[], bool]) -> None:
    """Until it is. Raises LinkError when it is not within a minute."""
    deadline_s = time.monotonic() + UP_PATIENCE_S
    while not reached():
        if time.monotonic() > deadline_s:
            raise LinkError(f"waited {UP_PATIENCE_S:.0f} s for {what}")
        time.sleep(0.02)


def robots(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of a learner with robots that stream and pause in turn."""
    learn = LearnConfig(device="cpu", threads=1, nice=arguments.nice, **link_trainer.UNBOUND)
    return link_trainer.measure(learn, arguments.robots, arguments.rate_hz, arguments.turns, arguments.seconds)


def latency(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run of a robot in real time with a learner that publishes."""
    return link_policy.measure(arguments.robot, arguments.publications)


if __name__ == "__main__":
    main()
