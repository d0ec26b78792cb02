"""Prior data: earlier runs' logs give their share of every minibatch, and change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from learner_world import ACT_DIM, OBS_DIM, batches, contract, episode, noisy_run, records, settings, write_log
from test_learner_checkpoint import manifest_of

from robotsac.cli.learn import require_learner
from robotsac.contract import SCHEMA as CONTRACT_SCHEMA
from robotsac.contract import Contract
from robotsac.errors import CheckpointError, ConfigError, RobotsacError, StorageError
from robotsac.learner.algorithm import discount_of
from robotsac.learner.assembler import Assembler
from robotsac.learner.checkpoint import CheckpointFolder, learning_tensors, restore
from robotsac.learner.learning import Learning
from robotsac.learner.prior_data import find_log
from robotsac.learner.replay import Replay
from robotsac.learner.replay_log import ReplayLog
from robotsac.learner.streams import Streams
from robotsac.records import EpisodeEnd, Records, transitions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def marked(steps: int, mark: float, seed: int = 0) -> Records:
    """A run whose observations all begin with ``mark``."""
    run = noisy_run(steps, seed)
    run["obs"][:, 0] = mark
    return run


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """An earlier run's folder."""
    folder = tmp_path / "earlier" / "learner"
    folder.mkdir(parents=True)
    write_log(folder / "replay.db", marked(100, -1.0))
    return folder.parent


def learning_with(*paths: Path, **learn: object) -> Learning:
    return Learning(settings(prior_data=[str(path) for path in paths], **learn), contract(), CPU)


def fed(learning: Learning, steps: int = 60) -> Learning:
    learning.absorb(batches(marked(steps, 1.0, seed=3), 32))
    return learning


# --- what is taken -----------------------------------------------------------------------------------------------


def test_a_run_folder_its_learner_folder_and_the_log_itself_mean_the_same(earlier: Path) -> None:
    log = earlier / "learner" / "replay.db"
    assert [find_log(path) for path in (earlier, earlier / "learner", log)] == [log] * 3


def test_the_ring_of_prior_data_holds_what_the_logs_give_and_the_other_stays_empty(earlier: Path) -> None:
    learning = learning_with(earlier)
    expected = transitions(marked(100, -1.0))
    assert learning.prior is not None and learning.prior.total == len(expected)
    assert (learning.replay.total, learning.assembler.records) == (0, 0)
    batch = learning.prior.sample(4000)
    assert set(batch.reward.tolist()) == set(expected.reward.tolist())
    assert float(batch.obs[:, 0].max()) == -1.0


def test_several_logs_are_read_one_after_the_other_and_no_episode_goes_on_in_the_next(tmp_path: Path) -> None:
    # Same robot, same boot, numbered on: in one log it would be one episode.
    whole = episode(9, EpisodeEnd.SUCCESS)
    for name, part in (("a", whole[:4]), ("b", whole[4:])):
        write_log(tmp_path / f"{name}.db", part)
    learning = learning_with(tmp_path / "a.db", tmp_path / "b.db")
    assert learning.prior is not None and learning.prior.total == 3 + 5
    assert learning.prior_rows == (1, 1)


@pytest.mark.parametrize("n_step", [1, 3])
def test_boots_in_turn_give_what_the_assembler_makes_of_them_row_by_row(tmp_path: Path, n_step: int) -> None:
    rng, at = np.random.default_rng(0), dict.fromkeys([("r", "a"), ("r", "b"), ("s", "a")], 0)
    with ReplayLog(tmp_path / "replay.db") as log:
        log.bind(contract())
        for _ in range(40):
            key = list(at)[rng.integers(3)]
            log.append(*key, noisy_run(300, seed=list(at).index(key))[at[key] : at[key] + 5])
            at[key] += 5
        rows = log.read_after(0, 1000)
    learning = learning_with(tmp_path, n_step=n_step)
    assembler = Assembler(n_step, discount_of(learning._learn, 50))
    generator = torch.Generator().manual_seed(Streams.of(learning._learn.seed).prior)
    ring = Replay(200, OBS_DIM, ACT_DIM, CPU, generator, with_steps=n_step > 1)
    for row in rows:
        ring.append(assembler.add(row)[0])
    assert learning.prior is not None and learning.prior.total == ring.total > 100
    assert torch.equal(learning.prior.sample(500).obs, ring.sample(500).obs)


def test_a_ring_too_small_keeps_the_newest(tmp_path: Path) -> None:
    write_log(tmp_path / "old.db", marked(100, -2.0))
    write_log(tmp_path / "new.db", marked(100, -1.0))
    learning = learning_with(tmp_path / "old.db", tmp_path / "new.db", replay_capacity=50)
    assert learning.prior is not None and len(learning.prior) == 50
    assert set(learning.prior.sample(500).obs[:, 0].tolist()) == {-1.0}


def test_n_step_returns_are_made_of_prior_data_too(earlier: Path) -> None:
    learning = fed(learning_with(earlier, n_step=3))
    batch = learning.samples(1)
    assert batch.steps is not None and len(batch.steps) == 32
    assert float(batch.steps[16:].max()) == 3.0


def test_the_log_is_only_read(earlier: Path) -> None:
    log = earlier / "learner" / "replay.db"
    before = log.read_bytes()
    fed(learning_with(earlier)).update()
    assert log.read_bytes() == before


def test_a_log_that_is_still_being_written_is_taken_as_it_is(tmp_path: Path) -> None:
    run = marked(100, -1.0)
    with ReplayLog(tmp_path / "replay.db") as log:
        log.bind(contract())
        log.append("r", "b", run[:50])
        learning = learning_with(tmp_path)
        log.append("r", "b", run[50:])
    assert learning.prior is not None and learning.prior.total == len(transitions(run[:50]))


# --- the share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "of_prior"), [(0.5, 16), (0.25, 8), (0.9, 29), (0.02, 1)])
def test_every_minibatch_has_the_share(earlier: Path, share: float, of_prior: int) -> None:
    learning = fed(learning_with(earlier, prior_share=share))
    for batch in learning.samples(1).parts(32) + learning.samples(4).parts(32):
        mark = batch.obs[:, 0]
        assert mark.tolist() == [1.0] * (32 - of_prior) + [-1.0] * of_prior


@pytest.mark.parametrize(("share", "size"), [(0.0, 32), (0.01, 32), (0.99, 32), (0.5, 1)])
def test_a_share_that_leaves_no_row_to_either_is_refused(share: float, size: int) -> None:
    with pytest.raises(ValueError, match="prior_share"):
        settings(prior_data=["x"], prior_share=share, batch_size=size)
    assert settings(prior_share=share, batch_size=size).learn.prior_data == ()  # without prior data it does not matter


def test_without_prior_data_all_rows_are_fresh_whatever_the_share() -> None:
    learning = fed(Learning(settings(prior_share=0.9), contract(), CPU))
    assert learning.prior is None
    assert set(learning.samples(1).obs[:, 0].tolist()) == {1.0}


def test_the_limiter_counts_fresh_data_alone(earlier: Path) -> None:
    learning = learning_with(earlier, start_steps=20)
    assert learning.updates_allowed == 0
    assert learning.credit_total == Learning(settings(start_steps=20), contract(), CPU).credit_total
    fed(learning)
    assert learning.updates_allowed == 2 * (learning.replay.total - 20)


# --- what does not fit -------------------------------------------------------------------------------------------


def refusal(*paths: Path, kind: type[RobotsacError] = ConfigError, **learn: object) -> RobotsacError:
    with pytest.raises(kind) as caught:
        learning_with(*paths, **learn)
    error = caught.value
    assert error.message and error.reason and error.command
    return error


def other_log(path: Path, run: Records, other: Contract) -> Path:
    with ReplayLog(path) as log:
        log.bind(other)
        log.append("r", "b", run)
    return path


def test_another_task_is_refused_by_name(tmp_path: Path) -> None:
    log = other_log(tmp_path / "replay.db", noisy_run(20, seed=0), contract(task="hold"))
    error = refusal(tmp_path)
    assert str(log) in error.message
    assert "task is reach here and hold there" in error.reason
    assert error.command == "--set learn.prior_data=[]"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_digest": "other"}, "limits, gains"),
        ({"control_rate_hz": 20}, "control_rate_hz is 50 here and 20 there"),
        ({"task_parameters": {"tolerance_m": "0.01"}}, "task.tolerance_m is not set here and 0.01 there"),
        ({"schema": CONTRACT_SCHEMA, "joint_names": ("a", "b")}, "joint_names"),
    ],
)
def test_whatever_else_differs_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    other = msgspec.structs.replace(contract(), **changed)
    other_log(tmp_path / "replay.db", noisy_run(20, seed=0), other)
    assert words in refusal(tmp_path).reason


def test_logs_of_other_dimensions_are_refused_and_not_read(tmp_path: Path) -> None:
    other_log(tmp_path / "replay.db", records(5, obs_dim=7), contract(obs_dim=7))
    assert "observation" in refusal(tmp_path).reason


def test_one_log_of_several_that_does_not_fit_is_named(earlier: Path, tmp_path: Path) -> None:
    bad = other_log(tmp_path / "bad.db", noisy_run(20, seed=0), contract(task="hold"))
    assert str(bad) in refusal(earlier, bad).message


def test_a_path_without_a_log_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere").message
    assert str(tmp_path) in refusal(tmp_path).message


def test_a_log_without_records_or_transitions_is_refused(tmp_path: Path) -> None:
    with ReplayLog(tmp_path / "unbound.db"):
        pass
    assert "holds no records" in refusal(tmp_path / "unbound.db").message
    with ReplayLog(tmp_path / "empty.db") as log:
        log.bind(contract())
    assert "holds no records" in refusal(tmp_path / "empty.db").message
    write_log(tmp_path / "fault.db", episode(1, EpisodeEnd.FAULT))
    assert "no transition" in refusal(tmp_path / "fault.db").message


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "replay.db").write_bytes(b"not a database, not at all, and for long enough to be read as one" * 20)
    refusal(tmp_path, kind=StorageError)


def test_the_command_line_refuses_before_anything_starts(earlier: Path, tmp_path: Path) -> None:
    require_learner(settings(prior_data=[str(earlier)]).learn)
    with pytest.raises(ConfigError, match="no replay log"):
        require_learner(settings(prior_data=[str(tmp_path / "nowhere")]).learn)


# --- checkpoints -------------------------------------------------------------------------------------------------


def saved(learning: Learning, folder: Path) -> CheckpointFolder:
    prior = learning.prior.total if learning.prior is not None else 0
    manifest = manifest_of(learning, prior_rows=learning.prior_rows, prior_transitions=prior)
    manifest = msgspec.structs.replace(manifest, learn=learning._learn.model_dump(mode="json"))
    checkpoints = CheckpointFolder(folder)
    checkpoints.save(learning_tensors(learning), manifest)
    return checkpoints


def resumed(checkpoints: CheckpointFolder, *paths: Path, **learn: object) -> Learning:
    found = checkpoints.load_latest()
    assert found is not None
    learning = learning_with(*paths, **learn)
    restore(learning, *found)
    return fed(learning)


def after_updates(learning: Learning, updates: int) -> dict[str, torch.Tensor]:
    for _ in range(updates):
        learning.update()
    return learning_tensors(learning)


def test_a_resumed_run_goes_on_bit_for_bit_even_if_the_earlier_run_went_on_meanwhile(
    earlier: Path, tmp_path: Path
) -> None:
    straight = fed(learning_with(earlier))
    after_updates(straight, 10)
    checkpoints = saved(straight, tmp_path / "checkpoints")
    with ReplayLog(earlier / "learner" / "replay.db") as log:
        log.append("r", "another boot", marked(60, -3.0))
    again = resumed(checkpoints, earlier)
    assert again.prior_rows == straight.prior_rows
    one, other = after_updates(straight, 10), after_updates(again, 10)
    assert "generator.prior" in one
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_log_that_is_not_the_one_of_the_checkpoint_is_refused(earlier: Path, tmp_path: Path) -> None:
    checkpoints = saved(fed(learning_with(earlier)), tmp_path / "checkpoints")
    log = earlier / "learner" / "replay.db"
    for steps, size, words in ((40, 32, "ends at row 2, the checkpoint was made with 4"), (200, 7, "transitions")):
        log.unlink()
        write_log(log, marked(steps, -1.0), size)
        with pytest.raises(CheckpointError, match=words):
            resumed(checkpoints, earlier)


def test_it_learns_from_prior_data_what_the_fresh_data_does_not_show(tmp_path: Path) -> None:
    # A bandit whose fresh actions all lie at 0; what 0.5 is worth is in the prior data alone.
    def bandit(steps: int, low: float, high: float) -> Records:
        run = np.concatenate([episode(1, EpisodeEnd.SUCCESS, i + 1, 2 * i) for i in range(steps)])
        run["obs"] = 0.0
        run["action_applied"] = np.random.default_rng(0).uniform(low, high, run["action_applied"].shape)
        run["reward"] = 1.0 - np.square(run["action_applied"] - 0.5).sum(axis=1)
        run["reward"][1::2] = 0.0
        return run

    write_log(tmp_path / "replay.db", bandit(200, -1, 1))
    learning = learning_with(tmp_path, hidden=(32, 32), actor_lr=5e-3, critic_lr=5e-3, temperature=0.01)
    learning.absorb(batches(bandit(200, -0.05, 0.05), 32))
    for _ in range(300):
        learning.update()
    with torch.no_grad():
        found = learning.state.actor.action(torch.zeros(1, 3), torch.zeros(1, 2))[0]
    assert torch.allclose(found, torch.tensor(0.5), atol=0.1)
