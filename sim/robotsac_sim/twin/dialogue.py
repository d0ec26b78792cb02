"""Who obeys an instruction, who answers it, in which order. Source: e-manual, "DYNAMIXEL Protocol 2.0", instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robotsac_sim.twin.assumed import Assumptions
from robotsac_sim.twin.codec import REPLY_LENGTH_MAX, Instruction, encode_fast_reply, encode_status, fast_length
from robotsac_sim.twin.instructions import Answer, execute, level_needed, read_block
from robotsac_sim.twin.lists import Order, Request, bulk_reads, bulk_writes, sync_reads, sync_writes
from robotsac_sim.twin.models import FAST_READ_FIRMWARE
from robotsac_sim.twin.protocol import BROADCAST_ID, ErrorCode, Op
from robotsac_sim.twin.servo import Servo
from robotsac_sim.twin.table import Reg
from robotsac_sim.twin.wire import garbled

# A device hears a sender whose baud rate is off by less than this.
BAUD_TOLERANCE = 0.03
FACTORY_RESET_ALL = b"\xff"
READERS = {
    Op.SYNC_READ: sync_reads,
    Op.BULK_READ: bulk_reads,
    Op.FAST_SYNC_READ: sync_reads,
    Op.FAST_BULK_READ: bulk_reads,
}
WRITERS = {Op.SYNC_WRITE: sync_writes, Op.BULK_WRITE: bulk_writes}
FAST = frozenset((Op.FAST_SYNC_READ, Op.FAST_BULK_READ))
# Obeyed by all, answered by none; that Clear and Backup are among them is assumed.
BROADCASTABLE = frozenset(
    (Op.WRITE, Op.REG_WRITE, Op.ACTION, Op.FACTORY_RESET, Op.REBOOT, Op.CLEAR, Op.BACKUP),
)

Send = Callable[[list[bytes], int], int]
"""Puts the parts of one reply on the wire from a time on; returns when the last byte is out."""


@dataclass(slots=True)
class Counters:
    """What the devices of a bus have seen since it was built.

    Attributes:
        packets: intact instruction packets that at least one device heard.
        refused_writes: writes that ended in an error, answered or not.
    """

    packets: int = 0
    replies: int = 0
    crc_errors: int = 0
    refused_writes: int = 0
    superseded: int = 0


class Dialogue:
    """The devices' side of every instruction.

    Args:
        servos: all devices of the bus.
        send: the wire.
        counters: kept up to date.
    """

    def __init__(self, servos: Sequence[Servo], send: Send, counters: Counters, assumed: Assumptions) -> None:
        self._servos = servos
        self._send = send
        self._counters = counters
        self._assumed = assumed

    def handle(self, instruction: Instruction, host_baud: int) -> None:
        """Everything that follows from one instruction packet."""
        t_ns = instruction.t_ns
        heard = [
            servo
            for servo in self._servos
            if servo.hears(t_ns) and abs(servo.configured.baud - host_baud) < BAUD_TOLERANCE * servo.configured.baud
        ]
        if not heard:
            return
        if not instruction.intact:
            self._report_damage(instruction, heard)
            return
        self._counters.packets += 1
        for servo in heard:
            servo.watchdog.feed(t_ns)
        if instruction.id == BROADCAST_ID:
            self._broadcast(instruction, heard)
        else:
            self._unicast(instruction, heard)

    def _report_damage(self, instruction: Instruction, heard: list[Servo]) -> None:
        """A damaged packet is answered by whoever believes to be meant."""
        self._counters.crc_errors += 1
        level = level_needed(Op.WRITE)
        meant = [each for each in heard if each.configured.id == instruction.id]
        answering = [each for each in meant if each.configured.status_level >= level]
        self._answer([(each, each.configured.return_delay_ns, (ErrorCode.CRC, b"")) for each in answering], instruction)

    def _unicast(self, instruction: Instruction, heard: list[Servo]) -> None:
        t_ns, op, level = instruction.t_ns, instruction.op, level_needed(instruction.op)
        answers = []
        for servo in heard:
            # Delay and level of the answer are those from before: the instruction may change them.
            before = servo.configured
            if before.id == instruction.id:
                answer = self._execute(servo, instruction)
                if before.status_level >= level:
                    answers.append((servo, before.return_delay_ns, answer))
            elif before.secondary_id == instruction.id:
                # Addressed by its secondary id a device obeys, but never answers.
                execute(servo, op, instruction.params, t_ns)
        self._answer(answers, instruction)

    def _broadcast(self, instruction: Instruction, heard: list[Servo]) -> None:
        op, params = instruction.op, instruction.params
        if op == Op.PING:
            self._answer_ping(instruction, heard)
        elif op in FAST:
            self._read_jointly(READERS[Op(op)](params), instruction.t_ns, heard)
        elif op in READERS:
            self._read_in_turn(READERS[Op(op)](params), instruction.t_ns, heard)
        elif op in WRITERS:
            self._write_each(WRITERS[Op(op)](params), instruction.t_ns, heard)
        elif op in BROADCASTABLE and not (op == Op.FACTORY_RESET and params == FACTORY_RESET_ALL):
            for servo in heard:
                self._execute(servo, instruction)

    def _execute(self, servo: Servo, instruction: Instruction) -> Answer:
        answer = execute(servo, instruction.op, instruction.params, instruction.t_ns)
        if answer[0] and instruction.op in (Op.WRITE, Op.REG_WRITE, Op.ACTION):
            self._counters.refused_writes += 1
        return answer

    def _answer(self, answers: list[tuple[Servo, int, Answer]], instruction: Instruction) -> None:
        """Status packets to one instruction, all at once: more than one is a collision of equal ids."""
        for servo, delay_ns, (error, data) in answers:
            if not servo.muted:
                frame = encode_status(instruction.id, error | servo.alert, data)
                self._send([frame], instruction.t_ns + delay_ns + self._assumed.turnaround_ns)

    def _answer_ping(self, instruction: Instruction, heard: list[Servo]) -> None:
        """In rising ID order, each after the one before."""
        ids = sorted({servo.configured.id for servo in heard})
        end_ns = instruction.t_ns
        for device_id in ids:
            same = [servo for servo in heard if servo.configured.id == device_id]
            answers = {id(servo): self._execute(servo, instruction) for servo in same}
            end_ns = self._speak(same, answers, end_ns) or end_ns

    def _read_in_turn(self, requests: list[Request], t_ns: int, heard: list[Servo]) -> None:
        """One status per device, in listed order, each after the one before."""
        end_ns = t_ns
        for request in requests:
            same = _answering(heard, request.id)
            answers = {id(servo): read_block(servo, request.address, request.size) for servo in same}
            spoken_ns = self._speak(same, answers, end_ns)
            if spoken_ns is not None:
                end_ns = spoken_ns
            elif self._assumed.missing_breaks_chain:
                return

    def _speak(self, same: list[Servo], answers: dict[int, Answer], after_ns: int) -> int | None:
        """Status packets of all devices with one id after ``after_ns``; the end, or ``None`` when all are silent."""
        end_ns = None
        for servo in same:
            if not servo.muted:
                error, data = answers[id(servo)]
                start_ns = after_ns + servo.configured.return_delay_ns + self._assumed.turnaround_ns
                frame = encode_status(servo.configured.id, error | servo.alert, data)
                end_ns = max(end_ns or 0, self._send([frame], start_ns))
        return end_ns

    def _read_jointly(self, requests: list[Request], t_ns: int, heard: list[Servo]) -> None:
        """One joint status: the first device listed sends the head, each next one goes on where it ended.

        Nobody speaks when its LEN would not go into two bytes (assumed).
        """
        sizes = [request.size for request in requests]
        if fast_length(sizes) > REPLY_LENGTH_MAX:
            return
        blocks: list[tuple[int, int, bytes]] = []
        speakers: list[list[Servo]] = []
        for request in requests:
            same = [servo for servo in _answering(heard, request.id) if _speaks_fast(servo)]
            if same:
                error, data = read_block(same[0], request.address, request.size)
                # After an error the block keeps its length, filled with zeros (assumed): LEN was declared before.
                blocks.append((error | same[0].alert, request.id, data or bytes(request.size)))
                speakers.append(same)
            elif self._assumed.missing_breaks_chain:
                break
        if blocks:
            parts = encode_fast_reply(blocks, sizes)
            # Two devices with one id speak at once.
            parts = [part if len(same) == 1 else garbled(part) for part, same in zip(parts, speakers, strict=True)]
            delay_ns = speakers[0][0].configured.return_delay_ns + self._assumed.turnaround_ns
            self._send(parts, t_ns + delay_ns)

    def _write_each(self, orders: list[Order], t_ns: int, heard: list[Servo]) -> None:
        """Never answered, whatever comes of it."""
        by_id: dict[int, list[Servo]] = {}
        for servo in heard:
            by_id.setdefault(servo.configured.id, []).append(servo)
        for order in orders:
            for servo in by_id.get(order.id, ()):
                if servo.write(order.address, order.data, t_ns):
                    self._counters.refused_writes += 1


def _answering(heard: list[Servo], device_id: int) -> list[Servo]:
    return [each for each in heard if each.configured.id == device_id and each.configured.status_level >= 1]


def _speaks_fast(servo: Servo) -> bool:
    return not servo.muted and servo.registers.get(Reg.FIRMWARE_VERSION) >= FAST_READ_FIRMWARE
