"""Whether robots that stream slow the trainer down.

One learner (supervisor, ingest and trainer, the real ones) goes on with a run whose log holds enough records for all the
updates that are measured, so its limiter never lets it wait. Then robots are quiet, stream, stream, are quiet, and so on: the
trainer stays the same process, and its replay is the same but for what has just arrived. Links are up all the time.

    ratio            updates per second while streaming / while quiet, each turn's two against its two; median of the turns
    ratio_per_cpu_s  the same with updates per second of CPU time that the trainer had

``ratio`` answers the question: it holds what ingest takes away and what the trainer itself spends on fresh records. The
robots are computers of their own; here their processes yield: lowest priority, on one core. What they took nevertheless is
printed (``sender_cpu_share``, in cores), and ``ratio_per_cpu_s`` does not depend on how the cores were shared, only on what
the trainer had to do besides updates, and on cache and memory. The trainer's checkpoints, one in half a minute, are off.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from link_check import cpu_s, free_link, lost_records
from link_senders import BOOT, Order, Senders, made_up_records

from robotsac.actor.contract import robot_contract
from robotsac.config import load_config
from robotsac.config.learn import LearnConfig
from robotsac.config.schema import LearnerSettings
from robotsac.contract import Contract
from robotsac.errors import LinkError
from robotsac.learner.app import run_learn
from robotsac.learner.replay_log import FILE_NAME, ReplayLog
from robotsac.learner.run_folder import open_run

ROBOT = "arm0-sim"
PREFILLED_RECORDS = 60_000
"""At two updates each far more than are measured."""
BATCH_RECORDS = 32
UNBOUND: dict[str, Any] = {"slack_steps": 10_000_000, "checkpoint_every_s": 3600.0}
"""Robots may run ahead of the trainer, and no checkpoint falls into some phases and not into others."""
PATIENCE_S = 120.0
SETTLE_S = 0.7
"""After robots have begun or paused: what is on its way arrives."""


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment; times in s."""

    at_s: float
    updates: int
    transitions: int
    trainer_s: float
    ingest_s: float
    sender_s: float


class Learner:
    """A learner whose supervisor is a thread of this process. Use as a context manager.

    Args:
        settings, run_dir: of a run that is there.
        senders: whose CPU time is looked at too.
    """

    def __init__(self, settings: LearnerSettings, run_dir: Path, senders: Senders) -> None:
        self.looks: list[Look] = []
        self.exit_code: int | None = None
        self._settings, self._run_dir, self._senders = settings, run_dir, senders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def wait_until_training(self) -> None:
        """Until updates are made and all links are up. Raises LinkError."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (self.looks and self.looks[-1].updates > 0 and self._senders.total("up") == self._senders.robots):
            if self.exit_code is not None or time.monotonic() > deadline_s:
                raise LinkError(f"the learner did not begin to train within {PATIENCE_S:.0f} s")
            time.sleep(0.05)

    def _run(self) -> None:
        self.exit_code = run_learn(
            self._settings, self._run_dir, resume=True, as_json=True, on_status=self._look, stop=self._stop
        )

    def _look(self, status: dict[str, Any]) -> None:
        pids = {child.name: child.pid or 0 for child in multiprocessing.active_children()}
        if {"robotsac-trainer", "robotsac-ingest"} <= set(pids) and status.get("state") == "training":
            trainer_s, ingest_s = cpu_s(pids["robotsac-trainer"]), cpu_s(pids["robotsac-ingest"])
            sender_s = self._senders.total("cpu_ns") / 1e9
            look = Look(time.monotonic(), status["updates"], status["transitions"], trainer_s, ingest_s, sender_s)
            self.looks.append(look)


def measure(learn: LearnConfig, robots: int, rate_hz: float, turns: int, seconds: float) -> dict[str, Any]:
    """One run.

    Args:
        learn: of the trainer, with :data:`UNBOUND`.
        robots: how many.
        rate_hz: records per second of each.
        turns: of quiet, streaming, streaming, quiet.
        seconds: of each of the four.
    """
    contract, link = robot_contract(load_config(ROBOT)), free_link(robots)
    settings = LearnerSettings(link=link, learn=learn)
    with (
        tempfile.TemporaryDirectory(prefix="bench-link-") as folder,
        Senders(link, robots, 1, contract, rate_hz, yielding=True) as senders,
    ):
        run_dir = Path(folder) / "run"
        prefill(settings, run_dir, contract)
        with Learner(settings, run_dir, senders) as learner:
            learner.wait_until_training()
            phases = [four_phases(learner, senders, seconds) for _ in range(turns)]
            made = senders.finish()
        return summary(phases, rate_hz * robots) | {
            "made": sum(made.values()),
            "lost": lost_records(run_dir, made),
            "resends": senders.total("resends"),
        }


def prefill(settings: LearnerSettings, run_dir: Path, contract: Contract) -> None:
    """A run whose records wait for a trainer."""
    run_dir.mkdir()
    open_run(settings, run_dir, resume=False)
    template = made_up_records(contract, seed=0)
    with ReplayLog(run_dir / FILE_NAME) as log:
        log.bind(contract)
        for number in range(PREFILLED_RECORDS // len(template)):
            cuts = range(0, len(template), BATCH_RECORDS)
            log.append_many([(f"earlier{number}", BOOT, template[cut : cut + BATCH_RECORDS]) for cut in cuts])


def four_phases(learner: Learner, senders: Senders, seconds: float) -> dict[str, list[tuple[Look, Look]]]:
    """Quiet, streaming, streaming, quiet: a machine that slows down meanwhile slows both alike."""
    found: dict[str, list[tuple[Look, Look]]] = {"quiet": [], "streaming": []}
    for order in (Order.QUIET, Order.STREAM, Order.STREAM, Order.QUIET):
        senders.order(order)
        time.sleep(SETTLE_S)
        begin = len(learner.looks)
        time.sleep(seconds)
        looks = learner.looks[begin:]
        if len(looks) < 2:
            raise LinkError(f"the learner's state was seen {len(looks)} times in {seconds:g} s, twice are needed")
        found["streaming" if order == Order.STREAM else "quiet"].append((looks[0], looks[-1]))
    return found


def rate(phases: Sequence[tuple[Look, Look]], of: str, per: str) -> float:
    """How much ``of`` grew for each of ``per``, over ``phases`` together."""
    grown = sum(getattr(end, of) - getattr(begin, of) for begin, end in phases)
    return float(grown / sum(getattr(end, per) - getattr(begin, per) for begin, end in phases))


def summary(turns: Sequence[dict[str, list[tuple[Look, Look]]]], wanted_per_s: float) -> dict[str, Any]:
    """Of one run."""

    def median(of: str, per: str, kind: str) -> float:
        return statistics.median(rate(turn[kind], of, per) for turn in turns)

    def ratios(per: str) -> list[float]:
        return [rate(t["streaming"], "updates", per) / rate(t["quiet"], "updates", per) for t in turns]

    return {
        "ratio": round(statistics.median(ratios("at_s")), 4),
        "ratio_per_cpu_s": round(statistics.median(ratios("trainer_s")), 4),
        "ratios": [round(ratio, 4) for ratio in ratios("at_s")],
        "updates_per_s_quiet": round(median("updates", "at_s", "quiet"), 2),
        "updates_per_s_streaming": round(median("updates", "at_s", "streaming"), 2),
        "records_per_s_sent": wanted_per_s,
        "transitions_per_s": round(median("transitions", "at_s", "streaming"), 1),
        "trainer_cpu_share_quiet": round(median("trainer_s", "at_s", "quiet"), 3),
        "trainer_cpu_share_streaming": round(median("trainer_s", "at_s", "streaming"), 3),
        "ingest_cpu_share_streaming": round(median("ingest_s", "at_s", "streaming"), 3),
        "sender_cpu_share_streaming": round(median("sender_s", "at_s", "streaming"), 3),
    }
