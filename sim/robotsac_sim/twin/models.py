"""What differs between servo models.

Registers: ROBOTIS e-manual, pages XM430-W350 and XM540-W270. Motor figures: ``robotsac_sim.motors``. Thermal figures are
assumed: chosen so that a fifth of the stall current, which ROBOTIS recommends as a working load, warms the case by about
10 K, and a stalled motor shuts down within about a minute.
"""

from __future__ import annotations

from dataclasses import dataclass

from robotsac_sim.motors import MOTORS, MotorModel

# First firmware that answers Fast Sync Read and Fast Bulk Read (X430 and X540).
FAST_READ_FIRMWARE = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class ServoModel:
    """One servo type. Register values in register units.

    Attributes:
        number: Model Number (0).
        firmware: Firmware Version (6).
        current_limit: factory Current Limit (38), which is also its maximum.
        current_unit_a: A per count of current.
        external_ports: whether External Port registers exist.
        motor: electrical figures at the output shaft.
        thermal_k_w: K per W of copper loss at rest, assumed.
        thermal_s: time constant of the case, assumed.
    """

    name: str
    number: int
    firmware: int = 46
    temperature_limit_c: int = 80
    voltage_min: int = 95
    voltage_max: int = 160
    current_limit: int
    current_unit_a: float = 0.00269
    velocity_limit: int
    velocity_i: int = 1920
    velocity_p: int = 100
    position_d: int = 0
    position_i: int = 0
    position_p: int = 800
    shutdown: int = 0x34
    external_ports: bool = False
    motor: MotorModel
    thermal_k_w: float
    thermal_s: float


MODELS: dict[str, ServoModel] = {
    model.name: model
    for model in (
        ServoModel(
            name="XM430-W350",
            number=1020,
            current_limit=1193,
            velocity_limit=200,
            motor=MOTORS["XM430-W350"],
            thermal_k_w=10.0,
            thermal_s=300.0,
        ),
        ServoModel(
            name="XM540-W270",
            number=1120,
            current_limit=2047,
            velocity_limit=128,
            external_ports=True,
            motor=MOTORS["XM540-W270"],
            thermal_k_w=5.0,
            thermal_s=400.0,
        ),
    )
}
