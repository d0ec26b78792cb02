"""The simulated arm as ``train --sync`` sees it."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from robotsac.cli.arm_world import ArmWorld
from robotsac.config import load_config
from robotsac.learner.world import Seeds


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_held_out_episode_begins_the_same_whatever_was_done_before(number: int) -> None:
    with closing(ArmWorld(load_config("arm0-sim"), Seeds(1, 2, 3))) as world:
        first = world.reset(held_out=number)
        for _ in range(25):
            outcome = world.step(np.full(world.act_dim, 0.3, dtype=np.float32))
        assert float(np.abs(outcome.obs - first).max()) > 0.05, "the arm has moved"
        np.testing.assert_allclose(world.reset(held_out=number), first, atol=1e-6)
