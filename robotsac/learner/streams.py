"""Seeds of everything random in a run, all from one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robotsac.learner.world import Seeds


@dataclass(frozen=True, slots=True)
class Streams:
    """One each, so that how often one is drawn from does not shift another; the weights' is ``learn.seed`` itself.

    Attributes:
        world, exam: of the environments of ``train --sync``, to learn in and to evaluate in.
        replay, update, prior: of minibatches, of the noise in updates, of minibatches of prior data.
    """

    world: Seeds
    exam: Seeds
    replay: int
    update: int
    prior: int

    @classmethod
    def of(cls, seed: int, env_steps: int = 0) -> Streams:
        """All of them, from one; neighbouring seeds give unrelated ones. 31 bits, which every environment takes.

        Of a run that goes on after ``env_steps`` the world's are new ones, lest it sees its first episodes again.
        """
        drawn = _drawn(seed)
        world = _drawn(seed, env_steps) if env_steps else drawn
        return cls(Seeds(*world[:3]), Seeds(*drawn[3:6]), *drawn[6:])


def _drawn(seed: int, *key: int) -> list[int]:
    return [int(word) >> 1 for word in np.random.SeedSequence(seed, spawn_key=key).generate_state(9)]
