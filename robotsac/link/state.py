"""How a link stands, in words and numbers that other processes read."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from robotsac.contract import Contract

LIMIT_NONE = -1
"""The learner sets no bound on ``seq``."""
LIMIT_NOTHING = -2
"""The learner wants no record at all, not even ``seq`` 0."""


class LinkState(enum.IntEnum):
    """How the robot's link stands."""

    STARTING = 0
    CONNECTING = 1
    UP = 2
    DOWN = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class Notice:
    """Words for the operator: what happened, why, which command helps."""

    message: str = ""
    reason: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class RobotCard:
    """Who the robot is: name, present boot, contract, versions of its software."""

    robot: str
    boot: str
    contract: Contract
    versions: dict[str, str]
