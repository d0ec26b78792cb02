"""One servo at a time: ping, read, write, with deadlines and a bounded number of tries. For everything but the hot path."""

from __future__ import annotations

from dataclasses import dataclass

from robotsac.clock import Clock
from robotsac.errors import ArmSetupError, BusCorrupt, BusTimeout
from robotsac_hardware import frames
from robotsac_hardware.control_table import MODELS, Register, ServoModel
from robotsac_hardware.faults import ALERT, CRC_ERROR, status_error_words
from robotsac_hardware.params import ServoParams
from robotsac_hardware.port import Port

# A servo answers within a millisecond; the rest is for a loaded desktop between it and us.
ANSWER_NS = 60_000_000
TRIES = 3
# After an answer that took more than one try, the answers to the other tries may still be under way.
STRAGGLERS_NS = 20_000_000
_READ_SIZE = 256


@dataclass(frozen=True, slots=True)
class Servo:
    """Which servo moves which joint."""

    joint: int
    name: str
    params: ServoParams

    @property
    def dxl_id(self) -> int:
        """Id on the bus."""
        return self.params.id

    @property
    def model(self) -> ServoModel:
        """The model it should be."""
        return MODELS[self.params.model]

    def __str__(self) -> str:
        return f"joint {self.joint} ({self.name}, id {self.dxl_id})"


class Bus:
    """Transactions with single servos."""

    def __init__(self, port: Port, clock: Clock) -> None:
        self.port = port
        self._clock = clock
        self._reader = frames.StatusReader()

    def ask(
        self, dxl_id: int, frame: bytes, size: int, *, tries: int = TRIES, answer_ns: int = ANSWER_NS
    ) -> frames.Status:
        """Send ``frame`` until servo ``dxl_id`` answers it. Every frame used here may be sent twice without harm.

        Args:
            dxl_id: whose answer.
            frame: the instruction.
            size: bytes of data in a good answer. An answer of another length without an error belongs to an earlier
                question and is passed over.
            tries: how often to send.
            answer_ns: how long to wait each time, ns.

        Raises:
            BusTimeout: silence, each time.
            BusCorrupt: nothing but damaged bytes the last time.
            BusLost: the port is gone.
        """
        noise = 0
        for attempt in range(tries):
            self.port.discard_input()
            self._reader.reset()
            self.port.write(frame)
            deadline_ns = self._clock.now_ns() + answer_ns
            noise = 0
            while chunk := self.port.read(_READ_SIZE, deadline_ns):
                noise += len(chunk)
                for status in self._reader.feed(chunk):
                    if status.dxl_id == dxl_id and _answers(status, size):
                        if attempt:
                            self._clock.sleep_until(self._clock.now_ns() + STRAGGLERS_NS)
                        return status
        if noise:
            raise BusCorrupt(
                f"servo id {dxl_id}: {noise} bytes arrived that are no answer", reason="two servos with the same id?"
            )
        raise BusTimeout(f"servo id {dxl_id} did not answer {tries} times within {answer_ns // 1_000_000} ms")

    def tell(self, frame: bytes) -> None:
        """Send ``frame`` and wait for an answer that may not come and is not looked at."""
        self.port.discard_input()
        self.port.write(frame)
        self.port.read(_READ_SIZE, self._clock.now_ns() + ANSWER_NS)

    def ping(self, servo: Servo) -> tuple[int, int]:
        """Model number and firmware version.

        Raises:
            ArmSetupError: the servo refuses.
            BusError: as :meth:`ask`.
        """
        status = self.ask(servo.dxl_id, frames.ping(servo.dxl_id), 3)
        params = status.params
        if len(params) != 3:
            raise ArmSetupError(f"{servo}: answers a ping with an error", reason=status_error_words(status.error))
        return int.from_bytes(params[:2], "little"), params[2]

    def read(self, servo: Servo, register: Register) -> int:
        """Value of one register.

        Raises:
            ArmSetupError: the servo refuses.
            BusError: as :meth:`ask`.
        """
        return register.decode(self.read_bytes(servo, register.name, register.address, register.size))

    def read_bytes(self, servo: Servo, what: str, address: int, size: int) -> bytes:
        """``size`` bytes from ``address``; raises as :meth:`read`."""
        status = self.ask(servo.dxl_id, frames.read(servo.dxl_id, address, size), size)
        if status.error & ~ALERT:
            raise ArmSetupError(f"{servo}: {what} cannot be read", reason=status_error_words(status.error))
        return status.params

    def write(self, servo: Servo, register: Register, value: int) -> None:
        """Write one register; raises as :meth:`read`. Whether the value was kept, only reading it back tells."""
        self.write_bytes(servo, f"{register.name} = {value}", register.address, register.encode(value))

    def write_bytes(self, servo: Servo, what: str, address: int, data: bytes) -> None:
        """Write ``data`` to ``address``; raises as :meth:`read`."""
        status = self.ask(servo.dxl_id, frames.write(servo.dxl_id, address, data), 0)
        if status.error & ~ALERT:
            raise ArmSetupError(f"{servo}: {what} was refused", reason=status_error_words(status.error))

    def keep(self, servo: Servo, register: Register, value: int) -> None:
        """Make a register hold ``value``: look, write if it differs (EEPROM wears), look again.

        Raises:
            ArmSetupError: the servo refuses, or did not keep the value.
            BusError: as :meth:`ask`.
        """
        if self.read(servo, register) != value:
            self.write(servo, register, value)
        self.expect(servo, register, value)

    def expect(self, servo: Servo, register: Register, value: int) -> None:
        """Raise ``ArmSetupError`` unless the register holds ``value``."""
        found = self.read(servo, register)
        if found != value:
            raise ArmSetupError(
                f"{servo}: register {register.name} is {found}, {value} was wanted",
                reason="the servo did not keep what was written",
            )


def _answers(status: frames.Status, size: int) -> bool:
    """Whether a status answers a question whose good answer has ``size`` bytes."""
    code = status.error & ~ALERT
    # A servo that heard a damaged question says so; asking again is the only answer to that.
    return code != CRC_ERROR and (code != 0 or len(status.params) == size)
