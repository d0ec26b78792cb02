"""The arm port on a bus of Dynamixel X servos: Protocol 2.0, current control, one bus round per tick.

A round is one write (sync write of Goal Current, then a request for every servo's block) and one read before a deadline.
When the reply is damaged or incomplete and the tick has time for it, the whole round is sent once more: goals are
absolute, so writing them twice is harmless, and a lost reply cannot be told from a lost request. Above one retry the guard
decides. A silent round usually leaves no time: then the next tick is the retry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robotsac.arm import ArmSpec, ArmState, JointState, LimitedTorque, Vector
from robotsac.clock import NS_PER_S, Clock, MonotonicClock
from robotsac.config.schema import RobotConfig
from robotsac.errors import ArmError, ArmSetupError, ArmStateError, BusCorrupt, BusTimeout, RobotsacError
from robotsac_hardware import control_table as table
from robotsac_hardware.bus import Bus, Servo
from robotsac_hardware.control_table import IndirectBlock
from robotsac_hardware.feedback import BlockReader, FastReader, GoalWriter, PlainReader, Rows
from robotsac_hardware.observer import Observer
from robotsac_hardware.params import DynamixelParams, read_params
from robotsac_hardware.port import Port, SerialPort
from robotsac_hardware.port_command import PortProgram
from robotsac_hardware.pose import refuse_pose
from robotsac_hardware.startup import Identity, Setup, configure, expect_unchanged, identify, refuse_hardware_error
from robotsac_hardware.torque_off import torque_off
from robotsac_hardware.units import JointUnits
from robotsac_hardware.velocity import SlopeVelocity

# A round with its retry may use this much of the tick.
TICK_SHARE = 0.9


@dataclass(slots=True)
class Counters:
    """What the bus did since ``connect``.

    Attributes:
        rounds: bus rounds begun.
        retries: rounds sent a second time.
        timeouts: attempts that brought nothing.
        corrupt: attempts that brought bytes but no complete, checked reply.
        stale_joints: joints that did not answer, summed over rounds.
    """

    rounds: int = 0
    retries: int = 0
    timeouts: int = 0
    corrupt: int = 0
    stale_joints: int = 0


class DynamixelArm:
    """An ``Arm`` of Dynamixel servos. See ``robotsac.arm`` for what each method promises.

    Args:
        spec: the arm.
        params: ``[robot.driver]``.
        clock: its time; the port's deadlines are on it.
        open_port: opens the line to the servos.

    Attributes:
        counters: what the bus did; written here, read by anyone.
        identities: who answered at ``connect``, in joint order.
    """

    def __init__(self, spec: ArmSpec, params: DynamixelParams, clock: Clock, open_port: Callable[[], Port]) -> None:
        self.spec = spec
        self.clock = clock
        self.counters = Counters()
        self.identities: tuple[Identity, ...] = ()
        named = zip(spec.joint_names, params.servos, strict=True)
        servos = tuple(Servo(joint, name, servo) for joint, (name, servo) in enumerate(named))
        self._setup = Setup(spec, params, servos, JointUnits(params.servos))
        self._open_port = open_port
        self._state = ArmState.DISCONNECTED
        self._torque_is_off = False
        self._seq = 0
        self._port: Port | None = None
        self._bus: Bus | None = None
        self._block: IndirectBlock | None = None
        self._tau_zero = np.zeros(spec.n)
        self._attempt_ns, self._retry_ns, self._budget_ns = _timing(spec, params)

    @property
    def state(self) -> ArmState:
        """Where in the lifecycle the arm is."""
        return self._state

    def torque_is_off(self) -> bool:
        """Whether every servo was read back with torque off since torque was last touched."""
        return self._torque_is_off

    def connect(self) -> None:
        """DISCONNECTED → IDLE; see ``startup`` for the order. Raises as ``Arm.connect``."""
        self._require(ArmState.DISCONNECTED)
        self._port = port = self._open_port()
        try:
            bus = Bus(port, self.clock)
            self.identities = identify(bus, self._setup)
            self._bus = bus  # from here on stop() may write: before, these could be anybody's servos
            self._block = configure(bus, self._setup, self.identities)
            self._torque_is_off = True
            self._prepare_rounds(self._block.data_at)
            self._state = ArmState.IDLE
            self._first_look()
        except BaseException:
            self.close()
            raise

    def energize(self) -> None:
        """IDLE → ENERGIZED; torque is off again when it fails. Raises as ``Arm.energize``."""
        self._require(ArmState.IDLE)
        assert self._bus is not None and self._block is not None
        for servo in self._setup.servos:
            refuse_hardware_error(self._bus, servo)
            expect_unchanged(self._bus, self._setup, servo, self._block)
            self._bus.keep(servo, table.BUS_WATCHDOG, 0)  # expired, it would refuse the next line
            self._bus.keep(servo, table.GOAL_CURRENT, 0)
        refuse_pose(self._bus, self._setup, self.clock)
        try:
            self._torque_is_off = False
            for servo in self._setup.servos:
                self._bus.keep(servo, table.TORQUE_ENABLE, 1)
            for servo in self._setup.servos:
                self._bus.keep(servo, table.BUS_WATCHDOG, self._setup.params.watchdog_units)
        except BaseException:
            self.stop()
            raise
        self._observer.expect(energized=True, watchdog_units=self._setup.params.watchdog_units)
        self._state = ArmState.ENERGIZED

    def exchange(self, torque: LimitedTorque) -> JointState:
        """ENERGIZED: one bus round.

        A joint that did not answer keeps its last values with ``fresh`` false.

        Raises:
            BusTimeout, BusCorrupt, BusLost: no joint answered, or a position cannot be.
            JointFault: see ``observer``.
            ArmError: a torque is not finite.
        """
        self._require(ArmState.ENERGIZED)
        units = self._setup.units
        if not math.isfinite(np.add.reduce(torque)):  # a clamp would turn an infinity into full torque
            raise ArmError(f"torque {torque} N·m is not finite", reason="the guard should not have admitted it")
        goal = units.goal(torque)
        return self._round(self._goals.frame(goal), units.torque(goal))

    def read(self) -> JointState:
        """IDLE: the same round without goals. Raises as :meth:`exchange`."""
        self._require(ArmState.IDLE)
        return self._round(self._reader.request, self._tau_zero.copy())

    def stop(self) -> None:
        """Torque off, read back from every servo within 0.3 s; :meth:`torque_is_off` says whether that worked."""
        if self._bus is None:
            return
        self._torque_is_off = False
        if self._state is ArmState.ENERGIZED:
            self._state = ArmState.IDLE
            self._observer.expect(energized=False, watchdog_units=0)
        try:
            self._torque_is_off = torque_off(self._bus, self._setup.servos, self.clock)
        except Exception:  # noqa: BLE001  stop never raises; torque_is_off() stays False and says so
            self._torque_is_off = False

    def close(self) -> None:
        """Torque off, then give the port back."""
        self.stop()
        port, self._port, self._bus = self._port, None, None
        self._state = ArmState.DISCONNECTED
        if port is not None:
            try:
                port.close()
            except Exception:  # noqa: BLE001  close never raises; torque is off already, or never will be by us
                return

    def _require(self, state: ArmState) -> None:
        if self._state is not state:
            raise ArmStateError(f"the arm is {self._state.value}, this needs it {state.value}")

    def _prepare_rounds(self, data_at: int) -> None:
        """Everything a round needs, built once."""
        params, setup = self._setup.params, self._setup
        ids = [servo.dxl_id for servo in setup.servos]
        self._reader: BlockReader = FastReader(ids, data_at) if params.fast_sync_read else PlainReader(ids, data_at)
        self._goals = GoalWriter(ids, self._reader.request)
        self._rows = Rows(ids)
        window = params.velocity_window
        velocity = SlopeVelocity(self.spec.n, window, age_max_s=2.0 * window / self.spec.bus_rate_hz)
        self._observer = Observer(setup.servos, setup.units, self._rows, velocity)
        self._observer.expect(energized=False, watchdog_units=0)
        self.counters = Counters()
        self._seq = 0

    def _first_look(self) -> None:
        """One round in which every joint answers, so that no later state holds made-up values."""
        for _ in range(3):
            try:
                if self.read().fresh.all():
                    return
            except (BusTimeout, BusCorrupt):
                continue
        silent = [str(servo) for servo, fresh in zip(self._setup.servos, self._rows.fresh, strict=True) if not fresh]
        raise ArmSetupError(
            f"no answer to the combined read from {'; '.join(silent)}",
            reason="each answers alone: firmware without fast sync read (set fast_sync_read = false), or a noisy bus",
        )

    def _round(self, frame: bytes, tau_cmd: Vector) -> JointState:
        """Send ``frame``, at most twice, and judge what came back."""
        self._seq += 1
        self.counters.rounds += 1
        rows = self._rows
        before = bytes(rows.memory)
        rows.begin()
        start_ns = self.clock.now_ns()
        sent_ns = start_ns
        received = self._attempt(frame, start_ns + self._attempt_ns)
        if not rows.complete():
            again_ns = self.clock.now_ns()
            if again_ns + self._retry_ns <= start_ns + self._budget_ns:
                self.counters.retries += 1
                sent_ns = again_ns
                received += self._attempt(frame, start_ns + self._budget_ns)
        if not rows.complete():
            self.counters.stale_joints += int(np.count_nonzero(~rows.fresh))
        if rows.empty():
            raise self._nothing(received, (self.clock.now_ns() - start_ns) / 1e6)
        try:
            return self._observer.observe(self._seq, sent_ns, self.clock.now_ns(), tau_cmd)
        except RobotsacError:
            rows.memory[:] = before  # a joint's last values are its last accepted ones
            raise

    def _attempt(self, frame: bytes, deadline_ns: int) -> int:
        assert self._port is not None
        port = self._port
        port.discard_input()
        port.write(frame)
        received = self._reader.receive(port, deadline_ns, self._rows)
        if received == 0:
            self.counters.timeouts += 1
        elif not self._rows.complete():
            self.counters.corrupt += 1
        return received

    def _nothing(self, received: int, waited_ms: float) -> BusTimeout | BusCorrupt:
        if received:
            return BusCorrupt(f"{received} bytes arrived within {waited_ms:.1f} ms, none of them a good reply")
        return BusTimeout(f"no servo answered within {waited_ms:.1f} ms")


def _timing(spec: ArmSpec, params: DynamixelParams) -> tuple[int, int, int]:
    """How long, ns: the first attempt waits; a retry needs; the round may take with its retry.

    A read deadline beyond the tick (a loaded desktop with the twin) stretches the round; then the retry has its share of it.
    """
    wait_ns, round_ns = int(params.read_deadline_ms * 1e6), int(params.round_s() * NS_PER_S)
    budget_ns = max(wait_ns, int(TICK_SHARE * NS_PER_S / spec.bus_rate_hz))
    if budget_ns - wait_ns < round_ns and budget_ns - round_ns >= 1.5 * round_ns:
        wait_ns = budget_ns - round_ns
    return wait_ns, round_ns, budget_ns


def open_dynamixel_arm(robot: RobotConfig) -> DynamixelArm:
    """Entry point ``dynamixel`` of group ``robotsac.arms``. Opens no port; ``connect`` does.

    Raises:
        ConfigError: ``[robot.driver]`` is wrong or does not fit the robot.
    """
    params = read_params(robot)
    clock = MonotonicClock()

    def open_port() -> Port:
        """The device, or what the program provides, which ends with it."""
        if not params.port_command:
            return SerialPort(params.port, params.baud, clock, robot.bus_rate_hz)
        program = PortProgram(params.port_command, clock, robot.model_dump_json().encode() + b"\n")
        name = program.start()
        try:
            return SerialPort(name, params.baud, clock, robot.bus_rate_hz, on_close=program.close)
        except BaseException:
            program.close()
            raise

    return DynamixelArm(ArmSpec.from_config(robot), params, clock, open_port)
