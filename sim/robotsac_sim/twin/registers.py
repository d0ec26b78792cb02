"""A servo's memory: bytes behind the control table, and how reads and writes find their way to them.

Indirect addressing is resolved here, once per (address, length): a control loop asks for the same block a hundred times a
second, so the list of bytes behind it is kept until an indirect address changes.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from robotsac_sim.twin.models import ServoModel
from robotsac_sim.twin.protocol import ErrorCode
from robotsac_sim.twin.table import (
    INDIRECT_BLOCKS,
    INDIRECT_COUNT,
    INDIRECT_DATA,
    TABLE_SIZE,
    Item,
    Reg,
    build_table,
)

WritePlan = tuple[tuple[Item, int], ...]
"""What one write consists of: each register with the offset of its bytes in the data."""


class Registers:
    """The control table of one servo, with its bytes.

    Args:
        model: which table, and its factory values.
    """

    def __init__(self, model: ServoModel) -> None:
        self.items = build_table(model)
        self.memory = bytearray(TABLE_SIZE)
        self._readers: dict[tuple[int, int], Callable[[], bytes]] = {}
        self._plans: dict[tuple[int, int], WritePlan | ErrorCode] = {}
        self._defined = bytearray(TABLE_SIZE)
        for item in self.items.values():
            self._defined[item.address : item.address + item.size] = b"\x01" * item.size
            self.put(item.address, item.default)

    def get(self, address: int) -> int:
        """Value of the register that starts at ``address``."""
        item = self.items[address]
        return int.from_bytes(self.memory[address : address + item.size], "little", signed=item.signed)

    def put(self, address: int, value: int) -> None:
        """Set a register from inside: no rule applies, the value is cut to the register's width."""
        size = self.items[address].size
        cut = value & ((1 << (8 * size)) - 1)
        self.memory[address : address + size] = cut.to_bytes(size, "little")

    def reset(self, *, eeprom: bool, keep: frozenset[Reg] = frozenset()) -> None:
        """Back to factory values: RAM always, EEPROM where asked, except the registers in ``keep``."""
        for item in self.items.values():
            if (eeprom or not item.eeprom) and item.address not in keep:
                self.put(item.address, item.default)
        self.forget_map()

    def forget_map(self) -> None:
        """An indirect address changed: resolve every block anew."""
        self._readers.clear()
        self._plans.clear()

    def read(self, address: int, size: int) -> bytes | ErrorCode:
        """Bytes as a Read returns them.

        Undefined bytes between two registers read as 0; a read that starts on one, or runs out of the table, is refused
        (assumed; the e-manual says "undefined" and no more).
        """
        reader = self._readers.get((address, size))
        if reader is None:
            if size == 0:
                return ErrorCode.DATA_LENGTH
            if address + size > TABLE_SIZE or not self._defined[address]:
                return ErrorCode.ACCESS
            reader = self._readers[address, size] = self._compile_reader(address, size)
        return reader()

    def plan(self, address: int, size: int) -> WritePlan | ErrorCode:
        """Which registers a write of ``size`` bytes at ``address`` sets, or why it cannot be."""
        key = (address, size)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._compile_plan(address, size)
        return plan

    def restore(self, image: bytes, start: int, end: int) -> None:
        """Put the writable registers between two addresses back to what they are in ``image``; torque stays off."""
        for item in self.items.values():
            at = item.address
            if start <= at < end and item.writable and at != Reg.TORQUE_ENABLE:
                self.memory[at : at + item.size] = image[at : at + item.size]
        self.forget_map()

    def _compile_reader(self, address: int, size: int) -> Callable[[], bytes]:
        memory = self.memory
        targets = [self._target(at) for at in range(address, address + size)]
        if size == 1:
            only = targets[0]
            return lambda: bytes((memory[only],))
        if targets == list(range(targets[0], targets[0] + size)):
            first, end = targets[0], targets[0] + size
            return lambda: bytes(memory[first:end])
        pick = itemgetter(*targets)
        return lambda: bytes(pick(memory))

    def _compile_plan(self, address: int, size: int) -> WritePlan | ErrorCode:
        if size == 0:
            return ErrorCode.DATA_LENGTH
        if address + size > TABLE_SIZE:
            return ErrorCode.ACCESS
        targets = [self._target(at) for at in range(address, address + size)]
        plan: list[tuple[Item, int]] = []
        at = 0
        while at < size:
            item = self.items.get(targets[at])
            if item is None:
                return ErrorCode.ACCESS
            if targets[at : at + item.size] != list(range(item.address, item.address + item.size)):
                return ErrorCode.DATA_LENGTH
            plan.append((item, at))
            at += item.size
        return tuple(plan)

    def _target(self, address: int) -> int:
        """The byte that an address stands for; not followed a second time."""
        if address not in INDIRECT_DATA:
            return address
        for addresses, data in INDIRECT_BLOCKS:
            if data <= address < data + INDIRECT_COUNT:
                return self.get(addresses + 2 * (address - data))
        raise AssertionError(address)
