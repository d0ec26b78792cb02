"""The guard owns the arm at bus rate; only it makes torque."""

from robotsac.guard.bus_loop import GuardCounters
from robotsac.guard.guard import Guard, never
from robotsac.guard.state import ControlTick, GuardState

__all__ = ["ControlTick", "Guard", "GuardCounters", "GuardState", "never"]
