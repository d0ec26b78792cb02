"""CAPS terms: their value and gradient, whom they move, and that a policy trained with them is smoother."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from algorithm_world import changed, noise_for, some_batch, weights
from learner_world import ACT_DIM, OBS_DIM, RATE_HZ, settings

from robotsac.learner.actor import Actor
from robotsac.learner.algorithm import Algorithm, Noise, actor_of, update
from robotsac.learner.networks import Normaliser
from robotsac.learner.replay import Batch
from robotsac.learner.smoothness import smoothness_loss
from robotsac.learner.variants import create_algorithm

CPU = torch.device("cpu")
VARIANTS = ("sac", "sac_v1", "ddpg")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Weights:
    smooth_time: float = 0.0
    smooth_space: float = 0.0
    smooth_sigma: float = 0.05


def fresh(**learn: object) -> Algorithm:
    return create_algorithm(settings(**learn).learn, OBS_DIM, ACT_DIM, RATE_HZ, CPU)


def some_actor(**learn: object) -> Actor:
    """In float64, and far from the first policy, which is nearly constant."""
    actor = actor_of(settings(activation="tanh", **learn).learn, OBS_DIM, ACT_DIM, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return actor.double()


def noise_of(rows: int = 8) -> Noise:
    generator = torch.Generator().manual_seed(3)
    draw = [torch.randn(rows, size, generator=generator, dtype=torch.float64) for size in (ACT_DIM, ACT_DIM, OBS_DIM)]
    return Noise(*draw)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_terms_by_hand(variant: str) -> None:
    actor, batch, noise = some_actor(variant=variant), some_batch(), noise_of()
    obs, next_obs = batch.obs.double(), batch.next_obs.double()
    got = smoothness_loss(actor, obs, next_obs, noise, Weights(2.0, 3.0, 0.1))
    with torch.no_grad():
        # μ alone: the mean of the Gaussian, not a draw.
        here, after, near = (
            torch.tanh(actor(x)[:, :ACT_DIM])
            for x in (obs, next_obs, obs + 0.1 * noise.space)  # type: ignore[operator]
        )
    by_hand = sum(
        2.0 * float(((here[b] - after[b]) ** 2).sum()) + 3.0 * float(((here[b] - near[b]) ** 2).sum()) for b in range(8)
    )
    assert float(got.detach()) == pytest.approx(by_hand / 8, rel=1e-9)


@pytest.mark.parametrize("weights_", [Weights(smooth_time=1.0), Weights(smooth_space=1.0, smooth_sigma=0.3)])
def test_the_gradient_is_that_of_finite_differences(weights_: Weights) -> None:
    actor, batch, noise = some_actor(), some_batch(), noise_of()
    obs, next_obs = batch.obs.double(), batch.next_obs.double()
    smoothness_loss(actor, obs, next_obs, noise, weights_).backward()
    step = 1e-6
    for parameter in (actor.last.weight, actor.last.bias, actor.layers[0].weight):
        assert isinstance(parameter, torch.nn.Parameter) and parameter.grad is not None
        flat = parameter.data.view(-1)
        for i in range(0, flat.numel(), max(1, flat.numel() // 7)):
            values = []
            for sign in (1, -1):
                flat[i] += sign * step
                with torch.no_grad():
                    values.append(float(smoothness_loss(actor, obs, next_obs, noise, weights_)))
                flat[i] -= sign * step
            # A central difference in float64: truncation around step², rounding around 1e-16/step.
            assert float(parameter.grad.view(-1)[i]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)


def test_a_policy_that_does_the_same_everywhere_is_perfectly_smooth() -> None:
    actor, batch = some_actor(), some_batch()
    with torch.no_grad():
        actor.last.weight.zero_()
    loss = smoothness_loss(actor, batch.obs.double(), batch.next_obs.double(), noise_of(), Weights(1.0, 1.0))
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_noise_for_neighbours_is_drawn_only_where_somebody_asks(variant: str) -> None:
    assert noise_for(fresh(variant=variant, smooth_time=1.0)).space is None
    space = noise_for(fresh(variant=variant, smooth_space=1.0)).space
    assert space is not None and space.shape == (8, OBS_DIM)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", ["smooth_time", "smooth_space"])
def test_a_term_moves_the_actor_and_nothing_else(variant: str, term: str) -> None:
    # Of two updates that differ in the term alone, all but the actor agrees (α and targets follow in later ones).
    plain, smooth = fresh(variant=variant), fresh(variant=variant, **{term: 10.0})
    batch, noise = some_batch(), noise_for(fresh(variant=variant, smooth_space=1.0))
    without = Noise(noise.next_action, noise.action)
    update(plain, batch, without)
    update(smooth, batch, noise if term == "smooth_space" else without)
    differing = changed(weights(plain), weights(smooth)) - {"actor_target"}
    assert differing == {"actor"}


def idle_critics(state: Algorithm) -> Algorithm:
    """``state`` with an actor that learns and nothing else, and a normaliser that does something."""
    for name, optimiser in state.optimizers().items():
        if name != "actor":
            for group in optimiser.param_groups:
                group["lr"] = 0.0
    normaliser = state.modules()["normaliser"]
    assert isinstance(normaliser, Normaliser)
    normaliser.mean.fill_(0.3)
    return state


@pytest.mark.parametrize("variant", VARIANTS)
def test_over_several_steps_it_is_still_the_next_step_that_counts(variant: str) -> None:
    # What is the bootstrap's state in the one batch is only the next one in the other.
    one, other = (idle_critics(fresh(variant=variant, smooth_time=10.0)) for _ in range(2))
    batch, noise = some_batch(), noise_for(one)
    further = replace(batch, after=batch.next_obs, next_obs=batch.next_obs + 1.0, steps=torch.full((8,), 3.0))
    update(one, batch, noise)
    update(other, further, noise)
    assert changed(weights(one), weights(other)) == set()
    assert "actor" in changed(weights(one), weights(fresh(variant=variant)))


@pytest.mark.parametrize("variant", ["sac", "ddpg"])
def test_training_with_both_terms_gives_a_smoother_policy_that_still_earns(variant: str) -> None:
    # The best action is ±0.8 by the sign of s₀, so the best policy is a step. CAPS makes a slope of it.
    def trained(**learn: object) -> Actor:
        small = {"hidden": (32, 32), "actor_lr": 2e-3, "critic_lr": 5e-3}
        fixed = {} if variant == "ddpg" else {"temperature": 0.01}
        state = fresh(variant=variant, **small, **fixed, **learn)
        generator = torch.Generator().manual_seed(0)
        for _ in range(250):
            obs = torch.empty(64, OBS_DIM).uniform_(-1, 1, generator=generator)
            next_obs = obs + 0.2 * torch.randn(64, OBS_DIM, generator=generator)
            action = torch.empty(64, ACT_DIM).uniform_(-1, 1, generator=generator)
            reward = -(action - 0.8 * obs[:, :1].sign()).square().sum(dim=1)
            batch = Batch(obs, action, reward, next_obs, torch.ones(64))
            update(state, batch, state.noise_shape.draw(64, generator))
        return state.actor

    generator = torch.Generator().manual_seed(5)
    obs = torch.empty(2000, OBS_DIM).uniform_(-1, 1, generator=generator)
    after = obs + 0.2 * torch.randn(2000, OBS_DIM, generator=generator)
    near = obs + 0.05 * torch.randn(2000, OBS_DIM, generator=generator)
    silent = torch.zeros(2000, ACT_DIM)
    moved, earned = {}, {}
    for name, learn in (("plain", {}), ("smooth", {"smooth_time": 2.0, "smooth_space": 2.0})):
        actor = trained(**learn)
        with torch.no_grad():
            here = actor.action(obs, silent)
            moved[name] = [float((here - actor.action(x, silent)).square().sum(dim=1).mean()) for x in (after, near)]
            earned[name] = float(-(here - 0.8 * obs[:, :1].sign()).square().sum(dim=1).mean())
    assert moved["smooth"][0] < 0.8 * moved["plain"][0]
    assert moved["smooth"][1] < 0.8 * moved["plain"][1]
    assert earned["smooth"] > -0.64  # doing nothing earns −1.28
