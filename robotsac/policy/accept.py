"""Acceptance of a policy bundle on the robot, off the control loop.

In order: size → hash → scan (operators, no external data) → metadata → contract equals this robot's → not older than
what runs → load → golden outputs → finite and within [-1, 1] on random input → latency. The first failure refuses the
bundle, and the policy in use stays in use.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np

from robotsac.config.schema import PolicyConfig
from robotsac.contract import Contract
from robotsac.errors import BundleRejected
from robotsac.policy.bundle import BundleInfo
from robotsac.policy.onnx_scan import scan
from robotsac.policy.runner import Policy

PROBES = 64
PROBE_BOUND = 2.0
# Rounding may carry tanh a hair past one; anything more is another function.
ACTION_SLACK = 1e-5


def read_info(data: bytes) -> BundleInfo:
    """Scan a bundle and return its metadata; runs nothing.

    Raises:
        BundleRejected: not a bundle.
    """
    summary = scan(data)
    if not summary.metadata:
        raise BundleRejected("the file carries no robotsac metadata", reason="it was not exported by robotsac learn")
    try:
        return BundleInfo.from_json(summary.metadata)
    except ValueError as error:
        raise BundleRejected("the policy's metadata cannot be read", reason=str(error)) from error


def accept(
    data: bytes,
    contract: Contract,
    config: PolicyConfig,
    *,
    sha256: str | None = None,
    newer_than: tuple[str, int] | None = None,
) -> Policy:
    """Every check, then the policy, loaded and warm.

    Args:
        data: the bundle.
        contract: of this robot and task.
        config: limits and tolerances.
        sha256: what the sender announced, if anyone did.
        newer_than: (run id, version) in use; within that run an older or equal version is refused.

    Raises:
        BundleRejected: with the check that failed.
    """
    if len(data) > config.size_max_bytes:
        raise BundleRejected(f"the policy is {len(data)} bytes, the limit is {config.size_max_bytes} bytes")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise BundleRejected("the policy's bytes are not those announced", reason="sha256 differs")
    info = read_info(data)
    if difference := contract.difference(info.contract):
        raise BundleRejected("the policy is for another robot or task", reason=difference)
    if newer_than is not None and info.run_id == newer_than[0] and info.version <= newer_than[1]:
        raise BundleRejected(f"policy {info.version} is not newer than {newer_than[1]}, which is in use")
    if not 0 <= info.noise_dim <= 64 * contract.act_dim:
        raise BundleRejected(f"a noise input of {info.noise_dim} numbers is implausible")
    policy = Policy(data, info, config.threads)
    require_golden(golden_deviation(policy), config.golden_tolerance)
    latency_ms = require_bounded(policy)
    if latency_ms > config.latency_max_ms:
        raise BundleRejected(f"one action takes {latency_ms:.2f} ms, the limit is {config.latency_max_ms:.2f} ms")
    return policy


def golden_deviation(policy: Policy) -> float:
    """Largest difference between what a loaded policy computes here for its golden samples and what the learner got.

    Raises:
        BundleRejected: there are no samples that fit.
    """
    try:
        obs, noise, expected = policy.info.golden.arrays()
    except ValueError as error:
        raise BundleRejected("the policy's golden samples cannot be read", reason=str(error)) from error
    contract = policy.info.contract
    sizes = (obs.shape[1], noise.shape[1], expected.shape[1])
    if sizes != (contract.obs_dim, policy.info.noise_dim, contract.act_dim):
        raise BundleRejected("the policy's golden samples have the wrong sizes", reason=f"{sizes}")
    got = np.stack([policy.action(o, z) for o, z in zip(obs, noise, strict=True)])
    return float(np.abs(got - expected).max())


def require_golden(deviation: float, tolerance: float) -> None:
    """Refuse a ``deviation`` (:func:`golden_deviation`) above ``tolerance``, or that is no number. Raises BundleRejected."""
    if not deviation <= tolerance:
        raise BundleRejected(
            f"the policy computes other actions here than at the learner: off by {deviation:.2g}",
            reason=f"the tolerance is {tolerance:.2g}",
        )


def require_bounded(policy: Policy) -> float:
    """Refuse a policy whose actions for random input are not finite and within [-1, 1].

    Returns:
        How long one of them took, ms, median.

    Raises:
        BundleRejected: with an action that is not.
    """
    rng = np.random.default_rng(0)
    obs = rng.uniform(-PROBE_BOUND, PROBE_BOUND, (PROBES, policy.info.contract.obs_dim)).astype(np.float32)
    noise = rng.standard_normal((PROBES, policy.info.noise_dim)).astype(np.float32)
    actions, times_ns = [], []
    for o, z in zip(obs, noise, strict=True):
        begin_ns = time.perf_counter_ns()
        actions.append(policy.action(o, z))
        times_ns.append(time.perf_counter_ns() - begin_ns)
    # So written that NaN is wrong too.
    wrong = ~(np.abs(actions) <= 1.0 + ACTION_SLACK).all(axis=1)
    if wrong.any():
        action = actions[int(wrong.argmax())]
        raise BundleRejected(f"the policy gives the action {action}", reason="not finite, or outside [-1, 1]")
    return float(np.median(times_ns)) / 1e6
