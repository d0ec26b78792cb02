"""What makes a servo protect itself: heat, overload, supply voltage."""

from __future__ import annotations

import math

from robotsac_sim.twin.assumed import Assumptions
from robotsac_sim.twin.configured import Configured
from robotsac_sim.twin.models import ServoModel
from robotsac_sim.twin.protocol import Cause

# Plain integers: flag arithmetic is slow, and this runs for every servo at every look.
OVERHEATING, INPUT_VOLTAGE, OVERLOAD = int(Cause.OVERHEATING), int(Cause.INPUT_VOLTAGE), int(Cause.OVERLOAD)


class Health:
    """One servo's condition.

    Copper loss heats the case as a first-order lag; overload is a current near the stall current for too long.

    Args:
        model: motor and thermal figures.
        assumed: thresholds.

    Attributes:
        temperature_c: case.
        volt_v: at the servo's connector.
        latched: bits of Hardware Error Status; cleared only by a reboot.
        shut_down: a cause enabled in Shutdown (63) has switched the motor off.
    """

    def __init__(self, model: ServoModel, assumed: Assumptions, volt_v: float) -> None:
        self._resistance_ohm = model.motor.resistance_ohm
        self._thermal_k_w = model.thermal_k_w
        self._thermal_s = model.thermal_s
        self._assumed = assumed
        self._strained_s = 0.0
        self._temperature_limit_c = model.temperature_limit_c
        self._volt_min, self._volt_max = model.voltage_min * 0.1, model.voltage_max * 0.1
        self.temperature_c = assumed.ambient_c
        self.volt_v = volt_v
        self.latched = 0
        self.shut_down = False

    def set_limits(self, configured: Configured) -> None:
        """Take over the configured limits."""
        self._temperature_limit_c = configured.temperature_limit_c
        self._volt_min, self._volt_max = configured.volt_min, configured.volt_max

    def step(self, current_a: float, dt_s: float) -> int:
        """``dt_s`` passed at this phase current; returns what is wrong now, as bits of :class:`Cause`."""
        resistance = self._resistance_ohm
        rest_c = self._assumed.ambient_c + current_a * current_a * resistance * self._thermal_k_w
        self.temperature_c += (rest_c - self.temperature_c) * -math.expm1(-dt_s / self._thermal_s)
        found = OVERHEATING if self.temperature_c > self._temperature_limit_c else 0
        if not self._volt_min <= self.volt_v <= self._volt_max:
            found |= INPUT_VOLTAGE
        if abs(current_a) * resistance > self._assumed.overload_share * self.volt_v:
            self._strained_s += dt_s
            if self._strained_s * 1e9 >= self._assumed.overload_ns:
                found |= OVERLOAD
        else:
            self._strained_s = 0.0
        return found

    def clear(self) -> None:
        """Reboot. The heat stays."""
        self._strained_s = 0.0
        self.latched = 0
        self.shut_down = False
