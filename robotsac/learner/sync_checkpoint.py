"""Checkpoints of ``train --sync``: a run that was cut goes on from its last evaluation, or from where it was stopped.

In a checkpoint are the algorithm, the states of all random generators, counters, times and evaluations; in ``replay``
beside it the replay, in files of some ten thousand transitions each, so that a checkpoint writes little more than what is
new (``replay_files``). Only the newest one is kept. What cannot be kept is the state of the environment: a run that goes on
begins a new episode, in a world that is seeded anew from the run's seed and its steps so far. So it is as good a run as
one that was never cut, but not bit for bit the same; with ``n_step`` n, up to n - 1 steps before the cut are lost.
"""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from robotsac.contract import Contract
from robotsac.errors import CheckpointError, StorageError, path_command
from robotsac.learner.checkpoint import restore_state, state_tensors
from robotsac.learner.replay_files import ReplayFiles, Rows
from robotsac.learner.run_folder import versions
from robotsac.learner.sealed import Sealed, read_sealed, write_sealed
from robotsac.learner.sync_progress import Evaluation, Spent

if TYPE_CHECKING:
    from robotsac.learner.sync import SyncLearning

SCHEMA = 1
PREFIX = "checkpoint-"
LOSS = "loss."
WITHOUT_IT = "without it, --resume begins the run anew"


class SyncManifest(Sealed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint says about itself, beside what :class:`~robotsac.learner.sealed.Sealed` does.

    Args:
        env_steps, episodes, updates, transitions: counters at the time.
        lives: how often the run has been started.
        wall_s: time it has been running, over all its lives.
        spent_s: of it, by what it went into.
        evaluations: so far.
        world: states of the world's generators as JSON, by name.
        replay: files of the replay, in order.
        device: kind of device the generators belong to.
        config_digest: sha256 of the run's ``config.json``.
        versions: of the software.
        contract: of the world, where it has one.
    """

    env_steps: int
    episodes: int
    updates: int
    transitions: int
    lives: int
    wall_s: float
    spent_s: dict[str, float]
    evaluations: tuple[Evaluation, ...]
    world: dict[str, str]
    replay: tuple[Rows, ...]
    device: str
    config_digest: str
    versions: dict[str, str]
    contract: Contract | None = None


class SyncCheckpoints:
    """The checkpoint of one run.

    Args:
        folder: created when the first one is saved.
        config_digest: of the run.
    """

    def __init__(self, folder: Path, config_digest: str) -> None:
        self._folder, self._config_digest = folder, config_digest
        self._files = ReplayFiles(folder / "replay")

    def save(self, learning: SyncLearning, evaluations: tuple[Evaluation, ...], lives: int) -> None:
        """Write one; then the one before goes.

        Raises:
            StorageError: the disk refused; the one before is untouched.
        """
        path = self._folder / f"{PREFIX}{learning.env_steps:012d}-{lives:06d}"
        try:
            replay = self._files.write(learning.replay)
            if path.exists():  # stopped right after an evaluation
                return
            tensors = state_tensors(learning.state, learning.generators)
            tensors |= {f"{LOSS}{name}": loss.detach().cpu().clone() for name, loss in learning.losses.items()}
            tensors |= {name: tensor.clone() for name, tensor in learning.observed.tensors().items()}
            write_sealed(path, tensors, self._manifest(learning, evaluations, lives, replay))
            for old in self.paths():
                if old != path:
                    shutil.rmtree(old)
            self._files.keep(replay)
        except OSError as error:
            raise StorageError(
                f"checkpoint {path} could not be written", reason=str(error), command=path_command(error, self._folder)
            ) from error

    def paths(self) -> list[Path]:
        """Complete ones, oldest first: there are two where writing ended before the older was taken away."""
        return sorted(self._folder.glob(f"{PREFIX}*"))

    def load(self) -> tuple[SyncManifest, dict[str, Tensor]] | None:
        """The newest; ``None`` when there is none.

        Raises:
            CheckpointError: it is damaged, or of other settings.
        """
        if not (paths := self.paths()):
            return None
        manifest, tensors = read_sealed(paths[-1], SyncManifest, SCHEMA, WITHOUT_IT)
        if manifest.config_digest != self._config_digest:
            raise CheckpointError(
                f"checkpoint {paths[-1]} was made with other settings",
                reason="config.json beside it has been changed since",
                command=shlex.join(("rm", "-r", str(paths[-1]))),
            )
        return manifest, tensors

    def restore(self, learning: SyncLearning, manifest: SyncManifest, tensors: dict[str, Tensor]) -> None:
        """Put a checkpoint into a fresh ``learning`` of the same settings.

        Raises:
            CheckpointError: it does not fit, or its replay is damaged; ``learning`` is then not to be used.
        """
        path = self.paths()[-1]
        if manifest.device != learning.device.type:
            raise CheckpointError(
                f"the run cannot go on here: device was {manifest.device}, now {learning.device.type}",
                reason="streams of random numbers do not carry over from one kind of device to another",
                command=f"--set learn.device={manifest.device}",
            )
        anew = shlex.join(("rm", "-r", str(path)))
        _require_same_world(manifest.contract, learning.world.contract, anew)
        losses = {name.removeprefix(LOSS): tensor for name, tensor in tensors.items() if name.startswith(LOSS)}
        observed = learning.observed.tensors()
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith(LOSS) and name not in observed}
        restore_state(learning.state, learning.generators, state, anew)
        for name, tensor in observed.items():
            tensor.copy_(tensors[name])
        learning.losses = {name: tensor.to(learning.device) for name, tensor in losses.items()}
        self._files.read(learning.replay, manifest.replay, manifest.transitions)
        for name, generator in learning.world.generators().items():
            generator.bit_generator.state = json.loads(manifest.world[name])
        learning.state.updates = manifest.updates
        learning.env_steps, learning.episodes = manifest.env_steps, manifest.episodes
        learning.evaluated_at = manifest.evaluations[-1].env_steps if manifest.evaluations else 0
        learning.spent, learning.wall_s = Spent(**manifest.spent_s), manifest.wall_s

    def retire(self) -> None:
        """Of a finished run: nobody will go on with it, so the replay goes. The networks stay. Never raises."""
        shutil.rmtree(self._folder / "replay", ignore_errors=True)

    def discard(self) -> None:
        """All of it goes: the run begins anew. Never raises."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _manifest(
        self, learning: SyncLearning, evaluations: tuple[Evaluation, ...], lives: int, replay: tuple[Rows, ...]
    ) -> SyncManifest:
        world = {name: json.dumps(rng.bit_generator.state) for name, rng in learning.world.generators().items()}
        return SyncManifest(
            schema=SCHEMA,
            env_steps=learning.env_steps,
            episodes=learning.episodes,
            updates=learning.state.updates,
            transitions=learning.replay.total,
            lives=lives,
            wall_s=learning.wall_s,
            spent_s=asdict(learning.spent),
            evaluations=evaluations,
            world=world,
            replay=replay,
            device=learning.device.type,
            config_digest=self._config_digest,
            versions=versions(),
            contract=learning.world.contract,
        )


def _require_same_world(before: Contract | None, now: Contract | None, anew: str) -> None:
    """Refuse to mix transitions of two meanings: the settings are the run's own, but the software may have changed since.

    Raises:
        CheckpointError: with the command ``anew``.
    """
    if before == now:
        return
    reason = "one of the two has no contract; older versions of robotsac kept none"
    if before is not None and now is not None:
        reason = f"{before.difference(now)} (the run's, and now)"
    raise CheckpointError(
        "the run cannot go on: its observations, actions or task are not what they were",
        reason=reason,
        command=anew,
    )
