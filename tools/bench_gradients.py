"""The variance of the two policy gradients, reparameterised and score-function, on one batch.

    python tools/bench_gradients.py --json

For each policy head, once as it starts and once partly trained: SAC on a one-step task (the best action is a fixed smooth
function of the observation), then, on one batch of states, both gradients of the policy loss over and over with fresh noise,
the same for both. Printed are the squared length of the mean gradient and the variance about it, summed over all of the
actor's parameters, and how many times the score function's is that of the path. The task is made up: on it the figures
compare estimators, not heads.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import Tensor

from robotsac.config import LearnConfig
from robotsac.learner.actor_loss import actor_loss, score_function_loss
from robotsac.learner.algorithm import update
from robotsac.learner.replay import Batch
from robotsac.learner.sac import SacState

OBS_DIM, ACT_DIM, RATE_HZ = 8, 4, 50.0
HEADS = ("gaussian", "mixture", "beta")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--updates", type=int, default=1000, help="of the partly trained actor")
    parser.add_argument("--draws", type=int, default=200, help="gradients of each kind")
    parser.add_argument("--batch", type=int, default=256, help="states")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if min(arguments.draws, arguments.batch) < 2 or arguments.updates < 1:
        parser.error("--draws and --batch must be at least 2, --updates at least 1")
    torch.set_num_threads(1)
    result = {head: measure(head, arguments) for head in arguments.heads}
    if arguments.json:
        print(json.dumps({"settings": vars(arguments), "torch": str(torch.__version__), "heads": result}))
        return
    for head, stages in result.items():
        for stage, row in stages.items():
            figures = "   ".join(f"{name} {value:.3g}" for name, value in row.items())
            print(f"{head:<9} {stage:<8} {figures}")


def measure(head: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Both stages of one head."""
    learn = LearnConfig.model_validate({"head": head, "hidden": (64, 64), "seed": arguments.seed})
    state = SacState.create(learn, OBS_DIM, ACT_DIM, RATE_HZ, torch.device("cpu"))
    generator = torch.Generator().manual_seed(arguments.seed)
    goal = torch.randn(OBS_DIM, ACT_DIM, generator=generator) / OBS_DIM**0.5
    obs = torch.randn(arguments.batch, OBS_DIM, generator=generator)
    fresh = compare(state, obs, arguments.draws, generator)
    for _ in range(arguments.updates):
        train(state, goal, arguments.batch, generator)
    return {"fresh": fresh, "trained": compare(state, obs, arguments.draws, generator)}


def train(state: SacState, goal: Tensor, rows: int, generator: torch.Generator) -> None:
    """One update on fresh states; half of the actions are the policy's, half uniform."""
    obs = torch.randn(rows, OBS_DIM, generator=generator)
    with torch.no_grad():
        noise = torch.randn(rows, state.noise_shape.action, generator=generator)
        action = state.actor.sample(obs, noise).action
    action[::2] = 2.0 * torch.rand(action[::2].shape, generator=generator) - 1.0
    reward = -(action - torch.tanh(obs @ goal)).square().sum(dim=1)
    update(state, Batch(obs, action, reward, obs, torch.ones(rows)), state.noise_shape.draw(rows, generator))


def compare(state: SacState, obs: Tensor, draws: int, generator: torch.Generator) -> dict[str, float]:
    """Mean and variance of both gradients at ``obs`` (b, obs_dim), of the same ``draws`` noises."""
    noises = torch.randn(draws, len(obs), state.noise_shape.action, generator=generator)
    path, score = (torch.stack([gradient(state, obs, noise, kind) for noise in noises]) for kind in (True, False))
    variances = float(path.var(dim=0).sum()), float(score.var(dim=0).sum())
    return {
        "gradient_squared": float(path.mean(dim=0).square().sum()),
        "path_variance": variances[0],
        "score_variance": variances[1],
        "score_over_path": variances[1] / variances[0],
    }


def gradient(state: SacState, obs: Tensor, noise: Tensor, pathwise: bool) -> Tensor:
    """∇_φ J_π of one noise (b, noises·act_dim), as an update forms it: (parameters,)."""
    action, log_prob = state.actor.sample(obs, noise, pathwise)
    value = state.critic.frozen(obs, action).amin(dim=0)
    loss = (actor_loss if pathwise else score_function_loss)(log_prob, value, state.log_alpha.detach().exp())
    parts = torch.autograd.grad(loss, list(state.actor.parameters()))
    return torch.cat([part.flatten() for part in parts])


if __name__ == "__main__":
    main()
