"""The command line as a test types it, and a policy for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from robotsac.actor.contract import robot_contract
from robotsac.cli import main as cli
from robotsac.config import load_config
from robotsac.learner.export import PolicyExporter
from robotsac.learner.resume_rules import chosen
from robotsac.learner.sac import SacState

ROOT = Path(__file__).parents[2]


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``robotsac ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", ["robotsac", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def small_policy(folder: Path) -> Path:
    """A bundle for the simulated arm0 in ``folder``."""
    config = load_config("arm0-sim")
    contract = robot_contract(config)
    learn = config.learn.model_copy(update={"hidden": (8,)})
    state = SacState.create(learn, contract.obs_dim, contract.act_dim, 50, torch.device("cpu"))
    exporter = PolicyExporter(state.normaliser, state.actor, contract, "run-1", "digest", chosen(learn))
    exporter.prepare()
    path = folder / "p.onnx"
    path.write_bytes(exporter.bundle(1, updates=10))
    return path
