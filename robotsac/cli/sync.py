"""``robotsac train --sync``: one process, any environment, no robot; the learner is the same."""

from __future__ import annotations

import json
import re
import shlex
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robotsac.actor.collect import writable
from robotsac.cli.console import StatusLine, say
from robotsac.cli.learn import require_learner
from robotsac.cli.options import run_folder
from robotsac.config import Config, LearnConfig, load_config, load_learner_settings
from robotsac.errors import ConfigError
from robotsac.lock import FileLock
from robotsac.signals import counted_signals

if TYPE_CHECKING:
    from robotsac.contract import Contract
    from robotsac.learner.sync import Plan, SyncLearning
    from robotsac.learner.sync_progress import Evaluation
    from robotsac.learner.world import World

ARM_ID = "robotsac/Arm-v0"
CONFIG_FILE, METRICS_FILE, SUMMARY_FILE, PICTURE = "config.json", "metrics.jsonl", "summary.json", "learning_curve.png"
LOCK_FILE = "sync.lock"
INTERRUPTED = 130
STATUS_PERIOD_S = 0.25


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What ``--sync`` takes besides the configuration: no ``env`` is the arm; a seed replaces ``learn.seed``."""

    env: str | None
    robot: str
    run: str | None
    steps: int
    eval_every: int
    eval_episodes: int
    seed: int | None


@dataclass(frozen=True, slots=True)
class Opened:
    """What is learned in and what is evaluated in; the rate, Hz, where it is known; of an arm its contract."""

    world: World
    exam: World
    control_rate_hz: float | None
    contract: Contract | None = None


def run_sync(options: SyncOptions, files: list[Path], overrides: list[str], as_json: bool) -> int:
    """See ``robotsac train --help``. Returns the exit code.

    Raises:
        ConfigError, DriverUnavailable: before anything was made.
        RobotsacError: training has diverged; what there is stays in the run folder.
    """
    if options.seed is not None:
        overrides = [*overrides, f"learn.seed={options.seed}"]
    env = options.env or ARM_ID
    config = load_config(options.robot, files, overrides) if env == ARM_ID else None
    learn = load_learner_settings(files, overrides).learn if config is None else config.learn
    require_learner(learn)
    name = options.run or f"{_slug(env)}-s{learn.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = run_folder(name, name)
    _require_free(folder, name)
    import torch

    from robotsac.learner.algorithm import resolve_device
    from robotsac.learner.sync import Plan, SyncLearning

    torch.set_num_threads(learn.threads)
    plan = Plan(options.steps, options.eval_every, options.eval_episodes)
    with ExitStack() as stack:
        opened = _open(env, config, learn, folder)
        for world in (opened.world, opened.exam):
            stack.enter_context(closing(world))
        device = resolve_device(learn.device)
        learning = SyncLearning(learn, plan, opened.world, opened.exam, opened.control_rate_hz, device)
        lock = FileLock(folder / LOCK_FILE)
        stack.callback(lock.release)
        with writable(folder):
            if not lock.acquire():
                raise _taken(folder, name)
            (folder / CONFIG_FILE).write_text(_configuration(env, plan, config, learn), encoding="utf-8")
        status = stack.enter_context(StatusLine(plain=as_json))
        status.event(f"run folder {folder}")
        return _Run(env, folder, learning, opened.contract, status, as_json).run()


def _require_free(folder: Path, name: str) -> None:
    if any((folder / file).exists() for file in (CONFIG_FILE, METRICS_FILE, "learner", "robot", "run.json")):
        raise _taken(folder, name)


def _taken(folder: Path, name: str) -> ConfigError:
    return ConfigError(
        f"run folder {folder} exists already",
        reason="train always begins a new run",
        command=f"--run {shlex.quote(name + '-2')}",
    )


def _open(env: str, config: Config | None, learn: LearnConfig, folder: Path) -> Opened:
    from robotsac.learner.sync import Streams

    streams = Streams.of(learn.seed)
    if config is not None:
        from robotsac.cli.arm_world import ArmWorld

        faults = folder / "faults"
        arm = ArmWorld(config, streams.world, faults)
        exam = ArmWorld(config, streams.exam, faults)
        return Opened(arm, exam, float(arm.contract.control_rate_hz), arm.contract)
    from robotsac.cli.gym_world import GymWorld, control_rate_of, make_env

    made = make_env(env)
    world = GymWorld(made, streams.world)
    return Opened(world, GymWorld(make_env(env), streams.exam), control_rate_of(made))


class _Run:
    """The files and the screen of one run."""

    def __init__(
        self,
        env: str,
        folder: Path,
        learning: SyncLearning,
        contract: Contract | None,
        status: StatusLine,
        as_json: bool,
    ) -> None:
        self._env, self._folder, self._learning, self._contract = env, folder, learning, contract
        self._status, self._as_json = status, as_json
        self._evaluations: list[Evaluation] = []
        self._shown_s = float("-inf")

    def run(self) -> int:
        """Train, write, say what came out. Returns the exit code."""
        from robotsac.learner.sync import Hooks

        learning = self._learning
        with counted_signals() as signals:
            hooks = Hooks(
                should_stop=lambda: signals.count > 0,
                on_step=self._show,
                on_evaluation=self._note,
                on_exam=lambda number: self._show(f"evaluating {number + 1}/{learning.plan.eval_episodes}"),
            )
            try:
                learning.run(hooks)
            finally:
                self._draw()
        finished = learning.env_steps >= learning.plan.steps and signals.count == 0
        summary = self._summary(finished)
        with writable(self._folder):
            (self._folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2), encoding="utf-8")
        self._publish()
        self._say(summary)
        return 0 if finished else INTERRUPTED

    def _note(self, evaluation: Evaluation) -> None:
        self._evaluations.append(evaluation)
        with writable(self._folder), (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(evaluation.line()) + "\n")
        self._status.event(self._words(evaluation))

    def _show(self, doing: str = "") -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s < STATUS_PERIOD_S:
            return
        self._shown_s = now_s
        learning = self._learning
        rate = learning.env_steps / learning.spent.training if learning.spent.training else 0.0
        last = f"return {self._evaluations[-1].line()['return_mean']:.2f}" if self._evaluations else "no evaluation yet"
        self._status.update(
            f"{self._env} {doing or 'learning'}  {learning.env_steps:,}/{learning.plan.steps:,} steps {rate:.0f}/s  "
            f"{learning.state.updates:,} updates  {learning.episodes:,} episodes  {last}"
        )

    def _words(self, evaluation: Evaluation) -> str:
        line = evaluation.line()
        success = "" if evaluation.success_rate is None else f", success {evaluation.success_rate:.0%}"
        return (
            f"{evaluation.env_steps:,} steps: return {line['return_mean']:.2f} ± {line['return_std']:.2f} "
            f"over {len(evaluation.returns)} episodes{success}"
        )

    def _draw(self) -> None:
        """Success over steps where there is such a thing, else the return."""
        if not self._evaluations:
            return
        import numpy as np

        from robotsac.learner.bands import Band, plot_bands

        last = self._evaluations[-1]
        steps = np.array([evaluation.env_steps for evaluation in self._evaluations], dtype=np.float64)
        values = np.array([evaluation.returns for evaluation in self._evaluations]).T
        label, limits = "return of an episode", None
        if last.success_rate is not None:
            values = np.array([[100.0 * (evaluation.success_rate or 0.0) for evaluation in self._evaluations]])
            label, limits = "success rate (%)", (0.0, 104.0)
        note = f"seed {last.seed}, {len(last.returns)} episodes without noise"
        plot_bands(self._folder / PICTURE, [Band(self._env, steps, values)], self._env, note, label, limits=limits)

    def _publish(self) -> None:
        """An arm's policy, as ``learn`` would export it: for ``robotsac eval``."""
        state = self._learning.state
        if self._contract is None or not state.updates:
            return
        from robotsac.learner.export import PolicyExporter
        from robotsac.policy.store import BundleStore

        self._status.update("exporting the policy")
        digest = sha256((self._folder / CONFIG_FILE).read_bytes()).hexdigest()
        exporter = PolicyExporter(state.normaliser, state.actor, self._contract, self._folder.name, digest)
        exporter.prepare()
        BundleStore(self._folder / "policies").publish(exporter.bundle(1, state.updates), 1)

    def _summary(self, finished: bool) -> dict[str, Any]:
        learning, spent = self._learning, self._learning.spent
        last = self._evaluations[-1].line() if self._evaluations else {}
        training_s = max(spent.training, 1e-9)  # stopped before the first step: nothing is spent, and rates are 0
        return {
            "finished": finished,
            "env": self._env,
            "run": str(self._folder),
            "curve": str(self._folder / PICTURE) if self._evaluations else None,
            "seed": learning.learn.seed,
            "steps": learning.env_steps,
            "updates": learning.state.updates,
            "episodes": learning.episodes,
            "return_mean": last.get("return_mean"),
            "return_std": last.get("return_std"),
            "success_rate": last.get("success_rate"),
            "eval_episodes": learning.plan.eval_episodes,
            "wall_s": last.get("wall_s"),
            "env_steps_per_s": round(learning.env_steps / training_s, 2),
            "share": {name: round(getattr(spent, name) / training_s, 4) for name in ("act", "world", "update")},
            "evaluate_s": round(spent.evaluate, 2),
        }

    def _say(self, summary: dict[str, Any]) -> None:
        if self._as_json:
            say(json.dumps(summary))
            return
        share = summary["share"]
        say(
            f"{summary['steps']:,} steps at {summary['env_steps_per_s']:.1f}/s, {summary['updates']:,} updates; of the time "
            f"{share['update']:.0%} learning, {share['act']:.0%} acting, {share['world']:.0%} the environment"
        )
        if self._evaluations:
            say(f"learning curve {summary['curve']}")
            say(self._words(self._evaluations[-1]))
        else:
            say("stopped before the first evaluation")


def _configuration(env: str, plan: Plan, config: Config | None, learn: LearnConfig) -> str:
    from robotsac.learner.run_folder import versions

    shared = {"env": env, "plan": asdict(plan), "versions": versions()}
    body = {"learn": learn.model_dump(mode="json")} if config is None else config.model_dump(mode="json")
    return json.dumps(shared | body, indent=2)


def _slug(env: str) -> str:
    """An id as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", env).strip("-").lower()
