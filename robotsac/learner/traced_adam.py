"""Adam as plain tensor arithmetic, where a whole update is traced into one graph.

torch's own optimizer keeps itself out of traces. This works on its state, so that either can go on where the other stopped,
and reads no number back to the host: the count of steps is a tensor too, and a CUDA graph that is replayed counts on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


def with_moments(optimizer: Optimizer) -> None:
    """Give each parameter that is learned and has had no step yet the moments it would begin with: zeros, and no steps."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad and not optimizer.state[parameter]:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


def traced_step(optimizer: Optimizer, loss: Tensor) -> None:
    """One step of Adam down ``loss`` (Kingma and Ba 2015, algorithm 1); the optimizer has its moments already."""
    (group,) = optimizer.param_groups
    parameters: list[Tensor] = group["params"]
    gradients = torch.autograd.grad(loss, parameters)
    (beta1, beta2), rate, epsilon = group["betas"], group["lr"], group["eps"]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state = optimizer.state[parameter]
            steps, first, second = state["step"], state["exp_avg"], state["exp_avg_sq"]
            steps.add_(1.0)
            first.lerp_(gradient, 1.0 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
            size = rate / (1.0 - beta1**steps)
            spread = second.sqrt() / (1.0 - beta2**steps).sqrt() + epsilon
            parameter.sub_(size * first / spread)
