"""Learning without a process around it: log in, updates, all of it a function of settings, seed and log.

What the trainer loops over, and what a checkpoint saves and restores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robotsac.config.schema import LearnerSettings
from robotsac.contract import Contract
from robotsac.errors import ConfigError
from robotsac.learner.algorithm import discount_of
from robotsac.learner.assembler import Assembler, Episode
from robotsac.learner.backends import choose_backend
from robotsac.learner.limiter import Limiter
from robotsac.learner.obs_statistics import ObsStatistics
from robotsac.learner.prior_data import WITHOUT, PriorLogs
from robotsac.learner.replay import Batch, Replay
from robotsac.learner.replay_log import LoggedBatch
from robotsac.learner.streams import Streams
from robotsac.learner.variants import create_algorithm


class Learning:
    """Algorithm, replay ring, assembler and limiter of one run; a second ring where there is prior data.

    The limiter counts fresh transitions alone: prior data makes each of them worth more, and does not stand in for them.

    Args:
        settings: of the learner.
        contract: what the records mean.
        device: where everything lies.

    Attributes:
        backend: what computes the updates, and why.
        observed: statistics of this run's observations, if they are asked for.
        prior: the ring of prior data; ``None`` = none.
        prior_rows: the last row that was read of each log of it.

    Raises:
        ConfigError: settings that cannot work (see :func:`~robotsac.learner.variants.create_algorithm`), or prior data
            that is not this run's kind (see :class:`~robotsac.learner.prior_data.PriorLogs`).
        StorageError: prior data cannot be read.
    """

    def __init__(self, settings: LearnerSettings, contract: Contract, device: torch.device) -> None:
        learn = settings.learn
        self.device = device
        self.contract = contract
        self._learn = learn
        streams = Streams.of(learn.seed)
        self.replay_generator = torch.Generator(device).manual_seed(streams.replay)
        self.noise_generator = torch.Generator(device).manual_seed(streams.update)
        self.prior_generator = torch.Generator(device).manual_seed(streams.prior)
        self.state = create_algorithm(learn, contract.obs_dim, contract.act_dim, contract.control_rate_hz, device)
        self.backend = choose_backend(self.state, learn, device)
        self.replay = self._ring(learn.replay_capacity, self.replay_generator)
        self.observed = ObsStatistics(contract.obs_dim, learn.normalise_obs)
        self.assembler = self._new_assembler()
        self.limiter = Limiter.of(settings)
        self.row = 0
        self.prior: Replay | None = None
        self.prior_rows: tuple[int, ...] = ()
        self._prior_share = round(learn.prior_share * learn.batch_size) if learn.prior_data else 0
        if learn.prior_data:
            self.load_prior()

    def absorb(self, batches: Sequence[LoggedBatch]) -> list[tuple[int, Episode]]:
        """Put logged batches into the replay, in order; the episodes that end in them, each with its log row."""
        episodes: list[tuple[int, Episode]] = []
        for batch in batches:
            transitions, finished = self.assembler.add(batch)
            if len(transitions):
                self.replay.append(transitions)
                self.observed.add(transitions.obs, self.state.normaliser)
            episodes.extend((batch.row, episode) for episode in finished)
            self.row = batch.row
        return episodes

    def load_prior(self, rows: tuple[int, ...] | None = None) -> None:
        """Fill the ring of prior data anew, from each log up to its row of ``rows``; ``None`` = all there is.

        Raises:
            CheckpointError: a log ends before its row.
            ConfigError, StorageError: as the class.
        """
        learn = self._learn
        logs = PriorLogs(learn.prior_data, self.contract)
        ring = self._ring(min(learn.replay_capacity, logs.records), self.prior_generator)
        read = [0] * len(logs.files)
        for number, row, transitions in logs.transitions(self._new_assembler, rows):
            ring.append(transitions)
            read[number] = row
        if not len(ring):
            raise ConfigError(
                f"learn.prior_data: there is no transition in {', '.join(learn.prior_data)}",
                reason="their episodes ended at the first step, in a fault or in lost records",
                command=WITHOUT,
            )
        self.prior, self.prior_rows = ring, tuple(read)

    def samples(self, count: int) -> Batch:
        """Fresh minibatches, one after another: of this run's transitions, and the prior data's share of each last."""
        fresh = self.replay.samples(self._learn.batch_size - self._prior_share, count)
        return fresh if self.prior is None else fresh.joined(self.prior.samples(self._prior_share, count), count)

    def update(self, count: int = 1) -> dict[str, Tensor]:
        """``count`` updates, each on a fresh minibatch, as so many calls; of each loss the last value.

        Returns:
            Device scalars (see :class:`~robotsac.learner.algorithm.Algorithm`).
        """
        noise = self.state.noise_shape.draws(self._learn.batch_size, count, self.noise_generator)
        return self.backend.backend.updates(self.samples(count), noise)

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

    def _ring(self, capacity: int, generator: torch.Generator) -> Replay:
        contract = self.contract
        return Replay.of(self._learn, capacity, contract.obs_dim, contract.act_dim, generator)

    def _new_assembler(self) -> Assembler:
        return Assembler(self._learn.n_step, discount_of(self._learn, self.contract.control_rate_hz))
