"""Every head in the robot's own runtime: accepted, equal to torch, silent without noise, and distributed as it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from head_world import KOLMOGOROV_MAX, RAWS, STOCHASTIC, curve, distribution_of, kolmogorov, normal_distribution
from learner_world import OBS_DIM, contract

from robotsac.config.schema import PolicyConfig
from robotsac.learner.actor import Actor
from robotsac.learner.export import PolicyExporter
from robotsac.learner.heads import Deterministic, Head, TanhMixture
from robotsac.learner.networks import Normaliser, Shape
from robotsac.policy.accept import accept
from robotsac.policy.bundle import ALLOWED_OPERATORS
from robotsac.policy.runner import Policy

pytestmark = pytest.mark.xdist_group("heads_export")
"""One worker: what ``made`` exports, once per head, serves every test here."""

HEADS: dict[str, Head] = {
    **STOCHASTIC,
    "one component": TanhMixture(1, -5.0, 2.0),
    "16 components": TanhMixture(16, -5.0, 2.0),
    "deterministic": Deterministic(0.05),
}
NODES_MAX = 70
"""Each costs under a microsecond per action: the largest graph, about 40 µs more than the Gaussian's."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Exported:
    head: Head
    actor: Actor
    normaliser: Normaliser
    exporter: PolicyExporter

    def policy(self, version: int = 1) -> Policy:
        """As the robot accepts it: every check of ``robotsac.policy.accept``."""
        return accept(self.exporter.bundle(version, 10), self.exporter._contract, PolicyConfig())


def exported(head: Head, act_dim: int) -> Exported:
    actor = Actor(Shape(OBS_DIM, act_dim, (16, 16), "relu"), head, torch.Generator().manual_seed(0))
    normaliser = Normaliser(OBS_DIM)
    exporter = PolicyExporter(normaliser, actor, contract(act_dim=act_dim), "run-1", "digest")
    exporter.prepare()
    return Exported(head, actor, normaliser, exporter)


@pytest.fixture(scope="module", params=list(HEADS))
def made(request: pytest.FixtureRequest) -> Exported:
    return exported(HEADS[request.param], act_dim=2)


def shake(made: Exported, seed: int) -> None:
    """Give every weight and statistic another value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.actor.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
        made.normaliser.mean.uniform_(-1, 1, generator=generator)
        made.normaliser.std.uniform_(0.5, 2, generator=generator)


def test_the_graph_is_small_and_of_operators_that_a_robot_accepts(made: Exported) -> None:
    graph = onnx.load_from_string(made.exporter.bundle(1, 1)).graph
    assert {node.op_type for node in graph.node} <= ALLOWED_OPERATORS
    assert len(graph.node) <= NODES_MAX


def test_a_robot_computes_what_torch_computes_for_any_weights(made: Exported) -> None:
    rng = np.random.default_rng(0)
    for version in (1, 2, 3):
        shake(made, version)
        policy = made.policy(version)
        assert policy.info.noise_dim == 2 * made.head.noises
        for _ in range(100):
            obs = rng.uniform(-3, 3, OBS_DIM).astype(np.float32)
            noise = rng.standard_normal(policy.info.noise_dim).astype(np.float32)
            with torch.no_grad():
                inputs = made.normaliser(torch.from_numpy(obs)[None]), torch.from_numpy(noise)[None]
                expected = made.actor.action(*inputs)[0].numpy()
            assert np.abs(policy.action(obs, noise) - expected).max() < 1e-5


def test_without_noise_a_robot_does_the_deterministic_action(made: Exported) -> None:
    shake(made, 4)
    policy = made.policy()
    obs = np.linspace(-1, 1, OBS_DIM).astype(np.float32)
    with torch.no_grad():
        silent = torch.zeros(1, policy.info.noise_dim)
        expected = made.actor.action(made.normaliser(torch.from_numpy(obs)[None]), silent)[0].numpy()
    assert np.abs(policy.action(obs) - expected).max() < 1e-5
    noise = np.ones(policy.info.noise_dim, dtype=np.float32)
    assert not np.allclose(policy.action(obs, noise), expected, atol=1e-3)


@pytest.mark.parametrize("name", [*STOCHASTIC, "deterministic"])
def test_normal_noise_gives_a_robot_actions_of_the_heads_distribution(name: str) -> None:
    head = HEADS[name]
    made = exported(head, act_dim=1)
    raw = torch.tensor(RAWS[name][1] if name in RAWS else [0.4])
    with torch.no_grad():
        made.actor.last.weight.zero_()
        made.actor.last.bias.copy_(raw)
    policy, rng, obs = made.policy(), np.random.default_rng(1), np.zeros(OBS_DIM, dtype=np.float32)
    noise = rng.standard_normal((20_000, policy.info.noise_dim), dtype=np.float32)
    actions = np.array([policy.action(obs, row)[0] for row in noise], dtype=np.float64)
    if isinstance(head, Deterministic):
        centre, spread = float(torch.tanh(raw)), head.sigma
        statistic = kolmogorov(actions, lambda x: normal_distribution(torch.from_numpy((x - centre) / spread)).numpy())
    else:
        statistic = kolmogorov(actions, distribution_of(*curve(name, raw.double()[None])))
    assert statistic < KOLMOGOROV_MAX


def test_a_golden_row_at_the_edge_between_two_components_is_silenced() -> None:
    # There a robot's rounding may choose the other one, and it would refuse a policy that is right.
    made = exported(TanhMixture(2, -5.0, 2.0), act_dim=1)
    row = made.exporter._noise[5].double()
    before = made.policy().info.golden.arrays()[1]
    below = float(normal_distribution(row[0]))
    with torch.no_grad():
        made.actor.last.weight.zero_()
        made.actor.last.bias[:2] = torch.tensor([below, 1.0 - below]).log()
    after = made.policy(2).info.golden.arrays()[1]
    assert (before[4:] != 0).all()
    assert (after[5] == 0).all()
    assert (after[[4, 6, 7]] == before[[4, 6, 7]]).all()
