"""Learning without a process around it: log in, updates, all of it a function of settings, seed and log.

What the trainer loops over, and what a checkpoint saves and restores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robotsac.config.schema import LearnerSettings
from robotsac.contract import Contract
from robotsac.learner.assembler import Assembler, Episode
from robotsac.learner.limiter import Limiter
from robotsac.learner.replay import Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.learner.variants import create_algorithm


class Learning:
    """SAC state, replay ring, assembler and limiter of one run.

    Args:
        settings: of the learner.
        contract: what the records mean.
        device: where everything lies.

    Raises:
        ConfigError: settings that cannot work (see :func:`~robotsac.learner.variants.create_algorithm`).
    """

    def __init__(self, settings: LearnerSettings, contract: Contract, device: torch.device) -> None:
        learn = settings.learn
        self.device = device
        self.contract = contract
        # Streams of their own: how often one is drawn from does not shift another.
        self.replay_generator = torch.Generator(device).manual_seed(learn.seed + 1)
        self.noise_generator = torch.Generator(device).manual_seed(learn.seed + 2)
        self.state = create_algorithm(learn, contract.obs_dim, contract.act_dim, contract.control_rate_hz, device)
        self.replay = Replay(learn.replay_capacity, contract.obs_dim, contract.act_dim, device, self.replay_generator)
        self.assembler = Assembler()
        self.limiter = Limiter.of(settings)
        self.row = 0
        self._batch_size = learn.batch_size

    def absorb(self, batches: Sequence[LoggedBatch]) -> list[tuple[int, Episode]]:
        """Put logged batches into the replay, in order; the episodes that end in them, each with its log row."""
        episodes: list[tuple[int, Episode]] = []
        for batch in batches:
            transitions, finished = self.assembler.add(batch)
            if len(transitions):
                self.replay.append(transitions)
            episodes.extend((batch.row, episode) for episode in finished)
            self.row = batch.row
        return episodes

    def update(self) -> dict[str, Tensor]:
        """One SAC update on a fresh minibatch; returns device scalars (see :class:`~robotsac.learner.algorithm.Algorithm`)."""
        batch = self.replay.sample(self._batch_size)
        return self.state.update(batch, self.state.noise_shape.draw(self._batch_size, self.noise_generator))

    @property
    def updates_allowed(self) -> int:
        """Updates that the limiter lets through now."""
        return self.limiter.updates_allowed(self.replay.total, self.state.updates)

    @property
    def credit_total(self) -> int:
        """Records the robots may have made durable."""
        return self.limiter.credit_total(self.assembler.records, self.replay.total, self.state.updates)

    @property
    def robot_time_s(self) -> float:
        """Time under policy control that the log holds, over all robots."""
        return self.assembler.env_steps / self.contract.control_rate_hz
