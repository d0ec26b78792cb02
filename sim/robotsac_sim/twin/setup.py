"""From ``[robot.sim]`` to a bus with servos on it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from robotsac.config.loading import validate
from robotsac.config.schema import RobotConfig
from robotsac.errors import ConfigError
from robotsac_sim.plant import SimServo, SimTable, build_plant
from robotsac_sim.twin.assumed import ASSUMED, Assumptions
from robotsac_sim.twin.bus import Overlap, VirtualBus
from robotsac_sim.twin.faults import parse_fault
from robotsac_sim.twin.models import MODELS
from robotsac_sim.twin.physics import Physics
from robotsac_sim.twin.protocol import BAUD_BY_CODE, ID_MAX
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.table import Item, Reg, build_table


class TwinServo(SimServo):
    """``[[robot.sim.servos]]``: what stands on the bus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: int = Field(ge=0, le=ID_MAX)
    reversed: bool = False
    zero_count: int = Field(default=2048, ge=0, le=4095)
    # EEPROM registers that differ from the factory's, by name in lower case, e.g. { operating_mode = 0 }.
    registers: dict[str, int] = Field(default_factory=dict)


class TwinTable(SimTable):
    """``[robot.sim]``, as the twin reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servos: tuple[TwinServo, ...] = ()
    # What the servos were set to when the arm was assembled; a servo fresh from the box speaks 57 600 bit/s.
    baud: int = 3_000_000
    # Faults on order, for tests of a whole robot; refused unless allowed. Keys: kind (see ``faults.KINDS``), at_ns, ...
    allow_faults: bool = False
    faults: tuple[dict[str, Any], ...] = ()


def build_bus(
    robot: RobotConfig,
    *,
    physics: Physics | None = None,
    assumed: Assumptions = ASSUMED,
    overlap: Overlap = Overlap.COLLIDE,
    allow_faults: bool | None = None,
) -> VirtualBus:
    """The bus that a robot's ``[robot.sim]`` describes.

    Args:
        robot: resolved config.
        physics: what the servos move; ``None`` builds the MuJoCo plant.
        allow_faults: whether faults may be injected; ``None`` leaves it to the config.

    Raises:
        ConfigError: a servo model, register or baud rate that the twin does not know, or one servo per joint missing.
    """
    table = validate(TwinTable, robot.sim, "robot.sim")
    if len(table.servos) != len(robot.joints):
        raise ConfigError(
            f"robot.sim.servos has {len(table.servos)} entries for {len(robot.joints)} joints",
            reason="the virtual bus needs one servo per joint",
        )
    if table.baud not in BAUD_BY_CODE:
        raise ConfigError(f"robot.sim.baud: {table.baud} is no rate of these servos", reason=f"known: {BAUD_BY_CODE}")
    servos = [_build_servo(entry, table, assumed) for entry in table.servos]
    bus = VirtualBus(
        servos,
        build_plant(robot) if physics is None else physics,
        supply_v=table.supply_v,
        assumed=assumed,
        overlap=overlap,
        allow_faults=table.allow_faults if allow_faults is None else allow_faults,
    )
    if table.faults:
        bus.inject(*(parse_fault(entry) for entry in table.faults))
    return bus


def _build_servo(entry: TwinServo, table: TwinTable, assumed: Assumptions) -> Servo:
    model = MODELS.get(entry.model)
    if model is None:
        raise ConfigError(
            f"robot.sim.servos: the virtual bus has no servo {entry.model!r}", reason=f"known: {', '.join(MODELS)}"
        )
    items = build_table(model)
    return Servo(
        model,
        entry.id,
        baud=table.baud,
        reversed_mount=entry.reversed,
        zero_count=entry.zero_count,
        presets={reg: value for name, value in entry.registers.items() for reg in (_eeprom(name, value, items),)},
        volt_v=table.supply_v,
        assumed=assumed,
    )


def _eeprom(name: str, value: int, items: dict[int, Item]) -> Reg:
    reg = Reg.__members__.get(name.upper())
    item = items.get(reg) if reg is not None else None
    if reg is None or item is None or not item.eeprom or not item.accepts(value):
        raise ConfigError(
            f"robot.sim.servos.registers: {name} = {value} is no EEPROM value of this servo",
            reason="registers are named as in the e-manual, with underscores, and hold what their size allows",
        )
    return reg
