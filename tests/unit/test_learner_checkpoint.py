"""Checkpoints: the resumed run is the run that was not interrupted, or it does not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from learner_world import contract, noisy_run, settings, write_log

from robotsac.errors import CheckpointError
from robotsac.learner.checkpoint import (
    SCHEMA,
    CheckpointFolder,
    Manifest,
    learning_tensors,
    require_same_run,
    restore,
)
from robotsac.learner.learning import Learning
from robotsac.learner.replay_log import ReplayLog
from robotsac.learner.sealed import MANIFEST_FILE, TENSORS_FILE

HERE = Path(__file__).parent
CPU = torch.device("cpu")
FIRST_ROWS, FIRST_UPDATES, ALL_ROWS, FURTHER_UPDATES = 6, 25, 12, 30
LEARN: dict[str, Any] = {"replay_capacity": 150, "actor_delay": 2}  # the ring wraps before the checkpoint


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    path = tmp_path / "replay.db"
    write_log(path, noisy_run(380, seed=2))
    return path


def new_learning(**learn: object) -> Learning:
    return Learning(settings(**LEARN | learn), contract(), CPU)


def absorb_until(learning: Learning, log_path: Path, row: int) -> None:
    with ReplayLog(log_path, read_only=True) as log:
        learning.absorb([batch for batch in log.read_after(learning.row, 1000) if batch.row <= row])


def manifest_of(learning: Learning, **changed: object) -> Manifest:
    manifest = Manifest(
        schema=SCHEMA,
        run_id="run-1",
        updates=learning.state.updates,
        transitions=learning.replay.total,
        records=learning.assembler.records,
        env_steps=learning.assembler.env_steps,
        replay_row=learning.row,
        policy_version=4,
        wall_s=1.5,
        device="cpu",
        learn=settings(**LEARN).learn.model_dump(mode="json"),
        config_digest="d",
        contract=contract(),
        versions={},
        tensors_sha256="",
    )
    return msgspec.structs.replace(manifest, **changed)


def first_half(log_path: Path, folder: Path) -> Learning:
    learning = new_learning()
    absorb_until(learning, log_path, FIRST_ROWS)
    for _ in range(FIRST_UPDATES):
        learning.update()
    CheckpointFolder(folder).save(learning_tensors(learning), manifest_of(learning))
    return learning


def second_half(learning: Learning, log_path: Path) -> dict[str, torch.Tensor]:
    absorb_until(learning, log_path, ALL_ROWS)
    for _ in range(FURTHER_UPDATES):
        learning.update()
    return learning_tensors(learning)


def resumed(log_path: Path, folder: Path) -> Learning:
    found = CheckpointFolder(folder).load_latest()
    assert found is not None
    learning = new_learning()
    restore(learning, *found)
    absorb_until(learning, log_path, found[0].replay_row)
    return learning


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_learner_checkpoint import first_half

learning = first_half(Path(sys.argv[1]), Path(sys.argv[2]))
learning.update()  # lost with the process
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_was_killed_and_resumed_is_bit_for_bit_the_run_that_was_not(log_path: Path, tmp_path: Path) -> None:
    straight = second_half(first_half(log_path, tmp_path / "a"), log_path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(log_path), str(tmp_path / "b")],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    again = resumed(log_path, tmp_path / "b")
    assert again.state.updates == FIRST_UPDATES
    continued = second_half(again, log_path)
    assert continued.keys() == straight.keys()
    differing = [name for name in straight if not torch.equal(straight[name], continued[name])]
    assert differing == []


def test_a_checkpoint_holds_all_that_an_update_reads_or_changes(log_path: Path) -> None:
    learning = new_learning()
    absorb_until(learning, log_path, ALL_ROWS)
    for _ in range(2):
        learning.update()
    before = learning_tensors(learning)
    for _ in range(2):
        learning.update()
    after = learning_tensors(learning)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"normaliser.mean", "normaliser.std"}
    groups = {name.split(".")[0] for name in before}
    assert groups == {"normaliser", "actor", "critic", "target", "log_alpha", "generator", "adam"}


def test_tensors_of_a_checkpoint_are_copies(log_path: Path) -> None:
    learning = new_learning()
    absorb_until(learning, log_path, ALL_ROWS)
    kept = learning_tensors(learning)
    before = {name: tensor.clone() for name, tensor in kept.items()}
    learning.update()
    assert all(torch.equal(kept[name], before[name]) for name in kept)


def test_a_checkpoint_before_the_first_update_can_be_resumed(log_path: Path, tmp_path: Path) -> None:
    learning = new_learning()
    absorb_until(learning, log_path, FIRST_ROWS)
    CheckpointFolder(tmp_path / "c").save(learning_tensors(learning), manifest_of(learning))
    straight = second_half(learning, log_path)
    continued = second_half(resumed(log_path, tmp_path / "c"), log_path)
    assert all(torch.equal(straight[name], continued[name]) for name in straight)


def test_the_newest_are_kept_and_nothing_half_written_stays(log_path: Path, tmp_path: Path) -> None:
    learning = new_learning()
    absorb_until(learning, log_path, ALL_ROWS)
    folder = CheckpointFolder(tmp_path / "c", keep=2)
    assert folder.load_latest() is None
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".checkpoint-0000000001-0000000001.99.tmp").mkdir()
    for _ in range(4):
        learning.update()
        folder.save(learning_tensors(learning), manifest_of(learning))
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["checkpoint-0000000003-0000000012", "checkpoint-0000000004-0000000012"]
    found = folder.load_latest()
    assert found is not None and found[0].updates == 4


@pytest.mark.parametrize("broken", ["flipped", "short", "no tensors", "no manifest", "other schema"])
def test_a_damaged_checkpoint_is_refused_by_name(log_path: Path, tmp_path: Path, broken: str) -> None:
    first_half(log_path, tmp_path / "c")
    folder = CheckpointFolder(tmp_path / "c")
    (path,) = folder.paths()
    tensors, manifest = path / TENSORS_FILE, path / MANIFEST_FILE
    data = bytearray(tensors.read_bytes())
    if broken == "flipped":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif broken == "short":
        tensors.write_bytes(data[:-4])
    elif broken == "no tensors":
        tensors.unlink()
    elif broken == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes().replace(b'"schema": 2', b'"schema": 1', 1))
    with pytest.raises(CheckpointError, match=r"checkpoint-0000000025-0000000006 is damaged"):
        folder.load_latest()


def test_what_differs_is_named_all_at_once(log_path: Path) -> None:
    learning = new_learning()
    manifest = manifest_of(learning)
    require_same_run(manifest, "run-1", settings(**LEARN).learn, contract(), "cpu")
    with pytest.raises(CheckpointError) as refused:
        require_same_run(
            manifest, "run-2", settings(**LEARN, critic_lr=1.0, hidden=(8,)).learn, contract(task="hold"), "cuda"
        )
    for words in ("run-2", ", now 1.0; learn.hidden", "learn.hidden was [16, 16]", "task is", "now cuda"):
        assert words in refused.value.reason


def test_how_the_machine_is_used_may_change(log_path: Path) -> None:
    learn = settings(**LEARN, threads=2, nice=0, publish_every_s=3.0, checkpoints_kept=5).learn
    require_same_run(manifest_of(new_learning()), "run-1", learn, contract(), "cpu")


def test_tensors_that_do_not_fit_are_refused_by_name(log_path: Path) -> None:
    learning = new_learning()
    tensors = learning_tensors(learning)
    missing = {name: tensor for name, tensor in tensors.items() if name != "log_alpha"}
    with pytest.raises(CheckpointError) as refused:
        restore(new_learning(), manifest_of(learning), missing)
    assert "log_alpha" in refused.value.reason
    with pytest.raises(CheckpointError) as refused:
        restore(new_learning(hidden=(8, 8)), manifest_of(learning), tensors)
    assert "actor.layers.0.weight" in refused.value.reason


@pytest.mark.parametrize("lost", ["adam.critic.0.exp_avg_sq", "adam.critic.0.", "adam.actor.0.step"])
def test_half_of_an_optimizers_state_is_refused_by_name(log_path: Path, lost: str) -> None:
    """With fresh moments beside old ones, or none of one parameter's, Adam would go on as nobody has seen it go."""
    learning = new_learning()
    absorb_until(learning, log_path, ALL_ROWS)
    for _ in range(2):
        learning.update()
    tensors = {name: tensor for name, tensor in learning_tensors(learning).items() if not name.startswith(lost)}
    with pytest.raises(CheckpointError) as refused:
        restore(new_learning(), manifest_of(learning), tensors)
    assert lost in refused.value.reason


# --- every variant and option ------------------------------------------------------------------------------------

SILU = {"activation": "silu"}
OPTIONS: dict[str, dict[str, Any]] = {
    "sac": {},
    "fixed temperature": {"temperature": 0.2},
    "sac v1": {"variant": "sac_v1"},
    "sac v1, fixed, score": {"variant": "sac_v1", "temperature": 0.2, "policy_gradient": "score"},
    "ddpg": {"variant": "ddpg"},
    "ddpg, one critic": {"variant": "ddpg", "critics": 1},
    "mixture": {"head": "mixture"},
    "beta": {"head": "beta"},
    "score": {"policy_gradient": "score"},
    "consensus": SILU | {"correction": "consensus", "actor_delay": 1},
    "symplectic": SILU | {"correction": "symplectic", "correction_normalised": True, "actor_delay": 1},
    "redq": {"critics": 5, "critic_subset": 2},
    "droq": {"critic_dropout": 0.1, "actor_delay": 3},
    "batch norm": {"critic": "batch_norm"},
    "n step": {"n_step": 4},
    "normalised observations": {"normalise_obs": True},
    "smooth": {"smooth_time": 0.5, "smooth_space": 0.5},
    "smooth, n step": {"smooth_time": 0.5, "n_step": 3},
    "smooth ddpg": {"variant": "ddpg", "smooth_time": 0.5, "smooth_space": 0.5},
    "prior data": {"prior_data": "here"},
    "prior data, n step, redq": {"prior_data": "here", "n_step": 3, "critics": 4, "prior_share": 0.25},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_is_configured_a_resumed_run_is_the_run_that_was_not_interrupted(
    name: str, log_path: Path, tmp_path: Path
) -> None:
    learn = {"hidden": (8, 8), "batch_size": 16} | OPTIONS[name]
    if "prior_data" in learn:
        write_log(tmp_path / "earlier.db", noisy_run(100, seed=9))
        learn["prior_data"] = [str(tmp_path / "earlier.db")]
    straight = new_learning(**learn)
    absorb_until(straight, log_path, FIRST_ROWS)
    for _ in range(7):
        straight.update()
    prior = straight.prior.total if straight.prior is not None else 0
    saved = manifest_of(straight, prior_rows=straight.prior_rows, prior_transitions=prior)
    CheckpointFolder(tmp_path / "c").save(learning_tensors(straight), saved)

    found = CheckpointFolder(tmp_path / "c").load_latest()
    assert found is not None
    again = new_learning(**learn)
    restore(again, *found)
    absorb_until(again, log_path, found[0].replay_row)
    assert (again.replay.total, again.state.updates) == (straight.replay.total, 7)
    for learning in (straight, again):
        absorb_until(learning, log_path, ALL_ROWS)
        for _ in range(8):
            learning.update()
    one, other = learning_tensors(straight), learning_tensors(again)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert not torch.equal(one["actor.last.weight"], found[1]["actor.last.weight"])


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("prior data", "prior data, n step, redq")])
def test_a_checkpoint_holds_every_network_optimizer_and_scalar(name: str, log_path: Path) -> None:
    learning = new_learning(**{"hidden": (8, 8), "batch_size": 16} | OPTIONS[name])
    absorb_until(learning, log_path, FIRST_ROWS)
    for _ in range(6):
        learning.update()
    state, tensors = learning.state, learning_tensors(learning)
    groups = {key.split(".")[0] for key in tensors} - {"generator", "adam"}
    assert groups == state.modules().keys() | state.scalars().keys()
    moved = {key.split(".")[1] for key in tensors if key.startswith("adam.")}
    fixed = {"alpha"} if "temperature" in OPTIONS[name] else set()
    assert moved == state.optimizers().keys() - fixed
