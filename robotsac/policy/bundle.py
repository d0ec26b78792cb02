"""The policy bundle: one self-contained ONNX file that carries its own contract.

The graph holds normaliser, network, squashing and noise. Inputs: ``obs`` (1, obs_dim) and ``noise`` (1, noise_dim),
float32; output ``action`` (1, act_dim) in [-1, 1]. Zero noise gives the deterministic action. The metadata property
``robotsac`` holds a :class:`BundleInfo` as JSON; the learner writes it, the robot checks it (``robotsac.policy.accept``).
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from robotsac.contract import Contract

METADATA_KEY = "robotsac"
BUNDLE_SCHEMA = 1
METADATA_BYTES_MAX = 1_000_000

# Pinned: what the learner writes and the robot's onnxruntime must be able to read.
ONNX_IR_VERSION = 10
ONNX_OPSET = 18

ALLOWED_OPERATORS = frozenset(
    {
        "Add", "Cast", "Clip", "Concat", "Constant", "CumSum", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gemm",
        "Greater", "Identity", "LayerNormalization", "LeakyRelu", "Less", "Log", "MatMul", "Max", "Min", "Mul", "Neg",
        "Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Slice", "Softplus", "Split", "Sqrt",
        "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators a policy may use: arithmetic on tensors, nothing with control flow, files, randomness or custom code."""


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs and the outputs the learner got for them: float32, little-endian, row-major, base64.

    Args:
        count: rows, g.
        obs: (g, obs_dim).  noise: (g, noise_dim).  action: (g, act_dim).
    """

    count: int
    obs: str
    noise: str
    action: str

    @classmethod
    def of(cls, obs: NDArray[np.float32], noise: NDArray[np.float32], action: NDArray[np.float32]) -> Golden:
        """Pack three arrays with the same number of rows."""
        return cls(count=len(obs), obs=_pack(obs), noise=_pack(noise), action=_pack(action))

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """``(obs, noise, action)``, each with ``count`` rows. Raises ValueError when a size does not fit."""
        if not 1 <= self.count <= 1024:
            raise ValueError(f"golden count {self.count} is not in 1..1024")
        obs, noise, action = (
            np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").reshape(self.count, -1)
            for text in (self.obs, self.noise, self.action)
        )
        return obs, noise, action


class BundleInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle says about itself.

    Args:
        schema: version of this layout.
        contract: what robot and task it is for.
        run_id: the learner run that made it.
        version: policy version, increasing within a run, ≥ 1.
        updates: gradient updates behind it.
        noise_dim: length of the noise input.
        config_digest: sha256 of the learner's resolved settings.
        versions: of the software that made it.
        golden: inputs and expected outputs.
        learn: keys of ``[learn]`` by which its learner differed from the defaults; told to people, read by nobody else.
    """

    schema: int
    contract: Contract
    run_id: str
    version: int
    updates: int
    noise_dim: int
    config_digest: str
    versions: dict[str, str]
    golden: Golden
    learn: dict[str, Any] = {}

    def to_json(self) -> str:
        """The text of the metadata property."""
        return msgspec.json.encode(self, order="deterministic").decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> BundleInfo:
        """Parse and check sizes. Raises ValueError (msgspec's errors are ValueErrors too)."""
        if len(text) > METADATA_BYTES_MAX:
            raise ValueError(f"metadata of {len(text)} bytes is over the limit of {METADATA_BYTES_MAX}")
        info = msgspec.json.decode(text, type=cls)
        if info.schema != BUNDLE_SCHEMA:
            raise ValueError(f"bundle schema {info.schema} is not {BUNDLE_SCHEMA}")
        return info


def _pack(array: NDArray[np.float32]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()
