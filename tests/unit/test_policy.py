"""Acceptance of a bundle on the robot: what is refused, and why; what runs, and when."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from robotsac.actor.contract import robot_contract
from robotsac.config import load_config
from robotsac.errors import BundleRejected, StorageError
from robotsac.learner.export import PolicyExporter
from robotsac.learner.sac import SacState
from robotsac.policy.accept import PROBES, accept, read_info, require_bounded
from robotsac.policy.bundle import METADATA_KEY, BundleInfo
from robotsac.policy.onnx_scan import scan
from robotsac.policy.slot import PolicySlot
from robotsac.policy.store import BundleStore
from robotsac.policy.watch import FolderWatch

CONFIG = load_config("arm0-sim")
CONTRACT = robot_contract(CONFIG)
LIMITS = CONFIG.policy


@pytest.fixture(scope="module")
def make_bundle() -> Callable[[int], bytes]:
    """Real bundles of a real actor, as the learner makes them."""
    learn = CONFIG.learn.model_copy(update={"hidden": (32, 32)})
    state = SacState.create(learn, CONTRACT.obs_dim, CONTRACT.act_dim, 50, torch.device("cpu"))
    exporter = PolicyExporter(state.normaliser, state.actor, CONTRACT, "run-1", "digest")
    exporter.prepare()
    return lambda version: exporter.bundle(version, updates=10 * version)


@pytest.fixture(scope="module")
def bundle(make_bundle) -> bytes:
    return make_bundle(1)


def changed(data: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def with_info(data: bytes, **fields) -> bytes:
    info = msgspec.structs.replace(read_info(data), **fields)

    def change(model: onnx.ModelProto) -> None:
        next(item for item in model.metadata_props if item.key == METADATA_KEY).value = info.to_json()

    return changed(data, change)


def refusal(data: bytes, **kwargs) -> str:
    with pytest.raises(BundleRejected) as caught:
        accept(data, CONTRACT, LIMITS, **kwargs)
    return str(caught.value)


def test_a_bundle_of_the_learner_is_accepted_and_computes_its_golden_actions(bundle):
    policy = accept(bundle, CONTRACT, LIMITS, sha256=hashlib.sha256(bundle).hexdigest())
    obs, noise, action = policy.info.golden.arrays()
    for o, z, a in zip(obs, noise, action, strict=True):
        np.testing.assert_allclose(policy.action(o, z), a, atol=1e-5)


def test_without_noise_the_action_is_deterministic(bundle):
    policy = accept(bundle, CONTRACT, LIMITS)
    obs = np.linspace(-1, 1, CONTRACT.obs_dim).astype(np.float32)
    np.testing.assert_array_equal(policy.action(obs), policy.action(obs, np.zeros(6, dtype=np.float32)))
    assert not np.array_equal(policy.action(obs), policy.action(obs, np.ones(6, dtype=np.float32)))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (CONTRACT.obs_dim + 1,), (1, CONTRACT.obs_dim)])
def test_an_observation_of_another_shape_is_refused_and_never_repeated_to_fit(bundle, shape):
    policy = accept(bundle, CONTRACT, LIMITS)
    with pytest.raises(ValueError, match=r"obs has shape .* takes \(34,\)"):
        policy.action(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 6)])
def test_noise_of_another_shape_is_refused_and_never_repeated_to_fit(bundle, shape):
    policy = accept(bundle, CONTRACT, LIMITS)
    with pytest.raises(ValueError, match=r"noise has shape .* takes \(6,\)"):
        policy.action(np.zeros(CONTRACT.obs_dim, dtype=np.float32), np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(bundle, share):
    assert refusal(bundle[: int(share * len(bundle))])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_passes_for_the_file_that_was_announced(bundle, data):
    index = data.draw(st.integers(0, len(bundle) - 1))
    flipped = bytearray(bundle)
    flipped[index] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleRejected):
        accept(bytes(flipped), CONTRACT, LIMITS, sha256=hashlib.sha256(bundle).hexdigest())


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_scanning_garbage_refuses_and_never_crashes(data):
    with pytest.raises(BundleRejected):
        scan(data)


def test_a_file_over_the_size_limit_is_refused_unread(bundle):
    limits = LIMITS.model_copy(update={"size_max_bytes": len(bundle) - 1})
    with pytest.raises(BundleRejected, match="limit"):
        accept(bundle, CONTRACT, limits)


def test_a_plain_onnx_file_is_refused(bundle):
    def strip(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]

    assert "no robotsac metadata" in refusal(changed(bundle, strip))


@pytest.mark.parametrize(
    "overrides", [["task.history_steps=3"], ["task.tolerance_m=0.01"], ["robot.control_rate_hz=25"]]
)
def test_a_policy_for_another_robot_or_task_is_refused_in_words(bundle, overrides):
    other = robot_contract(load_config("arm0-sim", overrides=overrides))
    with pytest.raises(BundleRejected, match="another robot or task"):
        accept(bundle, other, LIMITS)


@pytest.mark.parametrize(("version", "newer"), [(5, False), (6, False), (4, True)])
def test_an_older_or_equal_version_of_the_same_run_is_refused(make_bundle, version, newer):
    data = make_bundle(5)
    if newer:
        accept(data, CONTRACT, LIMITS, newer_than=("run-1", version))
    else:
        assert "not newer" in refusal(data, newer_than=("run-1", version))
    accept(data, CONTRACT, LIMITS, newer_than=("another run", 99))


def _loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["a", "b"], ["c"]))


def _custom(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["a"], ["c"], domain="com.evil"))


def _random(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["c"], shape=[1]))


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _function(model: onnx.ModelProto) -> None:
    model.functions.add().name = "f"


def _nested(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", graph))


def _newer_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def _newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def _extra_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_loop, "Loop"),
        (_custom, "com.evil"),
        (_random, "RandomNormal"),
        (_external, "external data"),
        (_function, "functions"),
        (_nested, "nested graph"),
        (_newer_ir, "IR version"),
        (_newer_opset, "opset"),
        (_extra_input, "more"),
    ],
)
def test_what_a_policy_has_no_use_for_is_refused_before_it_is_loaded(bundle, change, words):
    assert words in refusal(changed(bundle, change))


def _poisoned(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda item: len(item.raw_data))
        array = np.frombuffer(tensor.raw_data, dtype=np.float32).copy()
        array[:] = value
        tensor.raw_data = array.tobytes()

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_weights_that_are_not_the_learners_are_refused(bundle, value):
    assert refusal(changed(bundle, _poisoned(value)))


def test_golden_samples_that_do_not_fit_are_refused(bundle):
    golden = read_info(bundle).golden
    assert refusal(with_info(bundle, golden=msgspec.structs.replace(golden, count=golden.count - 1)))
    assert refusal(with_info(bundle, golden=msgspec.structs.replace(golden, obs="not base64!")))


def test_a_policy_that_is_too_slow_is_refused(bundle):
    with pytest.raises(BundleRejected, match="ms"):
        accept(bundle, CONTRACT, LIMITS.model_copy(update={"latency_max_ms": 1e-9}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.0 + 2e-5, -1.0 - 2e-5])
def test_a_single_action_that_is_not_one_is_refused(bundle, monkeypatch, value):
    policy, good = accept(bundle, CONTRACT, LIMITS), np.zeros(6, dtype=np.float32)
    actions = iter([good] * (PROBES - 1) + [np.array([0, 0, value, 0, 0, 0], dtype=np.float32)])
    monkeypatch.setattr(policy, "action", lambda obs, noise: next(actions))
    with pytest.raises(BundleRejected, match="gives the action"):
        require_bounded(policy)


def test_an_action_a_hair_past_one_is_rounding(bundle, monkeypatch):
    policy = accept(bundle, CONTRACT, LIMITS)
    monkeypatch.setattr(policy, "action", lambda obs, noise: np.full(6, 1.0 + 5e-6, dtype=np.float32))
    assert 0.0 < require_bounded(policy) < 1000.0, "ms of one action"


def test_metadata_from_a_newer_schema_is_refused(bundle):
    assert "schema" in refusal(with_info(bundle, schema=2))


# ---- store and slot --------------------------------------------------------------------------------------------------


def test_the_store_shows_only_whole_files_and_keeps_the_newest(tmp_path):
    store = BundleStore(tmp_path / "policies", keep=3)
    assert store.latest() is None
    for version in range(1, 8):
        entry = store.publish(bytes([version]) * 100, version)
        assert store.latest() == entry
        assert store.read(entry) == bytes([version]) * 100
    assert len(list((tmp_path / "policies").glob("policy-*.onnx"))) == 3
    assert not list((tmp_path / "policies").glob(".*.tmp"))


def test_another_run_begins_without_a_policy_and_the_same_run_keeps_its_own(tmp_path):
    store = BundleStore(tmp_path)
    store.begin_run("one")
    entry = store.publish(b"abc", 7)
    store.begin_run("one")
    assert store.latest() == entry
    store.begin_run("two")
    assert store.latest() is None
    assert store.publish(b"def", 1) == store.latest()


def test_the_store_refuses_bytes_that_changed_on_disk(tmp_path):
    store = BundleStore(tmp_path)
    entry = store.publish(b"abc", 1)
    (tmp_path / entry.file).write_bytes(b"abd")
    with pytest.raises(StorageError, match="sha256"):
        store.read(entry)


def test_the_slot_swaps_on_request_and_keeps_the_previous(tmp_path, make_bundle):
    store = BundleStore(tmp_path)
    slot = PolicySlot(BundleStore(tmp_path), CONTRACT, LIMITS)
    assert slot.swap() is None
    store.publish(make_bundle(1), 1)
    assert slot.look()
    assert slot.current is None, "nothing changes before the loop asks"
    assert slot.swap().version == 1
    store.publish(make_bundle(2), 2)
    slot.look()
    assert slot.swap().version == 2
    assert slot.previous.version == 1
    assert slot.rollback().version == 1
    assert slot.swap().version == 1, "a rollback stays until something newer comes"


def test_the_slot_keeps_the_policy_in_use_when_a_new_one_is_refused(tmp_path, make_bundle):
    store = BundleStore(tmp_path)
    slot = PolicySlot(BundleStore(tmp_path), CONTRACT, LIMITS, tmp_path / "refused.txt")
    store.publish(make_bundle(1), 1)
    slot.look()
    store.publish(make_bundle(2)[:-100], 2)
    slot.look()
    assert "policy 2" in (tmp_path / "refused.txt").read_text()
    assert slot.swap().version == 1
    assert slot.counters.rejected == 1
    assert "policy 2" in slot.rejection
    assert not slot.look(), "the same file is not tried again"


def test_a_policy_that_arrives_is_taken_at_once(tmp_path, make_bundle, monkeypatch):
    monkeypatch.setattr("robotsac.policy.slot.POLL_S", 30.0)
    slot = PolicySlot(
        BundleStore(tmp_path / "policies"), CONTRACT, LIMITS.model_copy(update={"latency_max_ms": 1000.0})
    )
    slot.start()
    try:
        begin_s = time.monotonic()
        # The thread may not watch yet when the first one arrives; then it finds it with its first look.
        BundleStore(tmp_path / "policies").publish(make_bundle(1), 1)
        while slot.swap() is None:
            assert time.monotonic() - begin_s < 20.0, "it waited for its next look"
        BundleStore(tmp_path / "policies").publish(make_bundle(2), 2)
        while slot.swap().version != 2:
            assert time.monotonic() - begin_s < 20.0, "it waited for its next look"
    finally:
        monkeypatch.setattr("robotsac.policy.slot.POLL_S", 0.0)
        BundleStore(tmp_path / "policies").publish(b"wakes it up", 3)
        slot.stop()


def test_a_watch_tells_of_what_is_renamed_into_the_folder_once(tmp_path):
    with FolderWatch(tmp_path / "not" / "there" / "yet") as watch:
        assert watch.fd >= 0
        (tmp_path / "file").touch()
        (tmp_path / "file").rename(tmp_path / "not" / "there" / "yet" / "file")
        begin_s = time.monotonic()
        watch.wait(30.0)
        assert time.monotonic() - begin_s < 20.0
        with pytest.raises(BlockingIOError):
            os.read(watch.fd, 1000)
        watch.wait(0.0)
    watch.close()


def test_a_watch_that_cannot_tell_is_waited_for_all_the_same(tmp_path):
    (tmp_path / "file").touch()
    with FolderWatch(tmp_path / "file") as watch:
        assert watch.fd == -1
        begin_s = time.monotonic()
        watch.wait(0.01)
        watch.clear()
        assert time.monotonic() - begin_s >= 0.01


def test_info_survives_its_json(bundle):
    info = read_info(bundle)
    assert BundleInfo.from_json(info.to_json()) == info
