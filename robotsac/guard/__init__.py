"""The guard owns the arm at bus rate; only it makes torque."""

from robotsac.guard.guard import ControlTick, Guard, GuardCounters, GuardState

__all__ = ["ControlTick", "Guard", "GuardCounters", "GuardState"]
