"""The same learner on a GPU: it updates without reading back, and resumes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from learner_world import batches, contract, noisy_run, settings

from robotsac.learner.checkpoint import learning_tensors, restore
from robotsac.learner.export import PolicyExporter
from robotsac.learner.learning import Learning

from test_learner_checkpoint import manifest_of  # isort: skip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture
def learning() -> Learning:
    made = Learning(settings(), contract(), torch.device("cuda"))
    made.absorb(batches(noisy_run(300, seed=0), 32))
    made.update()
    return made


@pytest.fixture
def sync_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("sync_is_an_error")
def test_an_update_never_waits_for_the_device(learning: Learning) -> None:
    for _ in range(5):
        learning.update()


def test_the_ring_on_the_gpu_holds_what_the_one_on_the_cpu_does_where_it_wraps_and_grows() -> None:
    few = settings(n_step=3, smooth_time=0.1, replay_capacity=100)
    run = batches(noisy_run(500, seed=0, episode_steps=2), 32)
    rings = []
    for device in ("cpu", "cuda"):
        learning = Learning(few, contract(), torch.device(device))
        learning.absorb(run)
        rings.append(learning.replay.rows(learning.replay.oldest, learning.replay.total))
    assert len(rings[0]) == 100 and torch.equal(*rings)


def test_the_exported_policy_is_that_of_the_gpu(learning: Learning) -> None:
    state = learning.state
    exporter = PolicyExporter(state.normaliser, state.actor, contract(), "run-1", "d")
    exporter.prepare()
    assert len(exporter.bundle(1, 1)) > 1000


def test_a_resumed_run_goes_on_as_the_other(learning: Learning) -> None:
    tensors, manifest = learning_tensors(learning), manifest_of(learning)
    again = Learning(settings(), contract(), torch.device("cuda"))
    restore(again, manifest, tensors)
    again.absorb(batches(noisy_run(300, seed=0), 32))
    for _ in range(10):
        learning.update()
        again.update()
    ours, theirs = learning_tensors(learning), learning_tensors(again)
    for name, tensor in ours.items():
        assert torch.allclose(tensor.double(), theirs[name].double(), atol=1e-5), name
