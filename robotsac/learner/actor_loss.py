"""What the actor minimises."""

from __future__ import annotations

from torch import Tensor


def actor_loss(log_prob: Tensor, q: Tensor, alpha: Tensor) -> Tensor:
    """J_π = mean_b (α log π(a|s) − min_i Q_θi(s, a)), a = f_φ(ε; s) (Haarnoja et al. 2018b, eqs. 7 and 9).

    Args:
        log_prob: (b,) of the reparametrised action, with its graph.
        q: (N, b) of :meth:`Critic.frozen` at that action: the gradient passes through to the action, not to θ.
        alpha: () temperature, detached.

    Returns:
        ()
    """
    return (alpha * log_prob - q.amin(dim=0)).mean()
