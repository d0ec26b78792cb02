"""Checkpoints: all tensors in safetensors, the rest in a JSON manifest, complete or not there.

A checkpoint is a folder, written beside, synced and renamed. It holds networks, targets, log α, optimizer states,
normaliser and the states of all random generators; the replay itself is not in it: the manifest names the last log row
that was in the ring, of prior data too, and resuming reads the log up to there. On the CPU the resumed run is bit for bit
the run that was not interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from robotsac.config.learn import LearnConfig
from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, CheckpointError, StorageError, path_command
from robotsac.learner.algorithm import Algorithm
from robotsac.learner.learning import Learning
from robotsac.learner.resume_rules import differences
from robotsac.learner.sealed import Sealed, read_sealed, write_sealed

SCHEMA = 2
PREFIX = "checkpoint-"
ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What it keeps of each parameter."""
WITHOUT_IT = "without it, the run goes on from the one before"


class Manifest(Sealed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint says about itself, beside what :class:`~robotsac.learner.sealed.Sealed` does.

    Args:
        run_id: of the run.
        updates, transitions, records, env_steps: counters at the time.
        replay_row: last row of the replay log that is in the ring.
        prior_rows: last row of each log of prior data that is in the ring of prior data.
        prior_transitions: that these rows gave.
        policy_version: last published.
        wall_s: time the trainer has been running, over all its lives.
        device: kind of device the generators belong to.
        learn: the ``[learn]`` table.
        config_digest: sha256 of the learner's settings.
        contract: of the replay log.
        versions: of the software.
    """

    run_id: str
    updates: int
    transitions: int
    records: int
    env_steps: int
    replay_row: int
    policy_version: int
    wall_s: float
    device: str
    learn: dict[str, Any]
    config_digest: str
    contract: Contract
    versions: dict[str, str]
    prior_rows: tuple[int, ...] = ()
    prior_transitions: int = 0


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: created when the first one is saved.
        keep: how many stay on disk.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def save(self, tensors: dict[str, Tensor], manifest: Manifest) -> Path:
        """Write one checkpoint; older ones beyond ``keep`` go.

        Args:
            tensors: of :func:`learning_tensors`.
            manifest: ``tensors_sha256`` is filled in here.

        Raises:
            StorageError: the disk refused; earlier checkpoints are untouched.
        """
        path = self.folder / f"{PREFIX}{manifest.updates:010d}-{manifest.replay_row:010d}"
        if path.exists():
            return path  # same updates, same log row: the same state
        try:
            write_sealed(path, tensors, manifest)
            for old in self.paths()[: -self._keep]:
                shutil.rmtree(old)
        except OSError as error:
            raise StorageError(
                f"checkpoint {path} could not be written", reason=str(error), command=path_command(error, self.folder)
            ) from error
        return path

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob(f"{PREFIX}*"))

    def load_latest(self) -> tuple[Manifest, dict[str, Tensor]] | None:
        """The newest checkpoint, checked against its hash; ``None`` when there is none.

        Raises:
            CheckpointError: it is incomplete or damaged; an older one is not taken silently in its place.
        """
        paths = self.paths()
        return read_sealed(paths[-1], Manifest, SCHEMA, WITHOUT_IT) if paths else None


def require_same_run(manifest: Manifest, run_id: str, learn: LearnConfig, contract: Contract, device: str) -> None:
    """Refuse a checkpoint that is not of this run.

    Raises:
        CheckpointError: names everything that differs.
    """
    found = differences(manifest.learn, learn)
    if manifest.run_id != run_id:
        found.append(f"run id was {manifest.run_id}, now {run_id}")
    if difference := manifest.contract.difference(contract):
        found.append(f"contract: {difference} (checkpoint against replay log)")
    if manifest.device != device:
        found.append(f"device was {manifest.device}, now {device}")
    if found:
        raise CheckpointError(
            "the checkpoint does not belong to this run as it is set up now",
            reason="; ".join(found),
            command=ANOTHER_RUN,
        )


def learning_tensors(learning: Learning) -> dict[str, Tensor]:
    """Every tensor of ``learning`` under a name, on the CPU; the inverse is :func:`restore`."""
    return state_tensors(learning.state, _generators(learning))


def state_tensors(state: Algorithm, generators: Mapping[str, torch.Generator]) -> dict[str, Tensor]:
    """Every tensor of ``state`` and the states of ``generators`` under a name, on the CPU; see :func:`restore_state`."""
    named = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _live_tensors(state).items()}
    for name, generator in generators.items():
        named[name] = generator.get_state()
    for group, optimizer in _optimizers(state).items():
        for index, parameter in enumerate(_parameters(optimizer)):
            for key, value in optimizer.state.get(parameter, {}).items():
                named[f"{group}.{index}.{key}"] = value.detach().cpu().contiguous().clone()
    return named


def restore(learning: Learning, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    """Put ``tensors`` into a fresh ``learning`` built from the same settings. The replay is the caller's to rebuild.

    Prior data that has grown since is read again, up to where it was.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape, or prior data is not what it was;
            ``learning`` is then not to be used.
        StorageError: prior data cannot be read.
    """
    restore_state(learning.state, _generators(learning), tensors)
    learning.state.updates = manifest.updates
    _restore_prior(learning, manifest)


def restore_state(
    state: Algorithm,
    generators: Mapping[str, torch.Generator],
    tensors: Mapping[str, Tensor],
    command: str = ANOTHER_RUN,
) -> None:
    """Put the tensors of :func:`state_tensors` into a fresh ``state`` built from the same settings, and ``generators``.

    Its count of updates is the caller's to set; ``command`` is what helps when they do not fit.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; ``state`` is then not to be used.
    """
    live, optimizers = _live_tensors(state), _optimizers(state)
    states = {name for name in tensors if name.rpartition(".")[0].rpartition(".")[0] in optimizers}
    unmatched = (live.keys() | generators.keys()) ^ (tensors.keys() - states)
    unmatched |= _half_kept(optimizers, states)
    unmatched |= {name for name in live.keys() & tensors.keys() if live[name].shape != tensors[name].shape}
    if unmatched:
        raise CheckpointError(
            "the checkpoint's tensors are not those of this software",
            reason=f"differing: {', '.join(sorted(unmatched))}",
            command=command,
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(tensors[name])
    for name, generator in generators.items():
        generator.set_state(tensors[name])
    for name in states:
        group, index, key = name.rsplit(".", 2)
        parameter = _parameters(optimizers[group])[int(index)]
        # Not load_state_dict: that would cast the step counter, and Adam would not be where it was. Where there are moments
        # already, they are filled: a recorded graph reads them where they lie.
        kept = optimizers[group].state[parameter]
        if key in kept:
            kept[key].copy_(tensors[name])
        else:
            kept[key] = tensors[name].to(parameter.device)


def _half_kept(optimizers: Mapping[str, Optimizer], states: set[str]) -> set[str]:
    """What is missing of or too much in an optimizer's state: it has all of Adam's for each parameter, or none before its
    first step."""
    wrong: set[str] = set()
    for group, optimizer in optimizers.items():
        kept = {name for name in states if name.startswith(f"{group}.")}
        whole = {f"{group}.{index}.{key}" for index in range(len(_parameters(optimizer))) for key in ADAM}
        wrong |= kept ^ whole if kept else set()
    return wrong


def _restore_prior(learning: Learning, manifest: Manifest) -> None:
    if manifest.prior_rows != learning.prior_rows:
        learning.load_prior(manifest.prior_rows)
    transitions = learning.prior.total if learning.prior is not None else 0
    if transitions != manifest.prior_transitions:
        raise CheckpointError(
            f"prior data gives {transitions} transitions, the checkpoint had {manifest.prior_transitions}",
            reason=f"{', '.join(manifest.learn['prior_data'])}: not the logs that this run was trained with",
            command=ANOTHER_RUN,
        )


def _live_tensors(state: Algorithm) -> dict[str, Tensor]:
    named = {
        f"{prefix}.{name}": tensor
        for prefix, module in state.modules().items()
        for name, tensor in module.state_dict().items()
    }
    return named | dict(state.scalars())


def _generators(learning: Learning) -> dict[str, torch.Generator]:
    generators = {"generator.replay": learning.replay_generator, "generator.noise": learning.noise_generator}
    return generators | ({} if learning.prior is None else {"generator.prior": learning.prior_generator})


def _optimizers(state: Algorithm) -> dict[str, Optimizer]:
    return {f"adam.{name}": optimizer for name, optimizer in state.optimizers().items()}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
