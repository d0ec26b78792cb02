"""``[robot.driver]`` of a Dynamixel arm: what may stand there, and whether it fits the robot it stands in."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robotsac.config.loading import validate
from robotsac.config.schema import JointConfig, RobotConfig
from robotsac.errors import ConfigError
from robotsac_hardware.control_table import (
    BAUD_CODES,
    COUNTS_PER_TURN,
    MODELS,
    RAD_PER_COUNT,
    WATCHDOG_UNIT_MS,
    WATCHDOG_UNITS_MAX,
)
from robotsac_hardware.fast_reply import BLOCK_OVERHEAD, HEAD_SIZE
from robotsac_hardware.feedback import BLOCK_SIZE
from robotsac_hardware.frames import ID_MAX

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

BITS_PER_BYTE = 10  # 8 data, 1 start, 1 stop
USB_LATENCY_S = 1e-3  # one FTDI latency period; the port refuses a longer one
# Time from the end of a request to the first byte of the answer. Not published for the X series: assumed.
TURNAROUND_S = 50e-6
# Share of the bus period that the bus round may fill; the rest is the guard's and the scheduler's.
BUS_SHARE_MAX = 0.7
_SYNC_OVERHEAD = 14  # bytes of a sync packet around its ids and data
_STATUS_OVERHEAD = 11


class ServoParams(BaseModel):
    """One servo, in joint order.

    ``current_max_a`` is programmed into the servo's Current Limit. ``zero_count`` is Present Position where the joint is at
    0 rad. ``reversed``: the servo turns against the joint axis; handled as a sign in this driver. ``homing_offset_count``
    is what the servo's Homing Offset must already be, since ``zero_count`` was taken with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[int, Field(ge=0, le=ID_MAX)]
    model: str
    torque_constant_nm_a: Positive
    current_max_a: Positive
    zero_count: Annotated[int, Field(ge=0, lt=COUNTS_PER_TURN)] = COUNTS_PER_TURN // 2
    reversed: bool = False
    homing_offset_count: int = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.model not in MODELS:
            raise ValueError(f"model {self.model!r} is not one of {', '.join(sorted(MODELS))}")
        model = MODELS[self.model]
        limit_a = model.current_limit_max * model.current_unit_a
        if limit_a and self.current_max_a > limit_a:
            raise ValueError(f"current_max_a {self.current_max_a} A > {limit_a:.3f} A, the most a {self.model} takes")
        if self.current_max_a < model.current_unit_a:
            raise ValueError(f"current_max_a {self.current_max_a} A is less than one count of a {self.model}")
        return self


class DynamixelParams(BaseModel):
    """``[robot.driver]``: exactly one of ``port`` and ``port_command`` is given.

    ``read_deadline_ms``: how long one attempt waits for its reply. ``watchdog_ms``: silence after which a servo switches
    itself off. ``velocity_window``: samples of the velocity estimate, see ``velocity``. ``fast_sync_read``: false for
    firmware that does not know it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: str = ""
    port_command: tuple[str, ...] = ()
    baud: int
    read_deadline_ms: Positive
    watchdog_ms: int
    servos: Annotated[tuple[ServoParams, ...], Field(min_length=1)]
    fast_sync_read: bool = True
    firmware_min: Annotated[int, Field(ge=38, le=255)] = 45
    velocity_window: Annotated[int, Field(ge=4, le=64)] = 8

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.port) == bool(self.port_command):
            raise ValueError("give exactly one of port (a device) and port_command (a program that provides one)")
        if self.baud not in BAUD_CODES:
            raise ValueError(f"baud {self.baud} is not one of {', '.join(map(str, BAUD_CODES))} bit/s")
        units, rest = divmod(self.watchdog_ms, WATCHDOG_UNIT_MS)
        if rest or not 1 <= units <= WATCHDOG_UNITS_MAX:
            longest = WATCHDOG_UNITS_MAX * WATCHDOG_UNIT_MS
            raise ValueError(
                f"watchdog_ms {self.watchdog_ms} is not a multiple of {WATCHDOG_UNIT_MS} ms up to {longest}"
            )
        ids = [servo.id for servo in self.servos]
        if len(set(ids)) != len(ids):
            raise ValueError(f"servo ids must differ: {ids}")
        for servo in self.servos:
            if self.baud > MODELS[servo.model].baud_max:
                raise ValueError(f"a {servo.model} (id {servo.id}) does not run at {self.baud} bit/s")
        return self

    @property
    def watchdog_units(self) -> int:
        """Value of the Bus Watchdog register."""
        return self.watchdog_ms // WATCHDOG_UNIT_MS

    def bus_bytes(self) -> int:
        """Bytes on the wire in one bus round: sync write of goal currents, read request, reply."""
        n = len(self.servos)
        write = _SYNC_OVERHEAD + n * (1 + 2)
        request = _SYNC_OVERHEAD + n
        if self.fast_sync_read:
            return write + request + HEAD_SIZE + n * (BLOCK_SIZE + BLOCK_OVERHEAD)
        return write + request + n * (_STATUS_OVERHEAD + BLOCK_SIZE)

    def round_s(self) -> float:
        """Expected duration of one bus round, s: wire time, turnaround and one USB latency period."""
        answers = 1 if self.fast_sync_read else len(self.servos)
        return self.bus_bytes() * BITS_PER_BYTE / self.baud + answers * TURNAROUND_S + USB_LATENCY_S


def read_params(robot: RobotConfig) -> DynamixelParams:
    """The validated parameters of a robot's Dynamixel driver.

    Raises:
        ConfigError: a parameter is wrong in itself or does not fit the robot's joints, rates or guard.
    """
    params = validate(DynamixelParams, robot.driver.params(), "robot.driver")
    check_params(params, robot)
    return params


def check_params(params: DynamixelParams, robot: RobotConfig) -> None:
    """Hold the driver's parameters against the joints, the bus rate and the guard.

    Raises:
        ConfigError: naming the joint or key, the value and the limit.
    """
    if len(params.servos) != len(robot.joints):
        raise ConfigError(
            f"robot.driver.servos has {len(params.servos)} servos for {len(robot.joints)} joints",
            reason="there is one servo per joint, in joint order",
        )
    for index, (servo, joint) in enumerate(zip(params.servos, robot.joints, strict=True)):
        _check_joint(index, servo, joint)
    period_s = 1.0 / robot.bus_rate_hz
    if params.round_s() > BUS_SHARE_MAX * period_s:
        raise ConfigError(
            f"one bus round takes {params.round_s() * 1e3:.2f} ms > {BUS_SHARE_MAX * period_s * 1e3:.2f} ms, "
            f"{BUS_SHARE_MAX:.0%} of the bus period",
            reason=f"{params.bus_bytes()} bytes at {params.baud} bit/s and {USB_LATENCY_S * 1e3:g} ms of USB latency, "
            f"{robot.bus_rate_hz} times a second; raise robot.driver.baud or lower robot.bus_rate_hz",
        )
    if params.read_deadline_ms < params.round_s() * 1e3:
        raise ConfigError(
            f"robot.driver.read_deadline_ms {params.read_deadline_ms:g} ms < {params.round_s() * 1e3:.2f} ms, "
            "what a bus round takes",
            reason="every round would be given up before its reply can be there",
        )
    if params.read_deadline_ms >= robot.guard.gap_max_ms:
        raise ConfigError(
            f"robot.driver.read_deadline_ms {params.read_deadline_ms:g} ms must be below "
            f"robot.guard.gap_max_ms {robot.guard.gap_max_ms:g} ms",
            reason="otherwise one reply that does not come is a silence for which the guard stops the arm",
        )
    if params.watchdog_ms <= robot.guard.gap_max_ms:
        raise ConfigError(
            f"robot.driver.watchdog_ms {params.watchdog_ms} ms must exceed "
            f"robot.guard.gap_max_ms {robot.guard.gap_max_ms:g} ms",
            reason="otherwise the servos switch off during a gap that the guard allows",
        )


def _check_joint(index: int, servo: ServoParams, joint: JointConfig) -> None:
    where = f"joint {index} ({joint.name})"
    torque_nm = servo.current_max_a * servo.torque_constant_nm_a
    if joint.tau_max_nm > torque_nm:
        raise ConfigError(
            f"{where}: tau_max_nm {joint.tau_max_nm:g} N·m > {torque_nm:.3f} N·m",
            reason=f"that is current_max_a {servo.current_max_a:g} A times torque_constant_nm_a "
            f"{servo.torque_constant_nm_a:g} N·m/A of servo {servo.id}",
        )
    sign = -1 if servo.reversed else 1
    for q in (joint.q_min_rad - joint.hard_margin_rad, joint.q_max_rad + joint.hard_margin_rad):
        count = servo.zero_count + sign * q / RAD_PER_COUNT
        if not 0 <= count <= COUNTS_PER_TURN - 1:
            raise ConfigError(
                f"{where}: {q:.3f} rad is encoder count {count:.0f}, outside 0…{COUNTS_PER_TURN - 1}",
                reason="the servo forgets full turns when it reboots, so a joint must not cross the encoder's wrap; "
                "turn the horn, then set zero_count",
            )
