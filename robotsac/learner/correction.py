"""Game-theoretic corrections of SAC's gradients: consensus optimisation and symplectic gradient adjustment.

An experiment, off by default. The networks are players, each with its own loss. Of SAC (``sac``) there are two:

    critic   L_Q(θ, φ) = Σ_i mean ½ (Q_θi(s, a) − y(φ))²,   y = r + γ(1 − d)(min Q_θ̄(s', a') − α log π_φ(a'|s'))
    actor    L_π(θ, φ) = mean (α log π_φ(a|s) − min Q_θi(s, a))

and of SAC v1 (``sac_v1``) three, the actor's as above:

    value    L_V(ψ, θ, φ) = mean ½ (V_ψ(s) − v(θ, φ))²,      v = min Q_θi(s, a) − α log π_φ(a|s)
    critic   L_Q(θ) = Σ_i mean ½ (Q_θi(s, a) − r − γ(1 − d) V_ψ̄(s'))²

ξ, each loss's gradient by its own player, stacked, is what plain SAC steps along; H is ξ's Jacobian in all parameters. The
game that is corrected has every action of the policy in the graph: y and v depend on φ, v on θ. With the usual detached
targets the critic would not notice the actor, H would be block triangular, and its eigenvalues those of the players alone.
Target networks and temperature are constants of the game, so in SAC v1 nobody's gradient depends on V. ξ itself is the same
as SAC's, since no player differentiates its target by its own parameters. ξ is the gradient of no single function, so the
theory of the papers holds for the game as written here, not for fitted Q-iteration as a whole.

    consensus    ξ + λ Hᵀξ                    Mescheder, Nowozin and Geiger 2017, algorithm 2: down ½|ξ|² as well
    symplectic   ξ + λ Aᵀξ, A = (H − Hᵀ)/2    Balduzzi et al. 2018, algorithm 1, λ's sign aligned

Products with H and Hᵀ come from autograd; H is never formed. Beyond the gradients themselves, consensus costs one reverse
pass through them, symplectic two more, through a larger graph: with all that, three and nine times an update
(``tools/bench_update.py``). Eager only: a second derivative is taken through everything, so everything must have one. ReLU's
is zero wherever it exists, and what the networks do at its kinks would be missing; the Beta head's implicit gradient has only
a first derivative. The configuration refuses both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam

from robotsac.config.learn import LearnConfig

Vectors = list[Tensor]
ALIGNED_FROM = -1e-3
"""A product of cosines above this keeps λ positive: rounding must not decide about a pure rotation, where it is 0. (The
paper adds 0.1 to the product itself, which depends on the unit of the losses.)"""


@dataclass(frozen=True, slots=True)
class Correction:
    """What is added to the players' gradients.

    Args:
        kind: which.
        weight: λ > 0.
        normalised: scale the correction, per player, to the length of that player's gradient before λ is applied.
    """

    kind: Literal["consensus", "symplectic"]
    weight: float
    normalised: bool

    @classmethod
    def of(cls, learn: LearnConfig) -> Correction | None:
        """As ``[learn]`` says; ``None`` for none."""
        if learn.correction == "none":
            return None
        return cls(learn.correction, learn.correction_weight, learn.correction_normalised)

    def step(self, losses: Sequence[Tensor], optimizers: Sequence[Adam]) -> None:
        """One simultaneous step of every player along its corrected gradient.

        Args:
            losses: as of :meth:`gradients`.
            optimizers: one per player; what it optimises is the player.
        """
        players = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
        for player, gradients in zip(players, self.gradients(losses, players), strict=True):
            for parameter, gradient in zip(player, gradients, strict=True):
                parameter.grad = gradient
        for optimizer in optimizers:
            optimizer.step()

    def gradients(self, losses: Sequence[Tensor], players: Sequence[Sequence[Tensor]]) -> list[Vectors]:
        """Corrected gradients, per player and parameter.

        Args:
            losses: one scalar per player, twice differentiable.
            players: the parameters of each.
        """
        everything = [parameter for player in players for parameter in player]
        xi = [
            gradient
            for loss, player in zip(losses, players, strict=True)
            for gradient in _gradients(loss, player, create_graph=True)
        ]
        plain = [gradient.detach() for gradient in xi]
        added = self._correction(xi, plain, everything)
        result, start = [], 0
        for player in players:
            stop = start + len(player)
            result.append(self._sum(plain[start:stop], added[start:stop]))
            start = stop
        return result

    def _correction(self, xi: Vectors, plain: Vectors, parameters: Vectors) -> Vectors:
        transposed = transposed_product(xi, parameters, plain)
        if self.kind == "consensus":
            return transposed
        product = jacobian_product(xi, parameters, plain)
        adjustment = [0.5 * (t - p) for t, p in zip(transposed, product, strict=True)]
        # Alignment (Balduzzi et al. 2018, algorithm 1): Hᵀξ is the gradient of ½|ξ|², and λ's sign is such that the
        # adjustment bends ξ toward stable fixed points and away from unstable ones.
        alignment = _cosine(plain, transposed) * _cosine(adjustment, transposed)
        sign = torch.where(alignment >= ALIGNED_FROM, 1.0, -1.0)
        return [sign * part for part in adjustment]

    def _sum(self, gradient: Vectors, added: Vectors) -> Vectors:
        weight: Tensor | float = self.weight
        if self.normalised:
            length = _norm(added)
            weight = torch.where(length > 0, self.weight * _norm(gradient) / length, 0.0)
        return [g + weight * a for g, a in zip(gradient, added, strict=True)]


def transposed_product(xi: Vectors, parameters: Vectors, vector: Vectors) -> Vectors:
    """Hᵀv with H = ∂ξ/∂w: the gradient of ξ·v with v constant. Shapes as ``parameters``."""
    return _gradients(_dot(xi, vector), parameters)


def jacobian_product(xi: Vectors, parameters: Vectors, vector: Vectors) -> Vectors:
    """Hv, of two reverse passes: Hᵀu is linear in u, and the gradient of (Hᵀu)·v by u is Hv. Shapes as ``parameters``."""
    u = [torch.zeros_like(g, requires_grad=True) for g in xi]
    through = _gradients(_dot(xi, u), parameters, create_graph=True)
    return _gradients(_dot(through, vector), u)


def _gradients(scalar: Tensor, by: Sequence[Tensor], create_graph: bool = False) -> Vectors:
    if not scalar.requires_grad:
        return [torch.zeros_like(parameter) for parameter in by]
    found = torch.autograd.grad(scalar, list(by), create_graph=create_graph, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(by, found, strict=True)]


def _dot(one: Vectors, other: Vectors) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()


def _norm(vectors: Vectors) -> Tensor:
    return torch.stack([vector.square().sum() for vector in vectors]).sum().sqrt()


def _cosine(one: Vectors, other: Vectors) -> Tensor:
    """0 where one of them is 0."""
    lengths = _norm(one) * _norm(other)
    return torch.where(lengths > 0, _dot(one, other) / lengths, 0.0)
