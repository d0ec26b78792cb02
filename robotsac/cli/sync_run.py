"""The files and the screen of one run of ``train --sync``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from robotsac.actor.folder import writable
from robotsac.cli.console import StatusLine, say, tell
from robotsac.cli.sync_settings import CONFIG_FILE, METRICS_FILE, SUMMARY_FILE, Settings
from robotsac.errors import RobotsacError, StorageError
from robotsac.learner.durable import write_file
from robotsac.learner.run_folder import run_argument
from robotsac.signals import counted_signals

if TYPE_CHECKING:
    from robotsac.learner.sync import SyncLearning
    from robotsac.learner.sync_checkpoint import SyncCheckpoints, SyncManifest
    from robotsac.learner.sync_progress import Evaluation

PICTURE = "learning_curve.png"
INTERRUPTED = 130
STATUS_PERIOD_S = 0.25


class SyncRun:
    """One life of it.

    Args:
        settings: of the run.
        learning: fresh, or restored.
        checkpoints: of the run.
        status: the screen.
        as_json: for a script.
    """

    def __init__(
        self,
        settings: Settings,
        learning: SyncLearning,
        checkpoints: SyncCheckpoints,
        status: StatusLine,
        as_json: bool,
    ) -> None:
        self._env, self._folder, self._learning = settings.env, settings.folder, learning
        self._checkpoints, self._status, self._as_json = checkpoints, status, as_json
        self._evaluations: list[Evaluation] = []
        self._lives = 1
        self._shown_s = float("-inf")

    def take_up(self, saved: SyncManifest | None) -> None:
        """Go on from ``saved``; what was written down after it is taken back, since it will happen again.

        Raises:
            StorageError: the run folder cannot be written.
        """
        if saved is not None:
            self._evaluations, self._lives = list(saved.evaluations), saved.lives + 1
        lines = "".join(json.dumps(evaluation.line()) + "\n" for evaluation in self._evaluations)
        with writable(self._folder):
            write_file(self._folder / METRICS_FILE, lines.encode())
            (self._folder / SUMMARY_FILE).unlink(missing_ok=True)

    def run(self) -> int:
        """Train, write, say what came out. Returns the exit code.

        Raises:
            RobotsacError: from the learning, once it is written down.
        """
        with counted_signals() as signals:
            try:
                self._learn(lambda: signals.count > 0)
            except RobotsacError as error:
                if _has_diverged(error):
                    error.command += f" --run {run_argument(self._folder, '-2')}"
                with suppress(StorageError):  # the first error is the one to tell
                    self._write(self._summary(error))
                raise
            finally:
                self._draw()
            summary = self._summary()
        self._publish()
        self._write(summary)
        if summary["finished"]:
            self._checkpoints.retire()
        self._say(summary)
        return 0 if summary["finished"] else INTERRUPTED

    def _learn(self, should_stop: Callable[[], bool]) -> None:
        from robotsac.learner.sync import Hooks

        learning = self._learning
        hooks = Hooks(
            should_stop=should_stop,
            on_step=self._show,
            on_evaluation=self._note,
            on_exam=lambda number: self._show(f"evaluating {number + 1}/{learning.plan.eval_episodes}"),
        )
        learning.run(hooks)
        if learning.env_steps and not self._finished:
            self._status.update("writing a checkpoint")
            self._checkpoints.save(learning, tuple(self._evaluations), self._lives)

    @property
    def _finished(self) -> bool:
        """It has its last evaluation, whatever came afterwards."""
        return self._learning.evaluated_at == self._learning.plan.steps

    def _note(self, evaluation: Evaluation) -> None:
        self._evaluations.append(evaluation)
        with writable(self._folder), (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(evaluation.line()) + "\n")
        self._status.event(self._words(evaluation))
        self._checkpoints.save(self._learning, tuple(self._evaluations), self._lives)

    def _write(self, summary: dict[str, Any]) -> None:
        with writable(self._folder):
            write_file(self._folder / SUMMARY_FILE, json.dumps(summary, indent=2).encode())

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
        contract = self._learning.world.contract
        if contract is None or not state.updates:
            return
        from robotsac.learner.export import PolicyExporter
        from robotsac.learner.resume_rules import chosen
        from robotsac.policy.store import BundleStore

        self._status.update("exporting the policy")
        digest = sha256((self._folder / CONFIG_FILE).read_bytes()).hexdigest()
        told = chosen(self._learning.learn)
        exporter = PolicyExporter(state.normaliser, state.actor, contract, self._folder.name, digest, told)
        exporter.prepare()
        BundleStore(self._folder / "policies").publish(exporter.bundle(self._lives, state.updates), self._lives)

    def _summary(self, error: RobotsacError | None = None) -> dict[str, Any]:
        learning, spent = self._learning, self._learning.spent
        last = self._evaluations[-1].line() if self._evaluations else {}
        training_s = max(spent.training, 1e-9)  # stopped before the first step: nothing is spent, and rates are 0
        interrupted = error is None and not self._finished
        return {
            "finished": error is None and self._finished,
            "interrupted": interrupted,
            "command": f"robotsac train --sync --resume --run {run_argument(self._folder)}" if interrupted else None,
            "error": None if error is None else error.to_dict(),
            "diverged": _has_diverged(error),
            "resumed": self._lives - 1,
            "env": self._env,
            "run": str(self._folder),
            "curve": str(self._folder / PICTURE) if self._evaluations else None,
            "backend": learning.backend.why,
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
        if summary["interrupted"]:
            told = f"interrupted at step {summary['steps']:,} of {self._learning.plan.steps:,}"
            tell(f"{told}; it goes on with\n  {summary['command']}")
        if self._as_json:
            say(json.dumps(summary))
        elif not summary["interrupted"]:
            self._say_result(summary)

    def _say_result(self, summary: dict[str, Any]) -> None:
        share = summary["share"]
        say(
            f"{summary['steps']:,} steps at {summary['env_steps_per_s']:.1f}/s, {summary['updates']:,} updates; of the time "
            f"{share['update']:.0%} learning, {share['act']:.0%} acting, {share['world']:.0%} the environment"
        )
        say(f"learning curve {summary['curve']}")
        say(self._words(self._evaluations[-1]))


def _has_diverged(error: RobotsacError | None) -> bool:
    from robotsac.learner.sync import TrainingDiverged

    return isinstance(error, TrainingDiverged)
