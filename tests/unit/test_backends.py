"""Speed never buys other results: each backend against the reference, from fresh weights and from a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from algorithm_world import weights
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, batches, contract, noisy_run, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robotsac.config.learn import LearnConfig
from robotsac.errors import ConfigError
from robotsac.learner import device
from robotsac.learner.algorithm import Algorithm, Noise, actor_due
from robotsac.learner.backends import Backend, Eager, choice, choose_backend
from robotsac.learner.backends.backend import BackendUnavailable
from robotsac.learner.backends.check import Trial, difference, kept
from robotsac.learner.backends.choice import require_backend
from robotsac.learner.backends.compiled import Compiled
from robotsac.learner.backends.native import Native, build, has_bfloat16, why_not
from robotsac.learner.checkpoint import restore_state, state_tensors
from robotsac.learner.learning import Learning
from robotsac.learner.replay import Batch
from robotsac.learner.variants import create_algorithm

CPU = torch.device("cpu")
UPDATES = 100

Make = Callable[[Algorithm, LearnConfig], Backend]
MAKERS: dict[str, Make] = {
    "eager": lambda algorithm, learn: Eager(algorithm),
    "native": lambda algorithm, learn: Native(algorithm, learn, learn.threads),
    "native_bfloat16": lambda algorithm, learn: Native(algorithm, learn, learn.threads, reduced=True),
    "compiled": lambda algorithm, learn: Compiled(algorithm, CPU),
    "compiled_bfloat16": lambda algorithm, learn: Compiled(algorithm, CPU, reduced=True),
}

HAS_BFLOAT16 = has_bfloat16()
NATIVE_BFLOAT16 = pytest.param(
    "native_bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX-512 BF16 here")
)

NATIVE: dict[str, dict[str, object]] = {
    "as it comes": {},
    "bare": {"critic_layer_norm": False, "smooth_time": 0.0, "n_step": 1},
    "ten critics, two in the target": {"critics": 10},
    "one critic": {"critics": 1},
    "temperature fixed": {"temperature": 0.1},
    "actor delayed": {"actor_delay": 3},
    "smooth in time and space": {"smooth_space": 0.2, "smooth_time": 0.3},
    "smooth in time, one step": {"smooth_time": 0.3, "n_step": 1},
    "smooth in space alone": {"smooth_space": 0.2, "smooth_time": 0.0},
    "widths that fill no panel": {"hidden": (20, 33, 7), "critic_hidden": (45, 18)},
    "one layer": {"hidden": (40,)},
    "a batch that fills no tile": {"batch_size": 77},
    "a batch smaller than a tile": {"batch_size": 3},
    "wide": {"critic_hidden": (300, 300), "critic_layer_norm": False},
    "three threads": {"threads": 3, "batch_size": 256},
    "batch_norm": {"critic": "batch_norm"},
    "batch_norm, actor delayed": {"critic": "batch_norm", "actor_delay": 3, "n_step": 1, "smooth_time": 0.0},
    "batch_norm, wide and many": {
        "critic": "batch_norm",
        "critic_hidden": (80, 50, 33),
        "critics": 4,
        "critic_subset": 2,
        "batch_size": 130,
    },
}


def learn_of(**changes: object) -> LearnConfig:
    return settings(**({"hidden": (64, 48), "batch_size": 64, "n_step": 3, "smooth_time": 0.1} | changes)).learn


def fresh(learn: LearnConfig) -> Algorithm:
    return create_algorithm(learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)


def inputs(algorithm: Algorithm, learn: LearnConfig, seed: int) -> tuple[Batch, Noise]:
    """As the replay gives them: rows of one wide tensor."""
    generator = torch.Generator().manual_seed(seed)
    rows, after = learn.batch_size, learn.n_step > 1 and learn.smooth_time > 0
    wide = torch.randn(rows, 3 * OBS_DIM + ACT_DIM + 3, generator=generator)
    obs, next_obs, later, action, reward, terminal, steps = wide.split([OBS_DIM] * 3 + [ACT_DIM, 1, 1, 1], dim=1)
    batch = Batch(
        obs=obs,
        action=action.tanh_(),
        reward=reward[:, 0],
        next_obs=next_obs,
        terminal=terminal.gt(1.5).float()[:, 0],
        steps=steps.gt(0.0).float()[:, 0] + 1.0 if learn.n_step > 1 else None,
        after=later if after else None,
    )
    return batch, algorithm.noise_shape.draw(rows, generator)


def together(given: list[tuple[Batch, Noise]]) -> tuple[Batch, Noise]:
    """Batches and noise of several updates as a backend takes them."""

    def columns(of: type, parts: list[Any], put: Callable[..., torch.Tensor]) -> dict[str, torch.Tensor | None]:
        names = [field.name for field in dataclasses.fields(of)]
        found = {name: [getattr(part, name) for part in parts] for name in names}
        return {name: None if column[0] is None else put(column) for name, column in found.items()}

    batches, noise = zip(*given, strict=True)
    return Batch(**columns(Batch, batches, torch.cat)), Noise(**columns(Noise, noise, torch.stack))


def train(backend: Backend, algorithm: Algorithm, learn: LearnConfig, first: int, end: int) -> list[dict[str, float]]:
    """Updates number ``first`` to ``end`` - 1; their losses."""
    made = []
    for seed in range(first, end):
        metrics = backend.update(*inputs(algorithm, learn, seed))
        made.append({name: float(value) for name, value in metrics.items()})
    return made


def everything(algorithm: Algorithm) -> dict[str, Tensor]:
    """Weights, targets, buffers, temperature, moments and counts of steps."""
    return state_tensors(algorithm, {})


def in_double(columns: Batch | Noise) -> dict[str, Tensor]:
    parts = {field.name: getattr(columns, field.name) for field in dataclasses.fields(columns)}
    return {
        name: part.double() if part.is_floating_point() else part for name, part in parts.items() if part is not None
    }


class Exact:
    """The reference in float64: what float32 is measured against."""

    name = "exact"

    def __init__(self, algorithm: Algorithm) -> None:
        for module in algorithm.modules().values():
            module.double()
        for scalar in algorithm.scalars().values():
            scalar.data = scalar.data.double()
        self._eager = Eager(algorithm)

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        exact_batch, exact_noise = in_double(batch), in_double(noise)
        return self._eager.update(dataclasses.replace(batch, **exact_batch), dataclasses.replace(noise, **exact_noise))


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """The mean distance of each group of tensors: critic, target, actor, and the moments of each."""
    assert one.keys() == other.keys()
    groups: dict[str, list[Tensor]] = {}
    for name in one:
        off = (one[name].double() - other[name].double()).abs().flatten()
        kind = name.rsplit(".", 1)[-1] if name.startswith("adam") else ""
        groups.setdefault(f"{name.split('.')[0]}.{name.split('.')[1] if '.' in name else ''}.{kind}", []).append(off)
    return {name: float(torch.cat(parts).mean()) for name, parts in groups.items()}


def spared(distances: Sequence[float]) -> float:
    """The lower quartile: of one run its own, of seven the second."""
    return sorted(distances)[len(distances) // 4]


@pytest.mark.parametrize("changes", NATIVE.values(), ids=NATIVE)
def test_a_hundred_native_updates_are_as_near_to_exact_ones_as_the_reference_is(changes: dict[str, object]) -> None:
    """Rounding errors of two orders of summing are of one size; of few numbers now and then one has luck.

    A unit that rounding puts on the other side of its kink sets a run apart by a hundred times as much. Normalised over the
    batch it carries all rows with it, so that nearly half of the runs are hit, whoever computes them: of several, those are
    compared that most likely were not. How far one may be set apart is bounded too.
    """
    ours: dict[str, list[float]] = defaultdict(list)
    references: dict[str, list[float]] = defaultdict(list)
    for seed in range(7 if changes.get("critic") == "batch_norm" else 1):
        learn = learn_of(**changes, seed=seed)
        made = {}
        for name, make in (("native", MAKERS["native"]), ("eager", MAKERS["eager"]), ("exact", lambda a, _: Exact(a))):
            algorithm = fresh(learn)
            losses = train(make(algorithm, learn), algorithm, learn, 0, UPDATES)
            assert algorithm.updates == UPDATES
            made[name] = losses, everything(algorithm)
        for of, name in ((ours, "native"), (references, "eager")):
            for group, off in apart(made[name][1], made["exact"][1]).items():
                of[group].append(off)
        for got, wanted in zip(made["native"][0][:5], made["exact"][0][:5], strict=True):
            assert got == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    for group, off in ours.items():
        assert spared(off) <= 5.0 * spared(references[group]) + 1e-6, (group, off, references[group])
        assert max(off) <= 5.0 * max(references[group]) + 1e-3, (group, off, references[group])


@pytest.mark.parametrize("act_dim", [15, 16, 17, 40])
def test_more_actions_than_a_vector_holds_are_all_computed(act_dim: int) -> None:
    learn = learn_of(smooth_space=0.2)
    algorithm = create_algorithm(learn, 33, act_dim, RATE_HZ, CPU)
    trial = Trial(algorithm, learn)
    reference = trial.outcome(Eager(algorithm))
    assert not difference(trial.outcome(Native(algorithm, learn, 1)), reference).too_large(reduced=False)


def test_steps_are_counted_for_every_tensor() -> None:
    learn = learn_of(actor_delay=2)
    algorithm = fresh(learn)
    train(MAKERS["native"](algorithm, learn), algorithm, learn, 0, 10)
    counted = {name: float(value) for name, value in everything(algorithm).items() if name.endswith(".step")}
    assert {value for name, value in counted.items() if "critic" in name} == {10.0}
    assert {value for name, value in counted.items() if "critic" not in name} == {5.0}


@pytest.mark.parametrize("backend", ["native", NATIVE_BFLOAT16])
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_the_work_and_change_nothing(threads: int, backend: str) -> None:
    found = []
    for count in (1, threads):
        learn = learn_of(threads=count, batch_size=320)
        algorithm = fresh(learn)
        train(MAKERS[backend](algorithm, learn), algorithm, learn, 0, 20)
        found.append(everything(algorithm))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("backend", ["native", NATIVE_BFLOAT16, pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_resumed_run_goes_on_bit_for_bit(backend: str) -> None:
    learn = learn_of()
    straight, cut = fresh(learn), fresh(learn)
    train(MAKERS[backend](straight, learn), straight, learn, 0, UPDATES)
    train(MAKERS[backend](cut, learn), cut, learn, 0, UPDATES // 2)
    again = fresh(learn)
    maker = MAKERS[backend](again, learn)  # before the checkpoint is in it, as in a process that resumes
    restore_state(again, {}, everything(cut))
    again.updates = cut.updates
    train(maker, again, learn, UPDATES // 2, UPDATES)
    wanted, got = everything(straight), everything(again)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_checkpoint_fills_the_moments_that_are_there_already() -> None:
    """A recorded graph goes on with the tensors that it knows."""
    learn = learn_of()
    saved, again = fresh(learn), fresh(learn)
    train(Eager(saved), saved, learn, 0, 3)
    Trial(again, learn)
    lie = [
        value.data_ptr() for adam in again.optimizers().values() for s in adam.state.values() for value in s.values()
    ]
    restore_state(again, {}, everything(saved))
    there = [
        value.data_ptr() for adam in again.optimizers().values() for s in adam.state.values() for value in s.values()
    ]
    assert there == lie
    assert all(torch.equal(everything(again)[name], tensor) for name, tensor in everything(saved).items())


@pytest.mark.parametrize("delay", [1, 7])
def test_the_check_moves_the_actor_however_long_its_delay(delay: int) -> None:
    learn = learn_of(actor_delay=delay)
    algorithm = fresh(learn)
    outcome = Trial(algorithm, learn).outcome(Eager(algorithm))
    assert len(outcome.losses["critic_loss"]) == 4 and len(outcome.losses["actor_loss"]) == (4 if delay == 1 else 1)
    assert not torch.equal(outcome.before["actor"], outcome.after["actor"]) and algorithm.updates == 0


@pytest.mark.parametrize("one, other", [("native", "eager"), ("eager", "native")])
def test_one_backend_goes_on_where_another_stopped(one: str, other: str) -> None:
    learn = learn_of()
    straight, mixed = fresh(learn), fresh(learn)
    train(MAKERS["eager"](straight, learn), straight, learn, 0, 20)
    first, second = MAKERS[one](mixed, learn), MAKERS[other](mixed, learn)
    train(first, mixed, learn, 0, 5)
    train(second, mixed, learn, 5, 10)
    train(first, mixed, learn, 10, 15)
    train(second, mixed, learn, 15, 20)
    assert max(apart(everything(mixed), everything(straight)).values()) < 1e-5


def test_moments_that_others_have_replaced_are_found() -> None:
    """As ``load_state_dict`` replaces them; the old ones are no longer written."""
    learn = learn_of()
    straight, replaced = fresh(learn), fresh(learn)
    one, other = MAKERS["native"](straight, learn), MAKERS["native"](replaced, learn)
    train(one, straight, learn, 0, 6)
    train(other, replaced, learn, 0, 3)
    before = [moment for state in replaced.critic_adam.state.values() for moment in state.values()]
    kept = [moment.clone() for moment in before]
    for optimizer in replaced.optimizers().values():
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter in replaced.actor.parameters():  # and one by one
        state = replaced.actor_adam.state[parameter]
        state.update({name: moment.clone() for name, moment in state.items()})
    train(other, replaced, learn, 3, 6)
    assert max(apart(everything(straight), everything(replaced)).values()) == 0.0
    assert all(map(torch.equal, before, kept))


@pytest.mark.parametrize("backend", ["eager", "native", NATIVE_BFLOAT16])
@pytest.mark.parametrize(
    "of",
    [
        "as it comes",
        "actor delayed",
        "ten critics, two in the target",
        "smooth in time and space",
        "batch_norm, wide and many",
        "batch_norm, actor delayed",
    ],
)
def test_several_updates_a_call_are_as_so_many_calls(backend: str, of: str) -> None:
    learn = learn_of(**NATIVE[of])
    one_by_one, at_once = fresh(learn), fresh(learn)
    single, several = MAKERS[backend](one_by_one, learn), MAKERS[backend](at_once, learn)
    for cuts in ((0, 1), (1, 3), (3, 8), (8, 9), (9, 10)):
        losses: dict[str, float] = {}
        for made in train(single, one_by_one, learn, *cuts):
            losses |= made
        got = several.updates(*together([inputs(at_once, learn, seed) for seed in range(*cuts)]))
        assert {name: float(value) for name, value in got.items()} == losses
        assert at_once.updates == cuts[1]
    assert max(apart(everything(at_once), everything(one_by_one)).values()) == 0.0


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_how_updates_are_cut_into_calls_does_not_show(backend: str) -> None:
    """Minibatches and noise are drawn for each."""
    made = []
    for calls in ((6,), (1, 1, 1, 1, 1, 1), (2, 4)):
        learning = Learning(settings(backend=backend), contract(), CPU)
        learning.absorb(batches(noisy_run(300, seed=0), 32))
        for count in calls:
            learning.update(count)
        made.append(everything(learning.state))
    assert max(apart(made[0], made[1]).values()) == max(apart(made[0], made[2]).values()) == 0.0


def test_a_weight_that_somebody_else_has_written_is_used() -> None:
    learn = learn_of()
    algorithm, reference = fresh(learn), fresh(learn)
    backend = MAKERS["native"](algorithm, learn)
    train(backend, algorithm, learn, 0, 1)
    train(Eager(reference), reference, learn, 0, 1)
    with torch.no_grad():
        for tensor, there in zip(weights_of(algorithm), weights_of(reference), strict=True):
            tensor.fill_(0.01)
            there.fill_(0.01)
    got, wanted = (made.update(*inputs(reference, learn, 5)) for made in (backend, Eager(reference)))
    assert float(got["q"]) == pytest.approx(float(wanted["q"]), rel=1e-5)
    assert float(got["actor_loss"]) == pytest.approx(float(wanted["actor_loss"]), rel=1e-3)


def weights_of(algorithm: Algorithm) -> list[Tensor]:
    return [parameter for module in algorithm.modules().values() for parameter in module.parameters()]


@pytest.mark.parametrize(
    "variant", ["sac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sac_v1", "ddpg", "cross_q"))]
)
def test_compiled_updates_are_the_references(variant: str) -> None:
    """One graph: were it broken into parts, it would raise."""
    learn = settings(
        **{
            "sac": {},
            "sac_v1": {"variant": "sac_v1"},
            "ddpg": {"variant": "ddpg"},
            "cross_q": {"critic": "batch_norm"},
        }[variant]
    ).learn
    compiled, eager = fresh(learn), fresh(learn)
    losses = train(Compiled(compiled, CPU), compiled, learn, 0, UPDATES)
    wanted = train(Eager(eager), eager, learn, 0, UPDATES)
    assert losses[:5] == [pytest.approx(each, rel=1e-3, abs=1e-4) for each in wanted[:5]]
    assert max(apart(everything(compiled), everything(eager)).values()) < 2e-4


OPERANDS_AT = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Of torch's products of matrices: which arguments they are."""


class InBfloat16(TorchDispatchMode):
    """torch with products of matrices whose operands are rounded to bfloat16; sums are in float32. A vector is no matrix."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = OPERANDS_AT.get(func.overloadpacket.__name__)
        if before is not None and 1 not in (*args[before].shape[-2:], args[before + 1].shape[-1]):
            rounded = [operand.bfloat16().float() for operand in args[before : before + 2]]
            args = (*args[:before], *rounded, *args[before + 2 :])
        return func(*args, **(kwargs or {}))


class Rounded(Eager):
    """The reference, so rounded."""

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        with InBfloat16():
            return super().update(batch, noise)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX-512 BF16 here")
@pytest.mark.parametrize("changes", NATIVE.values(), ids=NATIVE)
def test_native_updates_in_bfloat16_are_the_references_with_operands_rounded_to_it(changes: dict[str, object]) -> None:
    """All that is left between them is what rounding to 8 bits makes of sums in another order, where it falls on the edge."""
    learn = learn_of(**changes)
    algorithm = fresh(learn)
    trial = Trial(algorithm, learn)
    got, rounded, reference = (
        trial.outcome(backend)
        for backend in (MAKERS["native_bfloat16"](algorithm, learn), Rounded(algorithm), Eager(algorithm))
    )
    ours, by_rounding = difference(got, rounded), difference(got, reference)
    assert ours.losses < 0.3 * by_rounding.losses < 0.03
    assert ours.weights < 0.3 * by_rounding.weights < 0.03


@pytest.mark.parametrize(
    "backend", [pytest.param("compiled_bfloat16", marks=pytest.mark.slow), NATIVE_BFLOAT16], ids=str
)
def test_updates_in_bfloat16_go_the_references_way(backend: str) -> None:
    learn = settings().learn
    reduced, eager = fresh(learn), fresh(learn)
    before = weights(eager)
    train(MAKERS[backend](reduced, learn), reduced, learn, 0, UPDATES)
    train(Eager(eager), eager, learn, 0, UPDATES)
    assert all(tensor.dtype is torch.float32 for tensor in everything(reduced).values())
    for name in ("actor.layers.0.weight", "critic.parts.0"):
        way = weights(eager)[name] - before[name]
        off = weights(reduced)[name] - weights(eager)[name]
        assert float(off.norm() / way.norm()) < 0.3


@pytest.mark.parametrize("backend", ["eager", "native"])
def test_noise_is_new_with_every_update(backend: str) -> None:
    """One batch, no step: only the noise can make two updates differ."""
    tiny = settings(backend=backend, critic_lr=1e-12, actor_lr=1e-12, temperature_lr=1e-12)
    learning = Learning(tiny, contract(), CPU)
    learning.absorb(batches(noisy_run(300, seed=0), 32))
    batch = learning.samples(1)
    shape, generator = learning.state.noise_shape, learning.noise_generator
    entropies = [
        float(learning.backend.backend.update(batch, shape.draw(len(batch), generator))["entropy"]) for _ in range(50)
    ]
    assert len(set(entropies)) == 50
    assert abs(lag_one(torch.tensor(entropies))) < 0.5


def lag_one(series: Tensor) -> float:
    centred = series - series.mean()
    return float((centred[1:] * centred[:-1]).sum() / centred.square().sum())


@pytest.mark.parametrize("changes", [{}, {"critics": 4, "smooth_space": 0.1}, {"critic_dropout": 0.1}])
def test_noise_of_several_updates_is_that_of_so_many_draws(changes: dict[str, Any]) -> None:
    shape = fresh(learn_of(**changes)).noise_shape
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    several = shape.draws(33, 5, one).each()
    for drawn in several:
        alone = shape.draw(33, other)
        for field in dataclasses.fields(alone):
            mine, its = getattr(drawn, field.name), getattr(alone, field.name)
            assert mine is its is None or torch.equal(mine, its)
    assert len(several) == 5 and torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


def test_noise_is_standard_normal() -> None:
    learn = settings().learn
    shape, generator = fresh(learn).noise_shape, torch.Generator().manual_seed(3)
    drawn = torch.stack([shape.draw(64, generator).action for _ in range(1000)])
    count = drawn.numel()
    assert abs(float(drawn.mean())) < 5 / count**0.5
    assert abs(float(drawn.var()) - 1.0) < 5 * (2 / count) ** 0.5
    assert abs(float((drawn[1:] * drawn[:-1]).mean())) < 5 / count**0.5


# The check at the start.


def test_auto_takes_the_native_one_and_says_so_in_a_line() -> None:
    learn = learn_of(hidden=(128, 128), batch_size=256)
    algorithm = fresh(learn)
    before = everything(algorithm)
    # Where tests take all cores, one look at the speed may say no.
    tries = [choose_backend(algorithm, learn, CPU) for _ in range(3)]
    chosen = next((each for each in tries if each.backend.name == "native"), tries[0])
    assert chosen.backend.name == "native", chosen.why
    assert chosen.why.startswith("native: ") and "times as fast as eager" in chosen.why and "\n" not in chosen.why
    after = everything(algorithm)
    assert algorithm.updates == 0
    assert all(torch.equal(before[name], after[name]) for name in before)


class Slowed:
    """A backend in a time of its own, in which everything takes longer for a while."""

    name = "slowed"

    def __init__(self, algorithm: Algorithm, clock: list[float], update_s: float) -> None:
        self._algorithm, self._clock, self._update_s = algorithm, clock, update_s
        self.due: list[bool] = []

    def update(self, _batch: Batch, _noise: Noise) -> dict[str, torch.Tensor]:
        self.due.append(actor_due(self._algorithm))
        self._clock[0] += self._update_s * (10.0 if self._clock[0] < 0.4 else 1.0)
        self._algorithm.updates += 1
        return {"q": torch.tensor(0.0)}


@pytest.mark.parametrize("update_s", [0.002, 0.031])
def test_backends_are_timed_in_turns_at_the_same_work(monkeypatch: pytest.MonkeyPatch, update_s: float) -> None:
    learn, clock = learn_of(actor_delay=2), [0.0]
    algorithm = fresh(learn)
    monkeypatch.setattr("robotsac.learner.backends.check.time.perf_counter", lambda: clock[0])
    one, other = Slowed(algorithm, clock, update_s), Slowed(algorithm, clock, 2.0 * update_s)
    assert Trial(algorithm, learn).seconds(one, other) == pytest.approx([update_s, 2.0 * update_s])
    assert all(one.due) and all(other.due) and algorithm.updates == 0


def test_threads_are_no_more_than_cores_whatever_is_asked_for_and_the_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "cores", lambda: 2)
    made: list[int] = []

    def native(algorithm: Algorithm, learn: LearnConfig, threads: int) -> Backend:
        made.append(threads)
        return Native(algorithm, learn, threads)

    monkeypatch.setattr(choice, "Native", native)
    for asked, used in ((1, 1), (2, 2), (64, 2)):
        learn = learn_of(hidden=(128, 128), batch_size=256, threads=asked, backend="native")
        chosen = choose_backend(fresh(learn), learn, CPU)
        assert made.pop() == used
        assert chosen.backend.name == "native"
        assert chosen.why.endswith("; threads: 2, a core each, not learn.threads = 64") is (asked != used)


class Wrong:
    """A backend with one mistake: it computes with other settings."""

    name = "wrong"

    def __init__(self, algorithm: Algorithm, **mistake: object) -> None:
        self._algorithm, self._mistake = algorithm, mistake

    def update(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        right = self._algorithm.constants
        self._algorithm.constants = dataclasses.replace(right, **self._mistake)  # type: ignore[misc, type-var]
        try:
            return Eager(self._algorithm).update(batch, noise)
        finally:
            self._algorithm.constants = right  # type: ignore[misc]


MISTAKES = ({"polyak": 0.03}, {"discount": 0.9}, {"target_entropy": 3.0}, {"smooth_time": 0.0}, {"actor_delay": 2})


@pytest.mark.parametrize("mistake", MISTAKES, ids=[next(iter(mistake)) for mistake in MISTAKES])
def test_the_check_finds_a_mistake_and_lets_rounding_pass(mistake: dict[str, object]) -> None:
    learn = learn_of()
    algorithm = fresh(learn)
    trial = Trial(algorithm, learn)
    reference = trial.outcome(Eager(algorithm))
    assert difference(trial.outcome(Wrong(algorithm, **mistake)), reference).too_large(reduced=False)
    assert not difference(trial.outcome(Native(algorithm, learn, 1)), reference).too_large(reduced=False)
    assert not difference(trial.outcome(Eager(algorithm)), reference).too_large(reduced=False)


CPP_BUGS = {
    "the entropy bonus is gone": ("work.h", "next_q - alpha * next_log_prob[m]", "next_q"),
    "ends bootstrap": ("work.h", "* (1.0f - *in->terminal[m])", ""),
    "the larger of the targets": ("sac_critics.h", "target_q_[m] < next_q_[m]", "target_q_[m] > next_q_[m]"),
    "one step's discount for several": ("work.h", "std::pow(spec.discount, *in->steps[m])", "spec.discount"),
    "critics go up": (
        "sac_critics.h",
        "(critic.q[m] - work_.target[m]) * share",
        "(work_.target[m] - critic.q[m]) * share",
    ),
    "the actor follows all critics": ("actor_step.h", "} else if (value_[m] == value_[m]) {", "} else if (false) {"),
    "squashing has no density": ("gaussian.h", "by_log_prob * 2.0f * a +", ""),
    "no second moment": ("adam.h", "second[i] * beta2 +", ""),
    "the target jumps": ("adam.h", "polyak * (value[i] - target[i])", "(value[i] - target[i])"),
    "weights are not packed anew": ("layer.h", "      pack(first, next);\n", ""),
    "LayerNorm forgets its mean": ("layer.h", "(load(gradient + i) - mean - load", "(load(gradient + i) - load"),
    "scale gets shift's gradient": ("layer.h", "load(to_scale + i) + g * n", "load(to_scale + i) + g"),
    "statistics of (s, a) alone": ("normed_critics.h", "statistics.moments(rows_,", "statistics.moments(spec_.batch,"),
    "running statistics stand still": (
        "normed_critics.h",
        "layer.running.mean[c] += BATCH_NORM_MOMENTUM",
        "layer.running.mean[c] += 0.0f",
    ),
    "the batch's mean has no gradient": (
        "normed_critics.h",
        "const Vec means = load(layer.by_shift.data() + c) +",
        "const Vec means =",
    ),
    "the batch's variance has no gradient": (
        "normed_critics.h",
        "+ normed(layer, x, c) * load(layer.by_scale.data() + c)",
        "",
    ),
    "the last rows are left out": ("matrix.h", "if (left > 0) tile_of<TILE_ROWS>(left, first, work);", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("file, old, new", CPP_BUGS.values(), ids=CPP_BUGS)
def test_the_check_finds_a_bug_in_the_cpp(
    file: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = shutil.copytree(build.HERE, tmp_path / "native")
    source = (sources / file).read_text()
    assert source.count(old) == 1
    (sources / file).write_text(source.replace(old, new))
    monkeypatch.setattr(build, "HERE", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    critic = "batch_norm" if file == "normed_critics.h" else "mlp"
    learn = settings(hidden=(64, 48), batch_size=70, n_step=3, smooth_time=0.1, backend="native", critic=critic).learn
    with pytest.raises(ConfigError, match="native updates are not those of the reference"):
        choose_backend(fresh(learn), learn, CPU)


SANITIZERS = {"address,undefined": "libasan.so", "thread": "libtsan.so"}


def under_sanitizer(which: str, sources: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Every setting's updates, watched."""
    compiler = shutil.which("g++") or pytest.skip("the sanitizers' libraries are g++'s")
    names = (SANITIZERS[which], "libubsan.so", "libstdc++.so.6")
    found = [subprocess.check_output((compiler, f"-print-file-name={name}"), text=True).strip() for name in names]
    if not all(Path(library).is_absolute() for library in found):
        pytest.skip(f"not all of {', '.join(names)} are installed")
    script = Path(__file__).with_name("native_under_sanitizer.py")
    # Leaks are not looked for: the interpreter's own would be found.
    told = {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "CXX": compiler,
        "XDG_CACHE_HOME": str(cache),
    }
    return subprocess.run(
        (sys.executable, str(script), which, str(sources)),
        env=os.environ | told, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("which", SANITIZERS)
def test_no_sanitizer_finds_anything_in_the_cpp(which: str, tmp_path: Path) -> None:
    done = under_sanitizer(which, build.HERE, tmp_path)
    backends = ["native", "native_bfloat16"][: 1 + HAS_BFLOAT16]
    wanted = [f"{backend}: {name}" for backend in backends for name in NATIVE]
    assert done.returncode == 0 and done.stdout.splitlines() == wanted, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "which, file, old, new, found",
    [
        ("address,undefined", "layer.h", "* depth(rows) * PANEL, Packed{}", "* depth(rows), Packed{}", "ERROR: AddressSanitizer"),
        ("thread", "work.h", "std::min((i + 1) * count, rows)", "std::min((i + 1) * count + 1, rows)", "data race"),
    ],
)  # fmt: skip
def test_a_sanitizer_finds_what_it_should(
    which: str, file: str, old: str, new: str, found: str, tmp_path: Path
) -> None:
    sources = shutil.copytree(build.HERE, tmp_path / "native")
    source = (sources / file).read_text()
    assert source.count(old) == 1
    (sources / file).write_text(source.replace(old, new))
    done = under_sanitizer(which, sources, tmp_path)
    assert done.returncode != 0 and found in done.stderr


def test_a_number_that_is_none_is_too_far_off() -> None:
    learn = learn_of()
    algorithm = fresh(learn)
    trial = Trial(algorithm, learn)
    reference = trial.outcome(Eager(algorithm))
    put_back = kept(algorithm)
    with torch.no_grad():
        next(algorithm.actor.parameters()).fill_(float("nan"))
    for backend in (Eager(algorithm), Native(algorithm, learn, 1)):
        assert difference(trial.outcome(backend), reference).too_large(reduced=True)
    put_back()


def test_one_network_that_is_no_number_is_not_lost_among_the_others() -> None:
    learn = learn_of()
    algorithm = fresh(learn)
    reference = Trial(algorithm, learn).outcome(Eager(algorithm))
    for name in reference.after:
        broken = dataclasses.replace(reference, after={**reference.after, name: reference.after[name] * float("nan")})
        assert difference(broken, reference).too_large(reduced=True), name
    for name, values in reference.losses.items():
        losses = {**reference.losses, name: [*values[:-1], float("nan")]}
        assert difference(dataclasses.replace(reference, losses=losses), reference).too_large(reduced=True), name


@pytest.mark.parametrize("name", ["native", NATIVE_BFLOAT16])
def test_a_native_update_hands_on_what_is_no_number(name: str) -> None:
    """A run that has diverged must be seen: no relu may turn it into zeros."""
    learn = learn_of()
    algorithm = fresh(learn)
    backend = MAKERS[name](algorithm, learn)
    with torch.no_grad():
        algorithm.actor.layers[0].weight[0, 0] = float("nan")
    (losses,) = train(backend, algorithm, learn, 0, 1)
    assert all(value != value for name, value in losses.items() if name in ("critic_loss", "actor_loss"))


@pytest.mark.parametrize("critic", ["mlp", "batch_norm"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_critic_that_is_no_number_reaches_the_actor(critic: str, number: int) -> None:
    learn = learn_of(critic=critic)
    lost = []
    for name in ("native", "eager"):
        algorithm = fresh(learn)
        with torch.no_grad():
            algorithm.modules()["critic"].parts[-1][number] = float("nan")  # type: ignore[index]
        (losses,) = train(MAKERS[name](algorithm, learn), algorithm, learn, 0, 1)
        nowhere = [bool(tensor.isfinite().all()) for tensor in algorithm.actor.parameters()]
        lost.append((losses["actor_loss"] != losses["actor_loss"], any(nowhere)))
    assert lost[0] == lost[1] == (True, False)


def test_noise_of_another_kind_is_refused() -> None:
    learn = learn_of(critics=4, smooth_space=0.1)
    algorithm = fresh(learn)
    backend = MAKERS["native"](algorithm, learn)
    batch, noise = inputs(algorithm, learn, 0)
    assert noise.space is not None and noise.subset is not None
    for wrong in (
        {"action": noise.action[1:]},
        {"action": noise.action.double()},
        {"next_action": noise.next_action.t().contiguous().t()},
        {"space": None},
        {"subset": noise.subset.int()},
    ):
        with pytest.raises(ValueError, match="noise that is not"):
            backend.update(batch, dataclasses.replace(noise, **wrong))
    assert algorithm.updates == 0


def test_a_batch_of_another_kind_is_refused() -> None:
    learn = learn_of()
    algorithm = fresh(learn)
    backend = MAKERS["native"](algorithm, learn)
    batch, noise = inputs(algorithm, learn, 0)
    assert batch.after is not None and batch.steps is not None
    for wrong in (
        {"obs": batch.obs[:, 1:]},
        {"next_obs": batch.next_obs.double()},
        {"action": batch.action.t().contiguous().t()},
        {"after": batch.after[1:]},
        {"steps": batch.steps[:, None]},
        {"terminal": None},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"whose {name} is"):
            backend.update(dataclasses.replace(batch, **wrong), noise)
    assert algorithm.updates == 0


def test_products_in_bfloat16_are_refused_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "HAS_BFLOAT16", b"no processor has this")
    learn = learn_of(backend="native_bfloat16")
    with pytest.raises(ConfigError, match="no products in bfloat16 here") as caught:
        require_backend(learn, CPU)
    assert caught.value.command == "--set learn.backend=auto" and "AVX-512 BF16" in caught.value.reason
    assert not has_bfloat16()


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no AVX-512 BF16 here")
def test_products_in_bfloat16_are_taken_where_they_are_named_and_pass_the_check() -> None:
    learn = learn_of(hidden=(128, 128), batch_size=256, backend="native_bfloat16")
    chosen = choose_backend(fresh(learn), learn, CPU)
    assert chosen.backend.name == "native_bfloat16" and chosen.why.startswith("native_bfloat16: ")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty one, for libraries that are built fast and run slowly."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in build.FLAGS))
    return tmp_path / "robotsac"


def test_a_library_is_built_anew_with_other_flags(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    build.library()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g0"))
    build.library()
    assert len(list(cache.glob("*.so"))) == 2


def test_a_library_that_is_not_what_was_built_is_built_again(cache: Path) -> None:
    """A file that a power cut left half written would end the process that loads it."""
    build.library()
    (path,) = cache.glob("*.so")
    whole = path.read_bytes()
    for damaged in (b"", whole[:100_000], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.unlink()  # not written over: it is loaded
        path.write_bytes(damaged)
        build.library()
        (path,) = cache.glob("*.so")
        assert len(path.read_bytes()) == len(whole) and path.read_bytes() != damaged


def test_a_compiler_may_have_words_of_its_own(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("CXX", "env c++ -g0")
    build.library()
    assert len(list(cache.glob("*.so"))) == 1


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("nothing-like-it -O2", "none of nothing-like-it -O2 is here"),
        ("'c++", "No closing quotation"),
        ("{folder}/no-program", "Exec format error"),
        ("false", "exit code 1"),
    ],
)
def test_a_compiler_that_is_none_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, reason: str
) -> None:
    (tmp_path / "no-program").write_bytes(b"\0\0\0\0")
    (tmp_path / "no-program").chmod(0o755)
    monkeypatch.setenv("CXX", compiler.format(folder=tmp_path))
    with pytest.raises(BackendUnavailable) as refused:
        build.library()
    assert reason in refused.value.reason


def test_compiled_is_refused_before_the_robot_moves_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("nothing-like-it",))
    with pytest.raises(ConfigError, match="need a C\\+\\+ compiler"):
        require_backend(learn_of(backend="compiled"), CPU)


def test_without_threads_to_be_had_native_is_refused_in_words(tmp_path: Path) -> None:
    """In a process that may have no more memory: a thread's stack is the first that it cannot have."""
    code = """
import resource, sys
from pathlib import Path
from test_backends import fresh, learn_of, Native, BackendUnavailable
learn = learn_of(threads=64)
algorithm = fresh(learn)
Native(algorithm, learn, 1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)
try:
    Native(algorithm, learn, 64)
except BackendUnavailable as error:
    sys.exit(0 if "64 threads" in error.reason else 3)
"""
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"variant": "ddpg"}, "variant 'ddpg'"),
        ({"variant": "sac_v1"}, "variant 'sac_v1'"),
        ({"head": "beta"}, "head 'beta'"),
        ({"activation": "silu"}, "activation 'silu'"),
        ({"critic_dropout": 0.01}, "critic_dropout"),
        ({"policy_gradient": "score"}, "policy_gradient 'score'"),
        (
            {"correction": "consensus", "activation": "tanh", "smooth_time": 0.0},
            "activation 'tanh', correction 'consensus'",
        ),
    ],
)
def test_what_native_does_not_know_is_eager_and_named(changes: dict[str, object], named: str) -> None:
    learn = settings(**changes).learn
    assert why_not(fresh(learn), learn, CPU) == named
    chosen = choose_backend(fresh(learn), learn, CPU)
    assert chosen.backend.name == "eager" and chosen.why == f"eager; native knows no {named}"
    forced = settings(**changes, backend="native").learn
    with pytest.raises(ConfigError, match=r"learn.backend 'native' cannot be used") as refused:
        choose_backend(fresh(forced), forced, CPU)
    assert refused.value.reason == named and refused.value.command == "--set learn.backend=auto"


def test_a_graph_needs_a_gpu() -> None:
    learn = settings(backend="graphed").learn
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_backend(fresh(learn), learn, CPU)


def test_without_a_compiler_auto_is_eager_and_native_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    learn = settings().learn
    chosen = choose_backend(fresh(learn), learn, CPU)
    assert chosen.backend.name == "eager"
    assert chosen.why == "eager; the native update needs a C++ compiler (none of no-such-compiler is here)"
    forced = settings(backend="native").learn
    with pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        choose_backend(fresh(forced), forced, CPU)


def test_a_compiler_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = tmp_path / "bad-c++"
    bad.write_text("#!/bin/sh\ncase \"$*\" in *-dM*) exit 0;; esac\necho 'update.cpp:1: error: no' >&2\nexit 1\n")
    bad.chmod(0o755)
    monkeypatch.setenv("CXX", str(bad))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    learn = settings().learn
    with pytest.raises(BackendUnavailable, match="could not be built") as refused:
        Native(fresh(learn), learn, 1)
    assert refused.value.reason == f"{bad}: update.cpp:1: error: no"
    assert not list((tmp_path / "robotsac").iterdir())


def test_a_batch_of_another_size_is_refused() -> None:
    learn = learn_of()
    algorithm = fresh(learn)
    smaller = learn_of(batch_size=32)
    with pytest.raises(ValueError, match=r"32 rows for 1 update, where learn.batch_size is 64"):
        Native(algorithm, learn, 1).update(*inputs(algorithm, smaller, 0))
    doubled = dataclasses.replace(inputs(algorithm, learn, 0)[0], obs=torch.zeros(64, OBS_DIM, dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        Native(algorithm, learn, 1).update(doubled, inputs(algorithm, learn, 0)[1])
