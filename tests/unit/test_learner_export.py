"""Export: what the robot gets is the policy that was trained, and nothing that it would refuse."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, contract, settings

from robotsac.config.schema import PolicyConfig
from robotsac.learner.export import ExportError, PolicyExporter
from robotsac.learner.sac import SacState
from robotsac.policy.accept import accept
from robotsac.policy.bundle import ALLOWED_OPERATORS, METADATA_KEY, ONNX_IR_VERSION, ONNX_OPSET, BundleInfo

CPU = torch.device("cpu")


def exporter_of(**learn: object) -> tuple[SacState, PolicyExporter]:
    state = SacState.create(settings(**learn).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)
    exporter = PolicyExporter(state.normaliser, state.actor, contract(), "run-1", "digest")
    exporter.prepare()
    return state, exporter


@pytest.fixture(scope="module", params=["relu", "silu", "tanh"])
def made(request: pytest.FixtureRequest) -> tuple[SacState, PolicyExporter]:
    return exporter_of(activation=request.param)


def shake(state: SacState, seed: int) -> None:
    """Give every weight and statistic another value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in state.actor.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
        state.normaliser.mean.uniform_(-1, 1, generator=generator)
        state.normaliser.std.uniform_(0.5, 2, generator=generator)


def test_onnxruntime_computes_what_torch_computes_for_any_weights(made: tuple[SacState, PolicyExporter]) -> None:
    state, exporter = made
    rng = np.random.default_rng(0)
    for version in range(1, 4):
        shake(state, version)
        session = onnxruntime.InferenceSession(exporter.bundle(version, 10), providers=["CPUExecutionProvider"])
        for _ in range(100):
            obs = rng.uniform(-3, 3, (1, OBS_DIM)).astype(np.float32)
            noise = rng.standard_normal((1, ACT_DIM)).astype(np.float32)
            with torch.no_grad():
                expected = state.actor.action(state.normaliser(torch.from_numpy(obs)), torch.from_numpy(noise)).numpy()
            got = session.run(["action"], {"obs": obs, "noise": noise})[0]
            assert got.shape == (1, ACT_DIM)
            assert np.abs(got - expected).max() < 1e-5


def test_the_robot_accepts_a_bundle(made: tuple[SacState, PolicyExporter]) -> None:
    _, exporter = made
    data = exporter.bundle(5, 100)
    policy = accept(data, contract(), PolicyConfig(), sha256=hashlib.sha256(data).hexdigest())
    assert policy.info.version == 5


def test_the_graph_is_small_pinned_self_contained_and_of_allowed_operators(
    made: tuple[SacState, PolicyExporter],
) -> None:
    state, exporter = made
    data = exporter.bundle(1, 1)
    model = onnx.load_model_from_string(data)
    weights = sum(t.numel() * 4 for t in state.actor.state_dict().values())
    assert len(data) < weights + 8_000
    assert {node.op_type for node in model.graph.node} <= ALLOWED_OPERATORS
    assert model.ir_version == ONNX_IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", ONNX_OPSET)]
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)
    assert len(model.functions) == 0


def test_the_graph_says_nothing_about_the_machine_it_was_made_on(made: tuple[SacState, PolicyExporter]) -> None:
    data = made[1].bundle(1, 1)
    assert b"site-packages" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


def test_metadata_is_the_contract_and_golden_samples_with_half_of_them_deterministic(
    made: tuple[SacState, PolicyExporter],
) -> None:
    state, exporter = made
    model = onnx.load_model_from_string(exporter.bundle(7, 1234))
    (prop,) = model.metadata_props
    assert prop.key == METADATA_KEY
    info = BundleInfo.from_json(prop.value)
    assert (info.version, info.updates, info.run_id, info.noise_dim) == (7, 1234, "run-1", ACT_DIM)
    assert info.contract == contract()
    obs, noise, action = info.golden.arrays()
    assert len(obs) == 8
    assert (noise[:4] == 0).all() and (noise[4:] != 0).all()
    with torch.no_grad():
        mean, _ = state.actor(state.normaliser(torch.from_numpy(obs.copy()))).chunk(2, dim=1)
    assert np.allclose(np.tanh(mean[:4].numpy()), action[:4], atol=1e-6)


def test_a_bundle_is_a_snapshot(made: tuple[SacState, PolicyExporter]) -> None:
    state, exporter = made
    before = exporter.bundle(1, 1)
    assert exporter.bundle(1, 1) == before
    shake(state, 77)
    assert exporter.bundle(1, 1) != before


def test_a_policy_that_is_not_finite_is_not_exported() -> None:
    state, exporter = exporter_of()
    with torch.no_grad():
        state.actor.last.bias[0] = float("nan")
    with pytest.raises(ExportError, match="not finite"):
        exporter.bundle(1, 1)


def test_a_wrong_mapping_of_names_is_found_out() -> None:
    _, exporter = exporter_of()
    table = exporter._initializers
    one, other = "actor.layers.0.bias", "actor.layers.1.bias"
    table[one], table[other] = table[other], table[one]
    exporter._snapshot_live()
    with pytest.raises(ExportError, match="differs from torch"):
        exporter._require_parity("with two names swapped")


def test_a_version_costs_a_small_part_of_the_export() -> None:
    begin = time.perf_counter()
    _, exporter = exporter_of(hidden=(256, 256))
    once = time.perf_counter() - begin
    times = []
    for version in range(1, 21):
        begin = time.perf_counter()
        exporter.bundle(version, 1)
        times.append(time.perf_counter() - begin)
    assert min(times) < once / 20  # the graph is traced once; about 1/500 measured
