"""DDPG's head: a point where it learns, the point and noise on the robot."""

from __future__ import annotations

import math

import pytest
import torch

from robotsac.learner.heads import Deterministic

HEAD = Deterministic(0.2)


def test_it_learns_from_the_point_itself_whatever_the_noise() -> None:
    raw = torch.tensor([[0.3, -4.0]])
    action, log_prob = HEAD.sample(raw, torch.full((1, 2), 3.0))
    assert torch.equal(action, torch.tanh(raw))
    assert log_prob.tolist() == [0.0]


def test_its_gradient_is_that_of_the_point() -> None:
    raw = torch.tensor([[0.3, -4.0]], dtype=torch.float64, requires_grad=True)
    HEAD.sample(raw, torch.zeros(1, 2)).action.sum().backward()
    assert raw.grad is not None
    assert raw.grad[0].tolist() == pytest.approx([1 - math.tanh(0.3) ** 2, 1 - math.tanh(4.0) ** 2])


def test_noise_on_the_robot_is_added_in_action_units_and_cut_at_the_border() -> None:
    raw = torch.tensor([[0.0, 0.5, 3.0, -3.0]])
    noise = torch.tensor([[1.0, -2.0, 5.0, -5.0]])
    assert HEAD.action(raw, noise)[0].tolist() == pytest.approx([0.2, math.tanh(0.5) - 0.4, 1.0, -1.0])


def test_its_noise_is_normal_with_sigma() -> None:
    noise = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0))
    action = HEAD.action(torch.zeros(50_000, 1), noise)
    # Standard error of σ: σ/√(2n) = 6e-4.
    assert float(action.std()) == pytest.approx(0.2, abs=3e-3)
    assert float(action.mean()) == pytest.approx(0.0, abs=4e-3)


def test_without_noise_the_robot_does_the_point() -> None:
    raw = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(HEAD.action(raw, torch.zeros(5, 3)), torch.tanh(raw))
