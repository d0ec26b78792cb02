"""What may change between a run and its resumption. Needs no torch: the supervisor asks before it starts anything."""

from __future__ import annotations

from typing import Any

from robotsac.config.learn import LearnConfig

OPERATIONAL_KEYS = frozenset({"device", "threads", "nice", "publish_every_s", "checkpoint_every_s", "checkpoints_kept"})
"""Keys of ``[learn]`` that say how the machine is used, not what is learned. (The device that ``device`` resolves to is
compared by the checkpoint: random streams do not carry over from one kind to another.)"""


def differences(before: dict[str, Any], now: LearnConfig) -> list[str]:
    """Keys of ``[learn]`` that would change what is learned, in words; empty when a resume is the same run.

    Args:
        before: the ``[learn]`` table the run was started with, as JSON data.
        now: the table given for the resumption.
    """
    after = now.model_dump(mode="json")
    keys = sorted((before.keys() | after.keys()) - OPERATIONAL_KEYS)
    return [
        f"learn.{key} was {before.get(key, 'not set')}, now {after.get(key, 'not set')}"
        for key in keys
        if before.get(key) != after.get(key)
    ]
