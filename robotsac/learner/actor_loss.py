"""What the actor minimises: J_π = E[α log π(a|s) − Q(s, a)] over states and the policy's own actions.

But for a factor α and the constant log Z it is KL(π ‖ exp(Q/α)/Z) (Haarnoja et al. 2018a, eq. 10). Two estimators of its
gradient, both right on average; ``tools/bench_gradients.py`` measures their variance.
"""

from __future__ import annotations

from torch import Tensor

from robotsac.learner.networks import same_shape


def actor_loss(log_prob: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """J_π = mean_b (α log π(a|s) − Q(s, a)), a = f_φ(ε; s) (Haarnoja et al. 2018b, eqs. 7 and 9).

    Its gradient (2018b, eq. 10; 2018a, eq. 13) goes through the density and through the action:
    ∇_φ α log π(a|s) + (∇_a α log π(a|s) − ∇_a Q(s, a)) ∇_φ f_φ(ε; s).

    Args:
        log_prob: (b,) of the reparameterised action, with its graph.
        value: (b,) min_i Q_θi of :meth:`Critic.frozen` at that action: the gradient passes to the action, not to θ.
        alpha: () temperature, detached.

    Returns:
        ()
    """
    same_shape(log_prob, value)
    return (alpha * log_prob - value).mean()


def score_function_loss(log_prob: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """The same J_π, with the score-function gradient ∇J_π = E[∇ log π(a|s) (α log π(a|s) − Q(s, a) − b)].

    (Williams 1992, REINFORCE; the term E[∇ log π] α is zero.) The baseline b of each row is the mean over the other
    rows of the batch, which depends on no action of this row, so it takes variance out and adds no bias. The loss's value
    is not J_π; only its gradient means something.

    That it is the gradient of :func:`actor_loss` is Stein's identity. For a density q(z) before squashing, and f that
    grows less than q falls, E_q[∇_z log q(z) f(z) + ∇_z f(z)] = ∫ ∇_z (q f) dz = 0. Of a Gaussian ∇_μ log q = −∇_z log q,
    so E[∇_μ log q f] = E[∇_z f]: score function on the left, path on the right, with f the critic's value or log π.

    Args:
        log_prob: (b,) of actions that are constants, with the graph of the density.
        value: (b,) at those actions.
        alpha: () temperature, detached.

    Returns:
        ()
    """
    same_shape(log_prob, value)
    cost = (alpha * log_prob - value).detach()
    if len(cost) > 1:
        cost = (cost - cost.mean()) * (len(cost) / (len(cost) - 1))
    return (log_prob * cost).mean()
