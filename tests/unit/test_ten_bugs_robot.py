"""The ten bugs, nine and ten: units, and whether what runs is what was learned. What this is about: ``test_ten_bugs``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from bugs import (
    ALPHA,
    CPU,
    all_rows,
    copy_by_checkpoint,
    known,
    linear,
    q_by_hand,
    run_arm,
    short_episodes,
    some_batch,
    some_noise,
    targets_by_hand,
)  # fmt: skip
from learner_world import OBS_DIM, batches, contract, noisy_run, settings
from torch import Tensor

from robotsac.env.arm_env import ArmEnv
from robotsac.learner.algorithm import update
from robotsac.learner.export import PolicyExporter
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch
from robotsac.learner.replay_log import LoggedBatch
from robotsac.learner.sac import SacState
from robotsac.policy.runner import Policy
from robotsac.policy.slot import PolicySlot
from robotsac.policy.store import BundleStore
from robotsac.records import EpisodeEnd


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def env() -> Iterator[ArmEnv]:
    with short_episodes() as env:
        yield env


# --- 9: units ----------------------------------------------------------------------------------------------------


def action_scale_nm(env: ArmEnv) -> np.ndarray:
    return np.array([joint.action_scale_nm for joint in env.config.robot.joints])


def test_bug_09_an_action_is_its_share_of_the_scale_in_newton_metres(env: ArmEnv) -> None:
    """A scale applied twice, or never, is an arm that is not the one that was learned on."""
    asked = np.array([0.1, -0.2, 0.15, -0.1, 0.2, -0.25])
    env.reset(options={"home": True})
    for _ in range(3):
        info = env.step(asked)[4]
    assert env.last_tick is not None
    np.testing.assert_allclose(env.last_tick.tau_policy, asked * action_scale_nm(env), rtol=0.02)
    np.testing.assert_allclose(info["applied"], asked, rtol=0.02)


def test_bug_09_what_is_learned_from_is_what_the_guard_let_through(env: ArmEnv) -> None:
    """Limits act on the torque; Q of what was only asked for is Q of something that never happened."""
    run = run_arm(env)
    steps = run.records[run.records["end"] == EpisodeEnd.RUNNING]
    assert np.abs(steps["action_asked"] - steps["action_applied"]).max() > 0.1, "no limit acted: this shows nothing"
    learning = Learning(settings(), env.contract, CPU)
    learning.absorb([LoggedBatch(1, "r", "b", run.records)])
    learned = {tuple(row) for row in all_rows(learning).action.tolist()}
    assert learned == {tuple(row) for row in steps["action_applied"].tolist()}
    np.testing.assert_allclose(steps["action_applied"] * action_scale_nm(env), run.tau_policy, atol=1e-5)


def test_bug_09_the_critics_see_actions_and_observations_in_one_scale() -> None:
    """Of replay and policy alike, of s and of s': the same data in other units, normalised, give the same update."""
    plain, scaled, batch = known(), known(), some_batch()
    q = [np.mean(q_by_hand(plain.critic, o, a.tolist())) for o, a in zip(batch.obs, batch.action, strict=True)]
    scaled.normaliser.mean.fill_(2.0)
    scaled.normaliser.std.fill_(10.0)
    other = Batch(batch.obs * 10 + 2, batch.action, batch.reward, batch.next_obs * 10 + 2, batch.terminal)
    metrics = [update(s, b, some_noise(s, len(b))) for s, b in ((plain, batch), (scaled, other))]
    assert float(metrics[0]["q"]) == pytest.approx(np.mean(q), rel=1e-5)
    for name in ("q", "critic_loss", "actor_loss"):
        assert float(metrics[0][name]) == pytest.approx(float(metrics[1][name]), rel=1e-4)
    assert scaled.normaliser.mean.tolist() == [2.0] * OBS_DIM and scaled.normaliser.std.tolist() == [10.0] * OBS_DIM


@dataclass(slots=True)
class Deployment:
    """A learner's state, and the way from its weights to the arm."""

    state: SacState
    exporter: PolicyExporter
    store: BundleStore
    slot: PolicySlot
    prepared: bool = False

    def publish(self, version: int) -> None:
        """Export, publish, and have the robot look."""
        if not self.prepared:  # within a test: what the exporter refuses must fail one, and a fixture is none
            self.exporter.prepare()
            self.prepared = True
        self.store.publish(self.exporter.bundle(version, version), version)
        self.slot.look()

    def action(self, obs: np.ndarray) -> np.ndarray:
        """What torch says: (b, obs_dim) → deterministic (b, act_dim)."""
        with torch.no_grad():
            normalised: Tensor = self.state.normaliser(torch.from_numpy(np.ascontiguousarray(obs)))
            silent = torch.zeros(len(obs), self.state.noise_shape.action)
            return np.asarray(self.state.actor.action(normalised, silent))

    def picked_up(self) -> Policy:
        """What the arm would run now."""
        policy = self.slot.swap()
        assert policy is not None, self.slot.rejection
        return policy


@pytest.fixture(scope="module")
def deployment(env: ArmEnv, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    torch.set_num_threads(1)
    learn, made = settings().learn, env.contract
    state = SacState.create(learn, made.obs_dim, made.act_dim, made.control_rate_hz, CPU)
    exporter = PolicyExporter(state.normaliser, state.actor, made, "run-1", "digest")
    store = BundleStore(tmp_path_factory.mktemp("policies"))
    slot = PolicySlot(store, made, env.config.policy.model_copy(update={"latency_max_ms": 100.0}))
    return Deployment(state, exporter, store, slot)


def shake(state: SacState, seed: int) -> None:
    """Other weights, and statistics that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in state.actor.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
        state.normaliser.mean.uniform_(-1.0, 1.0, generator=generator)
        state.normaliser.std.uniform_(0.5, 2.0, generator=generator)


def test_bug_09_the_arm_runs_the_policy_that_torch_computes(deployment: Deployment, env: ArmEnv) -> None:
    """A normaliser left behind, or a squashing done twice, shows on a thousand observations and on the arm itself."""
    shake(deployment.state, 1)
    deployment.publish(1)
    policy = deployment.picked_up()
    obs = np.random.default_rng(0).uniform(-3.0, 3.0, (1000, env.contract.obs_dim)).astype(np.float32)
    got = np.stack([policy.action(o) for o in obs])
    assert np.abs(got - deployment.action(obs)).max() < 1e-5
    steps = run_arm(env, policy, episodes=1).records[:-1]
    assert np.abs(steps["action_asked"] - deployment.action(steps["obs"])).max() < 1e-5


# --- 10: the run is not the run you think ------------------------------------------------------------------------


def test_bug_10_new_weights_reach_the_arm_under_a_new_version(deployment: Deployment, env: ArmEnv) -> None:
    """An exporter, a store or a slot that keeps an old copy lets the arm run its first policy for ever."""
    for version in (2, 3):
        shake(deployment.state, version)
        deployment.publish(version)
        steps = run_arm(env, deployment.picked_up(), episodes=1).records[:-1]
        assert set(steps["policy_version"].tolist()) == {version}
        assert np.abs(steps["action_asked"] - deployment.action(steps["obs"])).max() < 1e-5


def test_bug_10_counts_are_what_the_configuration_says() -> None:
    """Updates per step silently halved, or an actor that moves at another rate, is another algorithm."""
    learning = Learning(settings(updates_per_step=2.0, start_steps=20, actor_delay=3), contract(), CPU)
    learning.absorb(batches(noisy_run(60, seed=1), 16))
    while learning.updates_allowed:
        learning.update()
    updates = 2 * (learning.replay.total - 20)
    steps = {
        name: {int(state["step"]) for state in adam.state.values()}
        for name, adam in learning.state.optimizers().items()
    }
    assert learning.state.updates == updates > 60
    assert steps == {"critic": {updates}, "actor": {updates // 3}, "alpha": {updates // 3}}


def test_bug_10_targets_move_by_tau_towards_the_critics_once_per_update() -> None:
    """Swapped, the target is a copy and the critic stands still; twice, τ is another τ."""
    state, batch = known(polyak=0.1, actor_delay=2), some_batch()
    for _ in range(4):
        before = [tensor.clone() for tensor in state.target.tensors]
        update(state, batch, some_noise(state, len(batch)))
        for old, new, online in zip(before, state.target.tensors, state.critic.tensors, strict=True):
            assert torch.allclose(new, 0.9 * old + 0.1 * online, atol=1e-6)
        assert not torch.equal(before[0], state.target.tensors[0])


def test_bug_10_alpha_acts_as_it_is_now() -> None:
    """An α that was read once prices entropy as it was when training began."""
    state, batch = known(temperature="auto", temperature_init=0.01), some_batch()
    noise = some_noise(state, len(batch))
    with torch.no_grad():
        state.log_alpha.fill_(float(np.log(ALPHA)))
    y = targets_by_hand(state, batch, noise)
    q = [q_by_hand(state.critic, o, a.tolist()) for o, a in zip(batch.obs, batch.action, strict=True)]
    metrics = update(state, batch, noise)
    assert float(metrics["alpha"]) == pytest.approx(ALPHA)
    loss = sum(0.5 * (q[b][i] - y[b]) ** 2 / len(y) for i in range(2) for b in range(len(y)))
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-5)


def test_bug_10_a_resumed_run_is_the_run_that_went_on() -> None:
    """Adam's moments or a generator begun anew: no error, other weights."""
    learn = linear(temperature="auto", batch_size=16, actor_delay=2)
    run = noisy_run(80, seed=2)
    learning = Learning(settings(**learn), contract(), CPU)
    learning.absorb(batches(run, 16))
    for _ in range(25):
        learning.update()
    resumed = copy_by_checkpoint(learning, **learn)
    resumed.absorb(batches(run, 16))
    for _ in range(25):
        learning.update()
        resumed.update()
    assert learning.state.updates == resumed.state.updates == 50
    for name, module in learning.state.modules().items():
        other = resumed.state.modules()[name].state_dict()
        assert all(torch.equal(tensor, other[key]) for key, tensor in module.state_dict().items()), name
