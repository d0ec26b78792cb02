"""From weights to policy bundles.

torch's exporter runs once per architecture and takes seconds; each version after that is the same graph with other
initializers, patched by name in well under a millisecond. That the names mean what they seem to is proved at the start: every
tensor is replaced by random numbers, in the graph and in a copy of the module, and both must still agree.
"""

from __future__ import annotations

import copy
import logging
import platform
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import robotsac
from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, RobotsacError
from robotsac.learner.actor import Actor
from robotsac.learner.networks import Normaliser
from robotsac.policy.bundle import (
    ALLOWED_OPERATORS,
    BUNDLE_SCHEMA,
    METADATA_KEY,
    ONNX_IR_VERSION,
    ONNX_OPSET,
    BundleInfo,
    Golden,
)

GOLDEN_ROWS = 8
GOLDEN_SEED = 20180101
STEADY_STEP = 1e-4
STEADY_DIFFERENCE = 1e-2
"""A golden row whose action changes by more when its noise does by STEADY_STEP is at the edge of a choice between components
or candidates, where rounding may choose otherwise on the robot; without noise nothing is chosen."""
PARITY_TOLERANCE = 1e-5
"""Largest difference between torch and onnxruntime on an action in [-1, 1]; float32 sums in another order."""
_EXPORTER = f"torch {torch.__version__} and onnx {onnx.__version__}"
_OTHER_EXPORTER = "pip install --upgrade 'robotsac[learn]'"


class ExportError(RobotsacError):
    """A policy could not be exported, or what was exported is not the policy."""


class DeployedPolicy(nn.Module):
    """What runs on the robot: normaliser, actor, noise and squashing in one graph."""

    def __init__(self, normaliser: Normaliser, actor: Actor) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.actor = actor

    def forward(self, obs: Tensor, noise: Tensor) -> Tensor:
        """obs (b, obs_dim), noise (b, noise_dim) → action (b, act_dim) in [-1, 1]; zero noise = deterministic."""
        return self.actor.action(self.normaliser(obs), noise)


class PolicyExporter:
    """Makes the bundles of one run.

    Args:
        normaliser, actor: the live ones; only read.
        contract: goes into every bundle.
        run_id: of this run.
        config_digest: sha256 of the learner's settings.
        learn: what of them to tell (:func:`~robotsac.learner.resume_rules.chosen`).
    """

    def __init__(
        self,
        normaliser: Normaliser,
        actor: Actor,
        contract: Contract,
        run_id: str,
        config_digest: str,
        learn: Mapping[str, Any] | None = None,
    ) -> None:
        self._live = DeployedPolicy(normaliser, actor)
        # A copy on the CPU: the snapshot a bundle is made from, whatever the live weights do meanwhile.
        self._snapshot = copy.deepcopy(self._live).cpu().requires_grad_(False)
        self._contract, self._run_id, self._config_digest = contract, run_id, config_digest
        self._learn = dict(learn or {})
        generator = torch.Generator().manual_seed(GOLDEN_SEED)
        self._obs = torch.empty(GOLDEN_ROWS, contract.obs_dim).uniform_(-1.0, 1.0, generator=generator)
        self._noise_dim = actor.head.noises * contract.act_dim
        self._noise = torch.randn(GOLDEN_ROWS, self._noise_dim, generator=generator)
        self._noise[: GOLDEN_ROWS // 2] = 0.0
        self._template: onnx.ModelProto | None = None
        self._initializers: dict[str, onnx.TensorProto] = {}

    def prepare(self) -> None:
        """Export the template and prove that patching it works. Takes seconds; call before training starts.

        Raises:
            ExportError: the graph is not one that a robot accepts, or does not compute the policy.
        """
        self._template = _export_template(self._snapshot, self._contract.obs_dim, self._noise_dim)
        self._initializers = _initializers_by_name(self._template, self._snapshot)
        _require_acceptable(self._template)
        self._snapshot_live()
        self._require_parity("as exported")
        with torch.no_grad():
            generator = torch.Generator().manual_seed(GOLDEN_SEED)
            for tensor in self._snapshot.state_dict().values():
                # Away from 0, so that it can stand in for a standard deviation too.
                tensor.uniform_(0.05, 0.15, generator=generator)
        self._require_parity("with every tensor replaced")

    def bundle(self, version: int, updates: int) -> bytes:
        """The bytes of a bundle with the live weights as they are now.

        Args:
            version: policy version, ≥ 1.
            updates: gradient updates behind it.

        Raises:
            ExportError: the policy's output is not finite: training has diverged.
        """
        self._snapshot_live()
        noise, action = self._golden()
        if not np.isfinite(action).all():
            raise ExportError(
                f"policy {version} is not finite after {updates} updates",
                reason="training has diverged; the robots keep the last good policy",
                command=f"{ANOTHER_RUN} --set learn.critic_lr=1e-4",
            )
        info = BundleInfo(
            schema=BUNDLE_SCHEMA,
            contract=self._contract,
            run_id=self._run_id,
            version=version,
            updates=updates,
            noise_dim=self._noise_dim,
            config_digest=self._config_digest,
            versions=software_versions(),
            golden=Golden.of(self._obs.numpy(), noise.numpy(), action),
            learn=self._learn,
        )
        return self._patched(info.to_json())

    def _snapshot_live(self) -> None:
        self._snapshot.load_state_dict(self._live.state_dict())

    @torch.no_grad()
    def _golden(self) -> tuple[Tensor, NDArray[np.float32]]:
        """Noise (g, noise_dim), silenced where it is at an edge of the present policy, and the actions (g, act_dim)."""
        here, *near = (self._snapshot(self._obs, self._noise + step) for step in (0.0, STEADY_STEP, -STEADY_STEP))
        moved = torch.stack([(action - here).abs().amax(dim=1) for action in near]).amax(dim=0)
        noise = torch.where(moved[:, None] > STEADY_DIFFERENCE, 0.0, self._noise)
        # Row by row, as the robot will: a batched product may round differently.
        rows = [self._snapshot(self._obs[i : i + 1], noise[i : i + 1]) for i in range(GOLDEN_ROWS)]
        action: NDArray[np.float32] = torch.cat(rows).numpy()
        return noise, action

    def _patched(self, metadata: str) -> bytes:
        if self._template is None:
            raise ExportError("prepare() comes before bundle()")
        for name, tensor in self._snapshot.state_dict().items():
            self._initializers[name].raw_data = tensor.numpy().tobytes()
        del self._template.metadata_props[:]
        self._template.metadata_props.add(key=METADATA_KEY, value=metadata)
        data: bytes = self._template.SerializeToString()
        return data

    def _require_parity(self, when: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self._patched("{}"), options, providers=["CPUExecutionProvider"])
        golden_noise, expected = self._golden()
        obs, noise = self._obs.numpy(), golden_noise.numpy()
        feeds = ({"obs": obs[i : i + 1], "noise": noise[i : i + 1]} for i in range(GOLDEN_ROWS))
        got = np.concatenate([session.run(None, feed)[0] for feed in feeds])
        worst = float(np.abs(got - expected).max())
        if not worst <= PARITY_TOLERANCE:
            raise ExportError(
                f"the exported policy {when} differs from torch's by {worst:.3g} > {PARITY_TOLERANCE:g}",
                reason=f"initializers are not the tensors they are named after, with {_EXPORTER}",
                command=_OTHER_EXPORTER,
            )


def software_versions() -> dict[str, str]:
    """What a bundle or checkpoint was made with."""
    return {
        "robotsac": robotsac.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
    }


def _export_template(policy: DeployedPolicy, obs_dim: int, noise_dim: int) -> onnx.ModelProto:
    example = (torch.zeros(1, obs_dim), torch.zeros(1, noise_dim))
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "template.onnx"
            torch.onnx.export(
                policy.eval(),
                example,
                path,
                input_names=["obs", "noise"],
                output_names=["action"],
                opset_version=ONNX_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            model = onnx.load_model_from_string(path.read_bytes())
    finally:
        log.setLevel(level)
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes for debugging: source paths of this machine, shapes in between, names."""
    model.doc_string = ""
    model.graph.doc_string = ""
    model.ir_version = ONNX_IR_VERSION
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _initializers_by_name(model: onnx.ModelProto, policy: DeployedPolicy) -> dict[str, onnx.TensorProto]:
    stored = {initializer.name: initializer for initializer in model.graph.initializer}
    for name, tensor in policy.state_dict().items():
        if name not in stored or tuple(stored[name].dims) != tuple(tensor.shape):
            raise _unexpected(f"has no initializer {name} of shape {tuple(tensor.shape)}")
        if stored[name].data_type != onnx.TensorProto.FLOAT:
            raise _unexpected(f"has an initializer {name} that is not float32")
        stored[name].ClearField("float_data")
    return {name: stored[name] for name in policy.state_dict()}


def _require_acceptable(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    strange = sorted({node.op_type for node in model.graph.node} - ALLOWED_OPERATORS)
    if strange:
        raise _unexpected(f"uses operators that no robot accepts: {', '.join(strange)}")
    opsets = [(opset.domain, opset.version) for opset in model.opset_import]
    if opsets != [("", ONNX_OPSET)]:
        raise _unexpected(f"asks for {opsets} instead of opset {ONNX_OPSET}")


def _unexpected(what: str) -> ExportError:
    return ExportError(
        f"the exported graph {what}", reason=f"{_EXPORTER} exports otherwise than expected", command=_OTHER_EXPORTER
    )
