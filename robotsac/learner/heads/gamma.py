"""Gamma numbers from standard normal ones (Marsaglia and Tsang 2000): what the Beta head is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from robotsac.learner.heads.head import first, uniform

CANDIDATES = 4
"""Each is accepted with a probability of at least 0.95 at α ≥ 1; that none is, happens once in 180,000 draws at α = 1, once in 10⁹ at 5."""
ROOT_MIN = 1e-10
"""Of v = root³: a root below 0 is cut off here, where the test's log v refuses it at any α."""


def gamma(concentration: Tensor, place: Tensor, judge: Tensor) -> Tensor:
    """z ~ Gamma(α, 1): (α − ⅓)·v of the first candidate that passes, v = (1 + c·ε)³, c = 1/√(9α − 3).

    A candidate passes when log U < ½ε² + (α − ⅓)(1 − v + log v). Where none does, v = 1, near the mode.

    Args:
        concentration: α ≥ 1, (…, d).
        place, judge: (…, CANDIDATES, d) standard normal; ε, and what U is made of.

    Returns:
        (…, d); constants, for the learner: a gradient through it would miss the choice of the candidate.
    """
    scale = concentration.unsqueeze(-2) - 1.0 / 3.0
    root = (1.0 + place / torch.sqrt(9.0 * scale)).clamp(min=ROOT_MIN)
    v = root * root * root
    bound = 0.5 * place * place + scale * (1.0 - v + 3.0 * torch.log(root))
    drawn = first(torch.log(uniform(judge)) < bound, v, dim=-2)
    return scale.squeeze(-2) * torch.where(drawn < ROOT_MIN**3, torch.ones_like(drawn), drawn)
