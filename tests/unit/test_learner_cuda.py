"""The same learner on a GPU: its updates are replayed graphs that compute what the reference does, without reading back."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TypeVar

import pytest
import torch
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, batches, contract, noisy_run, settings

from robotsac.config.learn import LearnConfig
from robotsac.learner.algorithm import Algorithm, Noise
from robotsac.learner.backends.backend import Backend, Eager
from robotsac.learner.backends.check import kept
from robotsac.learner.backends.compiled import Compiled
from robotsac.learner.backends.graphed import Graphed
from robotsac.learner.checkpoint import learning_tensors, restore
from robotsac.learner.export import PolicyExporter
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch
from robotsac.learner.variants import create_algorithm

from test_backends import UPDATES, Exact, apart, everything, inputs, learn_of, spared, together  # isort: skip
from test_learner_checkpoint import manifest_of  # isort: skip

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CUDA = torch.device("cuda")
Columns = TypeVar("Columns", Batch, Noise)


def made_learning(**changes: object) -> Learning:
    made = Learning(settings(backend="graphed", **changes), contract(), CUDA)
    made.absorb(batches(noisy_run(300, seed=0), 32))
    made.update()
    return made


@pytest.fixture
def learning() -> Learning:
    return made_learning()


def on_gpu(columns: Columns) -> Columns:
    parts = {field.name: getattr(columns, field.name) for field in dataclasses.fields(columns)}
    return dataclasses.replace(columns, **{name: part.to(CUDA) for name, part in parts.items() if part is not None})


def made_of(name: str, learn: LearnConfig) -> tuple[Algorithm, Backend | Exact]:
    algorithm = create_algorithm(learn, OBS_DIM, ACT_DIM, RATE_HZ, CUDA)
    if name == "graphed":
        return algorithm, Graphed(algorithm, CUDA, lambda: kept(algorithm))
    if name == "compiled":
        return algorithm, Compiled(algorithm, CUDA)
    return algorithm, Exact(algorithm) if name == "exact" else Eager(algorithm)


@pytest.mark.parametrize(
    "changes",
    [{}, {"critics": 10}, {"actor_delay": 3}, {"critic": "batch_norm"}, {"variant": "ddpg"}],
    ids=lambda changes: "-".join(changes) or "sac",
)
def test_a_hundred_updates_are_as_near_to_exact_ones_as_the_reference_is(changes: dict[str, object]) -> None:
    """As of the C++ update, with other noise at each replay; lower quartiles of seven seeds."""
    distances: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in ("graphed", "compiled", "eager")
    }
    for seed in range(7):
        learn = learn_of(**changes, seed=seed)
        found = {}
        for name in (*distances, "exact"):
            algorithm, backend = made_of(name, learn)
            for number in range(UPDATES):
                batch, noise = inputs(algorithm, learn, number)
                backend.update(on_gpu(batch), on_gpu(noise))
            assert algorithm.updates == UPDATES
            found[name] = everything(algorithm)
        for name, off in distances.items():
            for group, distance in apart(found[name], found["exact"]).items():
                off[group].append(distance)
    for name in ("graphed", "compiled"):
        for group, off in distances[name].items():
            eager = distances["eager"][group]
            assert spared(off) <= 5.0 * spared(eager) + 1e-6, (name, group, off, eager)


@pytest.mark.parametrize("actor_delay", [1, 3])
def test_updates_in_one_call_are_those_of_as_many_calls(actor_delay: int) -> None:
    learn = learn_of(actor_delay=actor_delay)
    (at_once, several), (alone, one_by_one) = made_of("graphed", learn), made_of("graphed", learn)
    given = [inputs(at_once, learn, number) for number in range(8)]
    batches, all_noise = together(given)
    got = several.updates(on_gpu(batches), on_gpu(all_noise))
    wanted: dict[str, torch.Tensor] = {}
    for batch, noise in given:
        wanted |= one_by_one.update(on_gpu(batch), on_gpu(noise))
    assert got.keys() == wanted.keys() and at_once.updates == alone.updates == 8
    for name, loss in wanted.items():
        assert torch.allclose(got[name], loss, rtol=1e-4), name


def test_left_to_itself_a_gpu_replays_graphs() -> None:
    assert Learning(settings(), contract(), CUDA).backend.backend.name == "graphed"


@pytest.mark.parametrize(
    "changes",
    [{}, {"critics": 10}, {"actor_delay": 3}, {"critic_dropout": 0.01, "critic_layer_norm": True}],
    ids=lambda changes: "-".join(changes) or "sac",
)
def test_an_update_never_waits_for_the_device(changes: dict[str, object]) -> None:
    learning = made_learning(**changes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            learning.update()
            learning.update(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
    again = Learning(settings(backend="graphed"), contract(), CUDA)
    restore(again, manifest, tensors)
    again.absorb(batches(noisy_run(300, seed=0), 32))
    for _ in range(10):
        learning.update()
        again.update()
    ours, theirs = learning_tensors(learning), learning_tensors(again)
    for name, tensor in ours.items():
        assert torch.allclose(tensor.double(), theirs[name].double(), atol=1e-5), name
