"""Electrical figures of the motors that a plant can stand on.

The data sheets give stall torque, stall current and no-load speed at 12 V; the three constants follow from them:
k_t = stall torque / stall current, R = 12 V / stall current, k_e = 12 V / no-load speed. With a gearbox k_e exceeds k_t:
friction takes its share of the torque but not of the speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
RAD_S_PER_RPM = 2.0 * np.pi / 60.0


@dataclass(frozen=True, slots=True)
class MotorModel:
    """One motor with its gearbox, seen from the output shaft.

    Args:
        torque_constant_nm_a: N·m per A of phase current.
        back_emf_v_s_rad: V per rad/s.
        resistance_ohm: phase resistance.
    """

    torque_constant_nm_a: float
    back_emf_v_s_rad: float
    resistance_ohm: float

    @classmethod
    def from_data_sheet(cls, stall_torque_nm: float, stall_current_a: float, no_load_rpm: float) -> MotorModel:
        """From the three figures at 12 V."""
        return cls(
            torque_constant_nm_a=stall_torque_nm / stall_current_a,
            back_emf_v_s_rad=12.0 / (no_load_rpm * RAD_S_PER_RPM),
            resistance_ohm=12.0 / stall_current_a,
        )


# ROBOTIS e-manual, specifications at 12.0 V.
MOTORS: dict[str, MotorModel] = {
    "XM540-W270": MotorModel.from_data_sheet(stall_torque_nm=10.6, stall_current_a=4.4, no_load_rpm=30.0),
    "XM430-W350": MotorModel.from_data_sheet(stall_torque_nm=4.1, stall_current_a=2.3, no_load_rpm=46.0),
}


class MotorBank:
    """The motors of all joints as arrays.

    Args:
        motors: one per joint, in config order.
        supply_v: bus voltage.
    """

    def __init__(self, motors: list[MotorModel], supply_v: float) -> None:
        self.torque_constant = np.array([motor.torque_constant_nm_a for motor in motors])
        back_emf = np.array([motor.back_emf_v_s_rad for motor in motors])
        resistance = np.array([motor.resistance_ohm for motor in motors])
        # tau = k_t (u - k_e dq) / R with |u| <= supply: an offset that follows speed, and a half-width that does not.
        self._drag = self.torque_constant * back_emf / resistance
        self._reach = self.torque_constant * supply_v / resistance

    def deliver(self, tau: Vector, dq: Vector) -> Vector:
        """The part of ``tau`` (n,), N·m, that the supply can push against the back-EMF at ``dq`` (n,), rad/s."""
        drag = self._drag * dq
        delivered: Vector = np.minimum(np.maximum(tau, -self._reach - drag), self._reach - drag)
        return delivered
