"""What ``bench_learner.py`` compares with on a GPU: SAC as LeanRL describes its fastest variant, written from that description.

Two functions, the critics' update and that of actor and temperature, are compiled in torch's default mode and recorded as a
CUDA graph each; critics are stacked and evaluated by ``torch.func.vmap``; replay and sampling are on the device; the
temperature is a tensor; nothing is read back. The target moves in place after the critics' update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from contender import ACT_DIM, BATCH, DISCOUNT, HIDDEN, LEARNING_RATE, OBS_DIM, POLYAK, ROWS
from torch import Tensor, nn

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
WARM_UP = 3


class CompiledPeer:
    """See module docstring.

    Args:
        device: ``cuda`` or ``cuda:N``.

    Raises:
        RuntimeError: no GPU.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        if self.device.type != "cuda":
            raise RuntimeError("it records CUDA graphs: --device cuda")
        torch.set_default_device(self.device)
        self.actor = mlp(OBS_DIM, 2 * ACT_DIM)
        networks = [mlp(OBS_DIM + ACT_DIM, 1) for _ in range(2)]
        self.critic, _ = torch.func.stack_module_state(networks)
        self.target = {name: tensor.detach().clone() for name, tensor in self.critic.items()}
        self.shape = copy.deepcopy(networks[0]).to("meta")
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.critic_adam = torch.optim.Adam(list(self.critic.values()), lr=LEARNING_RATE, capturable=True)
        self.actor_adam = torch.optim.Adam(list(self.actor.parameters()), lr=LEARNING_RATE, capturable=True)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr=LEARNING_RATE, capturable=True)
        self.replay = torch.randn(ROWS, 2 * OBS_DIM + ACT_DIM + 2)
        self.replay[:, -1] = 0.0
        self.batch = self.replay[:BATCH].clone()
        self.critic_step = recorded(torch.compile(self._critics))
        self.actor_step = recorded(torch.compile(self._actor))

    def updates(self, count: int) -> None:
        """So many updates of all, and wait for the device."""
        for _ in range(count):
            torch.index_select(self.replay, 0, torch.randint(ROWS, (BATCH,)), out=self.batch)
            self.critic_step()
            self.actor_step()
        torch.cuda.synchronize(self.device)

    def _q(self, parameters: dict[str, Tensor], obs: Tensor, action: Tensor) -> Tensor:
        x = torch.cat((obs, action), dim=1)
        call = torch.func.functional_call
        q: Tensor = torch.func.vmap(lambda one: call(self.shape, one, (x,)))(parameters)
        return q.squeeze(-1)

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.actor(obs).chunk(2, dim=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1.0)
        noise = torch.randn_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        density = -0.5 * noise.square() - log_std - torch.log(1.0 - action.square() + 1e-6)
        return action, density.sum(dim=-1)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.batch.split([OBS_DIM, ACT_DIM, OBS_DIM, 1, 1], dim=1)

    def _critics(self) -> None:
        obs, action, next_obs, reward, terminal = self._parts()
        with torch.no_grad():
            next_action, log_prob = self._sample(next_obs)
            value = self._q(self.target, next_obs, next_action).amin(dim=0) - self.log_alpha.exp() * log_prob
            wanted = reward[:, 0] + DISCOUNT * (1.0 - terminal[:, 0]) * value
        loss = (self._q(self.critic, obs, action) - wanted).square().mean(dim=1).sum()
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_adam.step()
        with torch.no_grad():
            for name, tensor in self.target.items():
                tensor.lerp_(self.critic[name], POLYAK)

    def _actor(self) -> None:
        obs = self._parts()[0]
        action, log_prob = self._sample(obs)
        loss = (self.log_alpha.detach().exp() * log_prob - self._q(self.critic, obs, action).amin(dim=0)).mean()
        self.actor_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.actor_adam.step()
        temperature = -(self.log_alpha.exp() * (log_prob.detach() - ACT_DIM)).mean()
        self.alpha_adam.zero_grad()
        temperature.backward()  # type: ignore[no-untyped-call]
        self.alpha_adam.step()


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    layers = (nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))
    return nn.Sequential(*layers)


def recorded(function: Callable[[], None]) -> Callable[[], None]:
    """``function`` as a CUDA graph to be replayed."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
