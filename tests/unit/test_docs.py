"""What the documentation says of the configuration is what the configuration is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from robotsac.config import LearnConfig

PAGE = (Path(__file__).parents[2] / "configs/learn.md").read_text(encoding="utf-8")


def test_every_key_of_learn_is_listed_in_order_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.+?)`|none) \|", PAGE, flags=re.MULTILINE)
    defaults = LearnConfig().model_dump(mode="json")
    listed = {key: tomllib.loads(f"value = {text}")["value"] if text else None for key, text in rows}
    assert listed == defaults and list(listed) == list(defaults)


def test_every_set_of_keys_that_is_suggested_is_taken():
    family = PAGE.partition("## The family")[2].partition("## Every key")[0]
    suggested = [
        re.findall(r"`(\w+ = [^`]+)`", row.split("|")[2]) for row in family.splitlines() if row.startswith("| ")
    ]
    tables = [tomllib.loads("\n".join(keys)) for keys in suggested if keys]
    assert len(tables) > 12
    for table in tables:
        table.pop("noise_hold_s", None)  # of [collect]
        LearnConfig.model_validate(table)


def test_every_file_that_is_named_is_there():
    for name in re.findall(r"`((?:heads/)?\w+\.py)`", PAGE):
        assert (Path(__file__).parents[2] / "robotsac/learner" / name).exists(), name
