"""What the tests of the policy heads share: each head, parameters from tame to extreme, and ways to look at samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robotsac.learner.heads import Beta, Draw, Head, TanhGaussian, TanhMixture, beta, gaussian, mixture

Array = NDArray[np.float64]

GAUSSIAN = TanhGaussian(-5.0, 2.0)
MIXTURE = TanhMixture(3, -5.0, 2.0)
BETA = Beta()
STOCHASTIC: dict[str, Head] = {"gaussian": GAUSSIAN, "mixture": MIXTURE, "beta": BETA}

# One action dimension each. log σ = −1.5 + 3.5 tanh(raw): ∓0.45 are σ = 0.05 and 1.0.
RAWS: dict[str, list[list[float]]] = {
    "gaussian": [[0.0, 0.0], [0.8, -0.45], [-2.0, 0.0], [0.5, 0.45]],
    "mixture": [
        [0.0] * 9,
        [1.0, -1.0, 0.0, 0.5, 0.0, -0.5, -0.3, 0.0, 0.2],
        [2.0, 0.0, 1.0, -1.5, 1.0, 1.0, -0.4, -0.2, -0.4],
        [-3.0, 3.0, 0.0, 0.0, 0.5, 2.0, 0.0, 0.45, -0.45],
    ],
    "beta": [[0.0, 0.0], [-50.0, -50.0], [3.0, -4.0], [1.0, 9.0], [40.0, 25.0]],
}
CASES = [(name, index) for name, raws in RAWS.items() for index in range(len(raws))]


def raw_of(name: str, index: int, rows: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """(rows, outputs), every row the same."""
    return torch.tensor(RAWS[name][index], dtype=dtype).expand(rows, -1)


def noise_for(head: Head, rows: int, seed: int, act_dim: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """(rows, noises·act_dim) standard normal."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, head.noises * act_dim, generator=generator, dtype=dtype)


def draws(name: str, index: int, rows: int, seed: int = 0) -> Draw:
    """Many draws of one distribution: actions (rows, 1), log-probabilities (rows,)."""
    head = STOCHASTIC[name]
    with torch.no_grad():
        return head.sample(raw_of(name, index, rows), noise_for(head, rows, seed))


def curve(name: str, raw: Tensor, points: int = 100_001) -> tuple[Tensor, Tensor]:
    """The log-density over the whole action interval, as the head's own functions give it: places (n,), nats (n,).

    ``raw`` (1, outputs), of one dimension.
    """
    grid = torch.linspace(-1.0, 1.0, points, dtype=torch.float64)[:, None]
    if name == "beta":
        x = ((grid + 1.0) / 2.0).clamp(1e-9, 1.0 - 1e-9)
        log_density = beta.log_density(x, *BETA.parameters(raw)) - math.log(2.0)
        return 2.0 * x[:, 0] - 1.0, log_density[:, 0]
    # Evenly before squashing, where it is smooth; wide enough for every case.
    z = 14.0 * grid
    if name == "gaussian":
        mean, log_std = GAUSSIAN.parameters(raw)
        return torch.tanh(z[:, 0]), gaussian.log_prob(z, log_std, (z - mean) / log_std.exp())
    log_density = mixture.log_density(z, *MIXTURE.parameters(raw)) - gaussian.tanh_log_det(z)
    return torch.tanh(z[:, 0]), log_density[:, 0]


def kolmogorov(samples: Array, distribution: Callable[[Array], Array]) -> float:
    """√n·sup |F_n − F|."""
    ordered = np.sort(samples)
    n = len(ordered)
    f = distribution(ordered)
    up, down = np.arange(1, n + 1) / n - f, f - np.arange(n) / n
    return float(max(up.max(), down.max()) * math.sqrt(n))


KOLMOGOROV_MAX = 1.95
"""Exceeded by one correct sampler in a thousand; and seeds are fixed."""


def distribution_of(places: Tensor, log_density: Tensor) -> Callable[[Array], Array]:
    """F, of a log-density (n,) at places (n,)."""
    below = torch.cumulative_trapezoid(log_density.exp(), places).numpy()
    return lambda x: np.interp(x, places.numpy()[1:], below)


def normal_distribution(x: Tensor) -> Tensor:
    """Φ."""
    return 0.5 * torch.erfc(-x * 0.5**0.5)
