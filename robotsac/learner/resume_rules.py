"""What may change between a run and its resumption. Needs no torch: the supervisor asks before it starts anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robotsac.config.learn import LearnConfig

OPERATIONAL_KEYS = frozenset(
    {"device", "threads", "backend", "nice", "publish_every_s", "checkpoint_every_s", "checkpoints_kept"}
)
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


def chosen(learn: LearnConfig) -> dict[str, Any]:
    """Keys by which ``learn`` differs from the defaults in what is learned, and their values, as JSON data."""
    usual = LearnConfig().model_dump(mode="json")
    given = learn.model_dump(mode="json").items()
    return {key: value for key, value in given if key not in OPERATIONAL_KEYS and value != usual[key]}


def tree_differences(before: Mapping[str, Any], now: Mapping[str, Any], *, of_both: bool = False) -> list[str]:
    """Keys of two whole configurations, as JSON data, that would change what is learned without a link, in words.

    ``of_both``: only keys that both have, where another version of the software may have made one of them.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    if of_both:
        old, new = ({key: table[key] for key in old.keys() & new.keys()} for table in (old, new))
    return [
        f"{key} was {old.get(key, 'not set')}, now {new.get(key, 'not set')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        where = (*path, key)
        if isinstance(value, dict):
            yield from _leaves(value, where)
        elif where[0] not in ("link", "spool") and not (path == ("learn",) and key in OPERATIONAL_KEYS):
            yield ".".join(where), value
