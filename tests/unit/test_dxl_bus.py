"""Transactions with one servo, on answers that no healthy servo gives."""

from __future__ import annotations

import pytest

from robotsac.clock import ManualClock
from robotsac.errors import ArmSetupError, BusCorrupt, BusTimeout
from robotsac_hardware import frames
from robotsac_hardware.bus import ANSWER_NS, TRIES, Bus, Servo
from robotsac_hardware.control_table import CURRENT_LIMIT, OPERATING_MODE
from robotsac_hardware.params import ServoParams

SERVO = Servo(2, "elbow", ServoParams(id=3, model="XM430-W350", torque_constant_nm_a=1.8, current_max_a=1.0))


class Answers:
    """A port that answers each request with the next prepared bytes, all at once."""

    name = "answers"

    def __init__(self, clock: ManualClock, *answers: bytes) -> None:
        self._clock = clock
        self._answers = list(answers)
        self._waiting = b""
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self._waiting += self._answers.pop(0) if self._answers else b""

    def read(self, size_max: int, deadline_ns: int) -> bytes:
        if not self._waiting:
            self._clock.sleep_until(deadline_ns)
        taken, self._waiting = self._waiting[:size_max], self._waiting[size_max:]
        return taken

    def discard_input(self) -> None:
        self._waiting = b""

    def close(self) -> None: ...


def bus(*answers: bytes) -> tuple[Bus, Answers, ManualClock]:
    clock = ManualClock()
    port = Answers(clock, *answers)
    return Bus(port, clock), port, clock


def test_silence_is_bounded_and_a_timeout() -> None:
    line, port, clock = bus()
    with pytest.raises(BusTimeout, match="servo id 3 did not answer 3 times"):
        line.ping(SERVO)
    assert len(port.sent) == TRIES
    assert clock.now_ns() == TRIES * ANSWER_NS


def test_noise_is_told_from_silence() -> None:
    line, _, _ = bus(*[b"\xff\xff\xfdnoise"] * TRIES)
    with pytest.raises(BusCorrupt, match="same id"):
        line.ping(SERVO)


@pytest.mark.parametrize(
    "useless",
    [
        frames.status(4, 0, b"\x01"),  # somebody else's
        frames.status(3, 0, b""),  # of another question
        frames.status(3, 3, b""),  # "CRC error": the question was damaged on its way
        frames.status(3, 0, b"\x01")[:-1],
    ],
)
def test_an_answer_that_is_none_leads_to_the_question_being_repeated(useless: bytes) -> None:
    line, port, _ = bus(useless, frames.status(3, 0, b"\x05"))
    assert line.read(SERVO, OPERATING_MODE) == 5
    assert len(port.sent) == 2


def test_a_refusal_names_joint_register_and_reason() -> None:
    line, _, _ = bus(frames.status(3, 4))
    with pytest.raises(ArmSetupError, match=r"joint 2 \(elbow, id 3\): Current Limit = 9 was refused") as caught:
        line.write(SERVO, CURRENT_LIMIT, 9)
    assert caught.value.reason == "data range error"


def test_an_alert_does_not_hide_the_answer() -> None:
    line, _, _ = bus(frames.status(3, 0x80, b"\x05"))
    assert line.read(SERVO, OPERATING_MODE) == 5


def test_a_value_that_was_not_kept_is_named_with_what_was_found() -> None:
    line, _, _ = bus(frames.status(3, 0, b"\x03"), frames.status(3, 0), frames.status(3, 0, b"\x03"))
    with pytest.raises(ArmSetupError, match="register Operating Mode is 3, 0 was wanted"):
        line.keep(SERVO, OPERATING_MODE, 0)


def test_a_value_that_is_there_already_is_not_written() -> None:
    line, port, _ = bus(frames.status(3, 0, b"\x00"), frames.status(3, 0, b"\x00"))
    line.keep(SERVO, OPERATING_MODE, 0)
    assert all(frame[7] == frames.Instruction.READ for frame in port.sent)
