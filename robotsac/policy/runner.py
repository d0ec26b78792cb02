"""A loaded policy: one onnxruntime session with its buffers bound, one action per call."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from robotsac.errors import BundleRejected
from robotsac.policy.bundle import BundleInfo


class Policy:
    """One policy version, ready to run.

    Args:
        data: the bundle's bytes, already scanned.
        info: its metadata.
        threads: of the session; more than one never pays for a policy this small.

    Raises:
        BundleRejected: onnxruntime does not take it, or its shapes are not the contract's.
    """

    def __init__(self, data: bytes, info: BundleInfo, threads: int = 1) -> None:
        self.info = info
        self.version = info.version
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Idle workers that spin would take the core from the bus.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exception types share no base of their own
            raise BundleRejected("onnxruntime does not load the policy", reason=_first_line(error)) from error
        shapes = {item.name: tuple(item.shape) for item in (*self._session.get_inputs(), *self._session.get_outputs())}
        wanted = {
            "obs": (1, info.contract.obs_dim),
            "noise": (1, info.noise_dim),
            "action": (1, info.contract.act_dim),
        }
        if shapes != wanted:
            raise BundleRejected("the policy's shapes are not its contract's", reason=f"{shapes} instead of {wanted}")
        self._buffers = {name: np.zeros(shape, dtype=np.float32) for name, shape in wanted.items()}
        # Bound once: building a feed for each call costs half as much again as running the graph.
        self._binding = self._session.io_binding()
        for name, buffer in self._buffers.items():
            bind = self._binding.bind_output if name == "action" else self._binding.bind_input
            bind(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def action(self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Action (act_dim,), a fresh array, for an observation (obs_dim,); without ``noise`` (noise_dim,) the
        deterministic one.

        Raises:
            ValueError: another shape.
        """
        self._fill("obs", obs)
        if noise is None:
            self._buffers["noise"][:] = 0.0
        else:
            self._fill("noise", noise)
        self._session.run_with_iobinding(self._binding)
        action: NDArray[np.float32] = self._buffers["action"][0].copy()
        return action

    def _fill(self, name: str, values: NDArray[np.float32]) -> None:
        """Into the bound input; without the check numpy would repeat one number to fill it."""
        row = self._buffers[name][0]
        if values.shape != row.shape:
            raise ValueError(f"{name} has shape {values.shape}, policy v{self.version} takes {row.shape}")
        row[:] = values


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
