"""How many updates a second: each backend of ours, and the peers, in one run on one machine.

    python tools/bench_learner.py --json
    python tools/bench_learner.py --json --peers --threads 2
    python tools/bench_learner.py --json --peers --device cuda

The work is that of ``contender.py``: batch 256, 2 x 256 hidden units, twin critics, observations of 17 and actions of 6,
automatic temperature, one update of everything. On a processor that has products in bfloat16 the backend that rounds to them is
compared with the peers too; every other ratio is of backends in full precision. Ten critics (REDQ, two in the target) and the
learner's own defaults are timed beside it. Every contender is a process of its own; they take turns, so that a machine that
slows down slows them all. Printed are updates a second (median over the turns), the seconds until a contender was ready (start,
check, compilation, and 20 calls), and ratios: the median over the turns of the ratio within one. How many updates a contender
does in one call stands beside it; of those that do one a call there is the 99th percentile of an update's time too.

With ``--peers``, stable-baselines3 and SBX are installed, each into an environment of its own below ``runs/peers``.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learning_machine import ROOT, Machine, what_is_wrong
from tool_error import give_up

from robotsac.errors import RobotsacError
from robotsac.learner.backends.native import has_bfloat16
from robotsac.process import cores

CONTENDER = ROOT / "tools/contender.py"
PEERS = ROOT / "runs/peers"
THREADS_MAX = 64
"""As ``learn.threads`` has it."""
PACKAGES = {"sb3": ("stable-baselines3",), "sbx": ("sbx-rl",)}
AT_ONCE, PEERS_AT_ONCE = 8, 50
"""Updates of one call, ours and SBX's, which pays more for each. The trainer does as many as it has time for and the robot has
earned; how fast it is with one at a time is measured too."""
OURS, ONE_A_CALL = "robotsac", "one a call"
READY_S, TURN_S, INSTALL_S = 900.0, 300.0, 1800.0
DEFAULTS = ("learn.hidden=[128, 128]", "learn.critic_layer_norm=true", "learn.smooth_time=0.1", "learn.n_step=3")


@dataclass(slots=True)
class Contender:
    """A learner at work in a process, and what it took.

    Args:
        name: in the report.
        command: that starts it.
        at_once: updates in one call.
        calls: a turn.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    at_once: int
    calls: int
    described: dict[str, Any] = field(default_factory=dict)
    turns: list[list[float]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> bool:
        """Start and warm up; whether it could."""
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=self.environment,
        )  # fmt: skip
        self.described = self._answer(READY_S)
        return "error" not in self.described

    def turn(self) -> None:
        """So many calls."""
        assert self.process is not None and self.process.stdin is not None
        with suppress(BrokenPipeError):  # then it has ended, and that is its answer
            self.process.stdin.write(f"{self.calls}\n")
            self.process.stdin.flush()
        answer = self._answer(TURN_S)
        if "error" in answer:
            self.described |= answer
        else:
            self.turns.append(answer["seconds"])

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answer(self, patience_s: float) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], patience_s)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            return {"error": f"no answer within {patience_s:g} s" if not readable else "it ended"}
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            return {"error": f"it said {line.strip()[:200]!r}"}
        return answer

    @property
    def lost(self) -> bool:
        """Whether it could not begin, or has stopped answering."""
        return "error" in self.described

    @property
    def rates(self) -> list[float]:
        """Updates a second of each turn."""
        return [len(turn) / sum(turn) for turn in self.turns]


def main() -> None:
    """Parse, measure, print."""
    arguments = parse(sys.argv[1:])
    try:
        contenders = all_of(arguments)
    except RobotsacError as error:
        give_up(error)
    try:
        at_work = [contender for contender in contenders if contender.start()]
        for _ in range(arguments.turns):
            for contender in at_work:
                if not contender.lost:
                    contender.turn()
    finally:
        for contender in contenders:
            contender.stop()
    report = {
        "machine": Machine(arguments.device, arguments.threads).described(),
        "settings": vars(arguments),
        "contenders": {contender.name: summary(contender) for contender in contenders},
        "ratios": ratios({contender.name: contender.rates for contender in at_work if not contender.lost}),
    }
    print(json.dumps(report, ensure_ascii=False) if arguments.json else words(report))
    sys.exit(1 if any(contender.lost for contender in contenders) else 0)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--peers", action="store_true", help="stable-baselines3, SBX, and on a GPU a compiled peer, too"
    )
    parser.add_argument("--backends", nargs="+", help="ours, by name; by default those of this device")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=min(cores(), THREADS_MAX), help="of every contender")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--updates", type=int, default=60, help="of each a turn; a fifth with ten critics")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(given)
    for name in ("threads", "turns", "updates"):
        if (value := getattr(arguments, name)) < 1:
            parser.error(f"--{name} {value} is below 1")
    if wrong := what_is_wrong(device=arguments.device, threads=arguments.threads):
        parser.error(wrong)
    if arguments.threads > cores():
        # Ours would take no more than there are, and the peers all of them.
        parser.error(f"--threads {arguments.threads}: there are {cores()} cores")
    return arguments


def all_of(arguments: argparse.Namespace) -> list[Contender]:
    """Everybody that takes part. Raises RobotsacError: a peer could not be installed."""
    cuda = arguments.device.startswith("cuda")
    backends = arguments.backends or (["eager", "compiled", "graphed"] if cuda else on_this_cpu())
    made = [ours(arguments, name, f"learn.backend={name!r}") for name in backends]
    best = f"learn.backend={'graphed' if cuda else 'auto'!r}"
    made.append(ours(arguments, ONE_A_CALL, best, at_once=1))
    made.append(ours(arguments, "ten critics", best, "learn.critics=10", share=0.2))
    made.append(ours(arguments, "defaults", best, *DEFAULTS))
    if arguments.peers:
        made.append(peer(arguments, "sb3", "stable-baselines3", AT_ONCE))
        if not cuda:
            made += [peer(arguments, "sbx", "sbx", PEERS_AT_ONCE), peer(arguments, "sbx", f"sbx, {ONE_A_CALL}")]
        else:
            made.append(_contender(arguments, "compiled peer", sys.executable, "compiled_peer", at_once=AT_ONCE))
    return made


def on_this_cpu() -> list[str]:
    """The backends that it has."""
    return ["eager", "native", *(["native_bfloat16"] if has_bfloat16() else []), "compiled"]


def ours(
    arguments: argparse.Namespace, name: str, *settings: str, at_once: int = AT_ONCE, share: float = 1.0
) -> Contender:
    """This project's learner with ``settings``."""
    more = [word for setting in settings for word in ("--set", setting)]
    return _contender(arguments, f"{OURS} {name}", sys.executable, OURS, *more, at_once=at_once, share=share)


def peer(arguments: argparse.Namespace, kind: str, name: str, at_once: int = 1) -> Contender:
    """A peer, installed if it is not. Raises RobotsacError: it could not be."""
    return _contender(arguments, name, str(_installed(kind)), kind, at_once=at_once)


def _contender(
    arguments: argparse.Namespace, name: str, python: str, kind: str, *more: str, at_once: int, share: float = 1.0
) -> Contender:
    """``share``: of the updates that all others do in a turn."""
    threads = str(arguments.threads)
    command = [python, str(CONTENDER), kind, "--threads", threads, "--device", arguments.device, *more]
    command += ["--at-once", str(at_once)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    if kind in PACKAGES:
        environment.pop("PYTHONPATH", None)
    return Contender(name, command, environment, at_once, max(1, round(arguments.updates * share / at_once)))


def _installed(kind: str) -> Path:
    folder = PEERS / kind
    python = folder / "bin/python"
    if not (folder / ".installed").exists():
        constraints = ["--constraint", str(ROOT / "constraints.txt")] if kind == "sb3" else []
        pin = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
        commands = (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *constraints, *pin],
            [str(python), "-m", "pip", "install", "--quiet", *pin, *PACKAGES[kind]],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no word"])[-1]
                raise RobotsacError(f"the peer {kind} could not be installed", reason=said)
        (folder / ".installed").touch()
    return python


def summary(contender: Contender) -> dict[str, Any]:
    """What it is and what it took."""
    if not contender.turns:
        return contender.described
    seconds = sorted(second for turn in contender.turns for second in turn)
    # Of several in one call nobody knows how long the slowest took.
    alone = {"p99_ms": round(seconds[int(0.99 * len(seconds))] * 1e3, 3)} if contender.at_once == 1 else {}
    return {
        **contender.described,
        "at_once": contender.at_once,
        "updates_per_s": round(statistics.median(contender.rates), 1),
        "of_the_turns": [round(rate, 1) for rate in contender.rates],
        **alone,
    }


def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Ours against the others, turn by turn."""
    beside = [f"{OURS} {name}" for name in ("ten critics", "defaults", ONE_A_CALL)]

    def of(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 3)

    backends = [name for name in rates if name.startswith(OURS) and name not in beside]
    if not backends:
        return {}
    # Like is compared with like: ten critics and one a call are in full precision, as the peers are.
    full = [name for name in backends if "bfloat16" not in name]
    best = max(full or backends, key=lambda name: statistics.median(rates[name]))
    others = [name for name in rates if name not in (best, f"{OURS} defaults")]
    found = {f"{best} / {name}": of(best, name) for name in others if not name.endswith("ten critics")}
    peers = [name for name in rates if not name.startswith(OURS)]
    found |= {f"{name} / {other}": of(name, other) for name in backends if name not in full for other in peers}
    for other in (f"sbx, {ONE_A_CALL}", "stable-baselines3"):
        if other in rates and (alone := f"{OURS} {ONE_A_CALL}") in rates:
            found[f"{alone} / {other}"] = of(alone, other)
    if (ten := f"{OURS} ten critics") in rates:
        found[f"{ten} / {best}"] = of(ten, best)
    return found


def words(report: dict[str, Any]) -> str:
    """For a person."""
    lines = []
    for name, row in report["contenders"].items():
        if "updates_per_s" in row:
            alone = f"p99 {row['p99_ms']:7.2f} ms" if "p99_ms" in row else f"{row['at_once']:>3} a call"
            lines.append(
                f"{name:<28} {row['updates_per_s']:8.1f} updates/s   {alone:<14}   ready after {row['warm_up_s']:6.1f} s"
            )
        if "error" in row:
            lines.append(f"{name:<28} {row['error']}")
    lines += [f"{name:<58} {value:6.2f}" for name, value in report["ratios"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
