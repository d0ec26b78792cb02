"""``policy show``: for people and for scripts, and what a robot would not take it does not pass over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_world import run, small_policy

from robotsac.policy.store import BundleStore


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory) -> Path:
    return small_policy(tmp_path_factory.mktemp("policy"))


def test_a_policy_shows_every_scale_in_joint_order(monkeypatch, capsys, policy_file):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run(monkeypatch, capsys, "policy", "show", str(policy_file))
    shown = " ".join(out.split())
    assert "dq 6 rad/s 2.5, 2.5, 2.5, 3.5, 3.5, 3.5" in shown
    assert "q 6 rad 3.142" in shown, "once where all are the same"
    assert "torque 6 N·m 2, 2.5, 1.2, 0.4, 0.4, 0.3" in shown
    assert "…" not in shown
    _, out, _ = run(monkeypatch, capsys, "policy", "show", str(policy_file), "--json")
    told = json.loads(out)
    assert told["action"] == [{"name": "torque", "size": 6, "unit": "N·m", "scale": [2.0, 2.5, 1.2, 0.4, 0.4, 0.3]}]
    assert all(len(channel["scale"]) == channel["size"] for channel in told["observation"])
    assert [channel["name"] for channel in told["observation"]][:2] == ["q", "dq"]


def shown(monkeypatch, capsys, file: Path) -> tuple[int, str, str, dict]:
    """Exit code, text and errors of ``policy show``, and what it tells a script, which is the same."""
    code, out, err = run(monkeypatch, capsys, "policy", "show", str(file))
    again, told, _ = run(monkeypatch, capsys, "policy", "show", str(file), "--json")
    assert again == code
    (line,) = told.splitlines()
    return code, out, err, json.loads(line)


def test_a_policy_is_shown_for_people_with_its_golden_outputs(monkeypatch, capsys, policy_file):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _, told = shown(monkeypatch, capsys, policy_file)
    assert code == 0
    assert "joints base_yaw, shoulder_pitch, elbow_pitch," in " ".join(out.split())
    assert re.search(r"task_parameters +\w+ [\d.]+, ", out)
    assert "{" not in out and "['" not in out
    assert re.search(r"golden outputs +match *\n", out)
    assert re.search(r"learn +hidden \[8\]", out) and told["learn"] == {"hidden": [8]}, "what is not as usual"
    assert told["golden_outputs"]["match"] and told["error"] is None and told["as_published"] is None


def flipped(policy_file: Path, target: Path, weight: float) -> bytes:
    """A copy with one weight changed."""
    model = onnx.load_from_string(policy_file.read_bytes())
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[0] += weight
    tensor.raw_data = values.tobytes()
    target.write_bytes(model.SerializeToString())
    return target.read_bytes()


@pytest.mark.parametrize(
    ("weight", "words"), [(3.0, r"differ \(by [\d.]+, tolerance 0.0001\)"), (np.nan, "differ .by nan")]
)
def test_a_policy_that_computes_something_else_here_is_shown_and_refused(
    monkeypatch, capsys, policy_file, tmp_path, weight, words
):
    flipped(policy_file, tmp_path / "p.onnx", weight)
    code, out, err, told = shown(monkeypatch, capsys, tmp_path / "p.onnx")
    assert code == told["error"]["exit_code"] == 7
    assert re.search(rf"golden outputs +{words}", out)
    assert "computes other actions here" in err and "p.onnx" in err
    assert not told["golden_outputs"]["match"]


def test_a_policy_that_is_not_the_published_file_is_refused_even_where_it_computes_the_same(
    monkeypatch, capsys, policy_file, tmp_path
):
    store = BundleStore(tmp_path / "policies")
    entry = store.publish(policy_file.read_bytes(), 1)
    code, out, _, told = shown(monkeypatch, capsys, tmp_path)
    assert code == 0 and ", as published" in out and told["as_published"]
    flipped(policy_file, tmp_path / "policies" / entry.file, 1e-7)
    code, out, err, told = shown(monkeypatch, capsys, tmp_path)
    assert code == 7 and "NOT as published" in out and "match" in out and "sha256" in err
    assert told["as_published"] is False and told["golden_outputs"]["match"]
