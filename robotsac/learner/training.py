"""One trainer's life on one run: tail the log, update, publish, checkpoint, write down.

:meth:`Training.step` is one short slice of that, so that the process around it stays responsive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from robotsac.config.schema import LearnerSettings
from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, CheckpointError
from robotsac.learner.board import TrainerState
from robotsac.learner.checkpoint import SCHEMA, CheckpointFolder, Manifest, learning_tensors, require_same_run, restore
from robotsac.learner.device import resolve_device
from robotsac.learner.export import PolicyExporter, software_versions
from robotsac.learner.learning import Learning
from robotsac.learner.metrics import Metrics, Recent
from robotsac.learner.rates import Rate
from robotsac.learner.replay_log import ReplayLog
from robotsac.learner.resume_rules import chosen
from robotsac.learner.run_folder import CHECKPOINTS, POLICIES, TRAINER_STATUS_FILE, digest, write_json
from robotsac.policy.store import BundleStore
from robotsac.shared import SharedBlock

READ_ROWS = 64
"""Log rows per read, of at most 128 records each (``link.learner_end``): some thousand records, tens of milliseconds."""
SLICE_S = 0.03
"""Updates go on this long before the log is looked at again."""
AT_ONCE_MAX = 8
"""Updates that are prepared together. A stop is heard between two such calls."""
METRICS_EVERY_S = 1.0
STATUS_EVERY_S = 0.5


class Training:
    """See module docstring.

    Args:
        settings: of the learner.
        run_dir, run_id: of the run.
        contract: of the replay log.
        log: open for reading.
        board: of ``LEARNER_FIELDS``.

    Raises:
        ConfigError: settings that cannot work.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        run_dir: Path,
        run_id: str,
        contract: Contract,
        log: ReplayLog,
        board: SharedBlock,
    ) -> None:
        self._settings, self._run_dir, self._run_id = settings, run_dir, run_id
        self._log, self._board = log, board
        self.learning = Learning(settings, contract, resolve_device(settings.learn.device))
        state = self.learning.state
        self._exporter = PolicyExporter(
            state.normaliser, state.actor, contract, run_id, digest(settings), chosen(settings.learn)
        )
        self._store = BundleStore(run_dir / POLICIES)
        self._checkpoints = CheckpointFolder(run_dir / CHECKPOINTS, settings.learn.checkpoints_kept)
        self._metrics = Metrics(run_dir, contract.control_rate_hz)
        self._recent = Recent()
        self._last: dict[str, Tensor] = {}
        self._update_rate, self._step_rate = Rate(), Rate()
        self._updates_per_s = self._steps_per_s = 0.0
        self._update_s = SLICE_S
        self._started_s = time.monotonic()
        self._wall_before_s = 0.0
        self._published_updates = self._saved_updates = 0
        self._publish_due_s = self._status_due_s = self._metrics_due_s = 0.0
        self._save_due_s = self._started_s + settings.learn.checkpoint_every_s
        latest = self._store.latest()
        # Versions never go back: bundles may have been published after the checkpoint that a resumed run starts from.
        self.policy_version = latest.version if latest is not None else 0

    def open(self, stopping: Callable[[], bool]) -> bool:
        """Prepare export and files; take up the newest checkpoint if there is one. False when told to stop meanwhile.

        Until it returns, the board's counters stay what they were: zeros, or a part of the log, would tell the robots of
        a resumed run something false.

        Raises:
            CheckpointError: the checkpoint is damaged or not of this run.
            ExportError: policies cannot be exported here.
            StorageError: a disk refused.
        """
        self._alive()
        self._exporter.prepare()
        self._alive()
        found = self._checkpoints.load_latest()
        if found is None:
            self._metrics.open()
            return True
        manifest, tensors = found
        learning = self.learning
        require_same_run(manifest, self._run_id, self._settings.learn, learning.contract, learning.device.type)
        restore(learning, manifest, tensors)
        if not self._rebuild(manifest.replay_row, stopping):
            return False
        if (learning.replay.total, learning.assembler.records) != (manifest.transitions, manifest.records):
            raise CheckpointError(
                f"the replay log gives {learning.replay.total} transitions up to row {manifest.replay_row}, "
                f"the checkpoint had {manifest.transitions}",
                reason=f"{self._log.path.name} is not the log that this run was trained on",
                command=ANOTHER_RUN,
            )
        self.policy_version = max(self.policy_version, manifest.policy_version)
        self._wall_before_s = manifest.wall_s
        self._published_updates = self._saved_updates = manifest.updates
        self._metrics.open(manifest.replay_row, manifest.updates)
        return True

    def step(self) -> bool:
        """One slice: read, update, and whatever is due. True when there was nothing to do.

        Raises:
            ExportError: training has diverged.
            StorageError: a disk refused.
        """
        learning = self.learning
        batches = self._log.read_after(learning.row, READ_ROWS)
        for row, episode in learning.absorb(batches):
            self._recent.add(episode)
            self._metrics.episode(episode, row, learning.state.updates)
        updated = self._update_for(SLICE_S)
        self._beat(self._state(updated))
        self._do_what_is_due()
        return not updated and len(batches) < READ_ROWS

    def finish(self) -> None:
        """Last bundle, last checkpoint, everything written out.

        Raises:
            ExportError, StorageError: as :meth:`step`.
        """
        self._beat(TrainerState.STOPPING)
        self._publish()
        self._save()
        self._note()
        self._write_status(time.monotonic())
        self._beat(TrainerState.STOPPING)  # once more: the last policy's version belongs to the last status

    def close(self) -> None:
        """Close the files; idempotent."""
        self._metrics.close()

    def _rebuild(self, row: int, stopping: Callable[[], bool]) -> bool:
        """Fill the replay from the log up to ``row``; episodes count again but are not written down again."""
        learning = self.learning
        while learning.row < row:
            if stopping():
                return False
            batches = [batch for batch in self._log.read_after(learning.row, READ_ROWS) if batch.row <= row]
            if not batches:
                raise CheckpointError(
                    f"the replay log ends at row {learning.row}, the checkpoint was made at row {row}",
                    reason=f"{self._log.path.name} is not the log that this run was trained on",
                    command=ANOTHER_RUN,
                )
            for _, episode in learning.absorb(batches):
                self._recent.add(episode)
            self._alive()
        return True

    def _update_for(self, seconds: float) -> bool:
        """Do the updates that are allowed, for at most ``seconds``; whether there were any."""
        allowed = self.learning.updates_allowed
        now_s = time.monotonic()
        end_s = now_s + seconds
        done = 0
        while done < allowed and (done == 0 or now_s < end_s):
            # As many in one call as there is time for, going by those before.
            room = int((end_s - now_s) / max(self._update_s, 1e-6))
            count = max(1, min(allowed - done, room, AT_ONCE_MAX))
            # Kept, not replaced: with a delayed actor most updates have no word about it.
            self._last |= self.learning.update(count)
            done += count
            before_s, now_s = now_s, time.monotonic()
            self._update_s = (now_s - before_s) / count
        return done > 0

    def _state(self, updated: bool) -> TrainerState:
        if updated:
            return TrainerState.TRAINING
        if self.learning.replay.total <= self._settings.learn.start_steps:
            return TrainerState.FILLING_REPLAY
        return TrainerState.WAITING_FOR_DATA

    def _do_what_is_due(self) -> None:
        now_s = time.monotonic()
        learn = self._settings.learn
        if now_s >= self._publish_due_s and self._publish():
            self._publish_due_s = now_s + learn.publish_every_s
            self._alive()
        if now_s >= self._save_due_s:
            self._save_due_s = now_s + learn.checkpoint_every_s
            self._save()
            self._alive()
        if now_s >= self._metrics_due_s:
            self._metrics_due_s = now_s + METRICS_EVERY_S
            self._note()
        if now_s >= self._status_due_s:
            self._status_due_s = now_s + STATUS_EVERY_S
            self._write_status(now_s)

    def _publish(self) -> bool:
        """Publish the policy if it has changed; whether it had."""
        updates = self.learning.state.updates
        if updates == self._published_updates:
            return False
        version = self.policy_version + 1
        self._store.publish(self._exporter.bundle(version, updates), version)
        self.policy_version, self._published_updates = version, updates
        return True

    def _save(self) -> None:
        learning = self.learning
        if learning.state.updates == self._saved_updates:
            return
        manifest = Manifest(
            schema=SCHEMA,
            run_id=self._run_id,
            updates=learning.state.updates,
            transitions=learning.replay.total,
            records=learning.assembler.records,
            env_steps=learning.assembler.env_steps,
            replay_row=learning.row,
            policy_version=self.policy_version,
            wall_s=self._wall_before_s + time.monotonic() - self._started_s,
            device=learning.device.type,
            learn=self._settings.learn.model_dump(mode="json"),
            config_digest=digest(self._settings),
            contract=learning.contract,
            versions=software_versions(),
            tensors_sha256="",
            prior_rows=learning.prior_rows,
            prior_transitions=learning.prior.total if learning.prior is not None else 0,
        )
        self._checkpoints.save(learning_tensors(learning), manifest)
        self._saved_updates = learning.state.updates

    def _beat(self, state: TrainerState) -> None:
        learning, board = self.learning, self._board
        board["updates"] = learning.state.updates
        board["transitions"] = learning.replay.total
        board["records"] = learning.assembler.records
        board["policy_version"] = self.policy_version
        board["episodes"] = self._recent.episodes
        board["successes_permille"] = round(1000 * self._recent.success_rate)
        board["trainer_state"] = state
        # While a log is read again from the start, what it allowed before still holds.
        board["credit_total"] = max(board["credit_total"], learning.credit_total)
        self._alive()

    def _alive(self) -> None:
        """A sign of life after what may have lasted; no news besides."""
        self._board["beat_ns"] = time.monotonic_ns()

    def _note(self) -> None:
        """One line of metrics; nothing before the first update."""
        if self._last:
            learning = self.learning
            values = {name: float(tensor) for name, tensor in self._last.items()}
            values["robot_time_s"] = learning.robot_time_s
            values["wall_s"] = self._wall_before_s + time.monotonic() - self._started_s
            values["transitions"] = learning.replay.total
            values["updates_per_s"] = self._updates_per_s
            values["success_rate"] = self._recent.success_rate
            values["return"] = self._recent.mean_return
            self._metrics.train(learning.row, learning.state.updates, values)
        self._metrics.flush()

    def _write_status(self, now_s: float) -> None:
        learning = self.learning
        self._updates_per_s = self._update_rate.at(now_s, learning.state.updates)
        self._steps_per_s = self._step_rate.at(now_s, learning.assembler.env_steps)
        status = {
            "device": str(learning.device),
            "threads": torch.get_num_threads(),
            "backend": learning.backend.why,
            "updates_per_s": round(self._updates_per_s, 1),
            "env_steps": learning.assembler.env_steps,
            "env_steps_per_s": round(self._steps_per_s, 1),
            "robot_time_s": learning.robot_time_s,
            "replay_size": len(learning.replay),
            "return": self._recent.mean_return,
            "success_rate": self._recent.success_rate,
            **{name: float(tensor) for name, tensor in self._last.items()},
        }
        write_json(self._run_dir / TRAINER_STATUS_FILE, status)
