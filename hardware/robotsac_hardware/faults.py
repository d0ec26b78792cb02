"""What servos complain about, in words.

Source: ROBOTIS e-manual, Protocol 2.0 "Error" of a status packet; control table, Hardware Error Status (70).
"""

from __future__ import annotations

# Bits of JointState.faults: the low seven are the servo's own Hardware Error Status, the rest are this driver's findings.
ALERT = 0x0080
WATCHDOG_EXPIRED = 0x0100
TORQUE_LOST = 0x0200
REBOOTED = 0x0400

_HARDWARE_ERRORS = {
    0x01: "input voltage outside its limits",
    0x04: "overheating",
    0x08: "motor encoder failure",
    0x10: "electrical shock or too weak a supply",
    0x20: "overload",
}

CRC_ERROR = 3

_STATUS_ERRORS = {
    1: "result fail",
    2: "instruction error",
    CRC_ERROR: "CRC error",
    4: "data range error",
    5: "data length error",
    6: "data limit error",
    7: "access error",
}

CLEAR_HARDWARE_ERROR = "power-cycle the arm to clear it; hardware/README.md tells more"


def hardware_error_words(bits: int) -> str:
    """Hardware Error Status in words."""
    words = [text for bit, text in _HARDWARE_ERRORS.items() if bits & bit]
    unknown = bits & ~sum(_HARDWARE_ERRORS)
    if unknown:
        words.append(f"unknown hardware error 0x{unknown:02x}")
    return ", ".join(words) or "alert without a hardware error bit"


def status_error_words(error: int) -> str:
    """Error byte of a status packet, without its alert bit, in words."""
    code = error & ~ALERT
    return _STATUS_ERRORS.get(code, f"unknown error {code}") if code else "no error"
