"""Joint states to observations, actions to torques: static scales, written down in the contract.

observation = [ q/π | dq/dq_max | task channels | last k applied actions, newest first ]   float32, within ±4
torque beyond gravity compensation = action · action_scale
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from robotsac.arm import ArmSpec, JointState, Vector
from robotsac.contract import SCHEMA, Channel, Contract

OBS_BOUND = 4.0
"""Observations are clipped to ± this: far outside anything the limits let happen."""


class Codec:
    """Fixed at construction.

    Args:
        spec: of the arm.
        task_name, task_parameters, task_channels: of the task.
        history_steps: past applied actions in the observation.
    """

    def __init__(
        self,
        spec: ArmSpec,
        task_name: str,
        task_parameters: dict[str, str],
        task_channels: tuple[Channel, ...],
        history_steps: int,
    ) -> None:
        n = spec.n
        history = (Channel("applied_actions", n * history_steps, "1", (1.0,) * (n * history_steps)),)
        self.contract = Contract(
            schema=SCHEMA,
            task=task_name,
            task_parameters=task_parameters,
            joint_names=spec.joint_names,
            control_rate_hz=spec.control_rate_hz,
            history_steps=history_steps,
            observation=(
                Channel("q", n, "rad", (math.pi,) * n),
                Channel("dq", n, "rad/s", tuple(spec.dq_max.tolist())),
                *task_channels,
                *(history if history_steps else ()),
            ),
            action=(Channel("torque", n, "N·m", tuple(spec.action_scale.tolist())),),
            model_digest=spec.model_digest,
        )
        self.obs_dim = self.contract.obs_dim
        self.act_dim = self.contract.act_dim
        self._scale = np.array([s for channel in self.contract.observation for s in channel.scale])
        self._action_scale = spec.action_scale

    def observation(self, state: JointState, task: Vector, history: Vector) -> NDArray[np.float32]:
        """(obs_dim,) float32 from a joint state, the task's numbers and the past actions (k, n), newest first."""
        raw = np.concatenate((state.q, state.dq, task, history.ravel())) / self._scale
        bounded: NDArray[np.float32] = np.minimum(np.maximum(raw, -OBS_BOUND), OBS_BOUND).astype(np.float32)
        return bounded

    def torque(self, action: Vector) -> Vector:
        """N·m (n,) for an action (n,) in [-1, 1]; beyond ±1 is cut, not finite passes on to the guard, which faults."""
        # To cut an infinity to ±1 would be to make full torque of it.
        if np.count_nonzero(np.isfinite(action)) == len(action):
            action = np.minimum(np.maximum(action, -1.0), 1.0)
        return action * self._action_scale

    def action(self, tau: Vector) -> Vector:
        """The action (n,) that asks for ``tau`` (n,), N·m: what was applied, in the policy's units, within ±1."""
        return np.clip(tau / self._action_scale, -1.0, 1.0)
