"""The arm in configs/README.md is a whole one: it checks out, it moves, and none of its keys could be left out."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium
import pytest

import robotsac.env
from robotsac.cli.inspect import check_config
from robotsac.config import load_config
from robotsac.errors import ConfigError

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "configs/README.md").read_text(encoding="utf-8")
# The only key of the example that has a default; the example says so.
OPTIONAL = {"policy_damping_nm_s_rad"}


def block(language: str) -> str:
    """The one code block of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    (tmp_path / "two.xml").write_text(block("xml"))
    (tmp_path / "two.toml").write_text(block("toml"))
    return tmp_path / "two.toml"


def test_it_checks_out_without_a_warning(arm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_config(str(arm), [], [], as_json=False) == 0
    out = capsys.readouterr().out
    assert re.search(r"joints +2\n", out) and "warning" not in out


def test_it_moves(arm: Path) -> None:
    env = gymnasium.make(robotsac.env.ENV_ID, robot=str(arm))
    env.action_space.seed(0)
    first, _ = env.reset(seed=0)
    for _ in range(20):
        obs, reward, *_, info = env.step(env.action_space.sample())
        assert "fault" not in info
    assert obs.shape == first.shape == env.observation_space.shape
    assert abs(obs - first).max() > 0.01 and reward < 0.0
    env.close()


@pytest.mark.parametrize("line", [line for line in block("toml").splitlines() if "=" in line])
def test_no_key_of_it_could_be_left_out(arm: Path, line: str) -> None:
    key = line.split("=")[0].strip()
    arm.write_text(block("toml").replace(line, "", 1))
    if key in OPTIONAL:
        assert load_config(str(arm))
        return
    with pytest.raises(ConfigError, match="field required") as caught:
        load_config(str(arm))
    assert key.split(".")[-2 if key == "driver.name" else -1] in caught.value.reason


def test_the_readme_leads_there_and_says_how_long_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = int(re.search(r"configs/README\.md\) has a whole one, two joints in (\d+) lines", readme)[1])
    assert lines - 5 < len((block("toml") + block("xml")).splitlines()) <= lines
