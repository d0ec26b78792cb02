"""What each fault does to a bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robotsac.errors import ConfigError
from robotsac_sim.twin.faults import (
    Babble,
    BrownOut,
    Fault,
    FaultInjector,
    HardwareError,
    Mute,
    Overheat,
    RebootServo,
    ReplyFault,
    ServoFault,
    StuckEncoder,
    Unplug,
)
from robotsac_sim.twin.servo import Servo

if TYPE_CHECKING:
    from robotsac_sim.twin.bus import VirtualBus


def apply_fault(bus: VirtualBus, injector: FaultInjector, fault: Fault, *, ends: bool) -> None:
    """Let ``fault`` set in, or end, at the bus's present time.

    Raises:
        ConfigError: no servo has the fault's id, or the kind is unknown.
    """
    if isinstance(fault, ReplyFault):
        injector.arm(fault)
        return
    if isinstance(fault, ServoFault):
        for servo in _servos(bus, fault.id):
            _apply_to_servo(servo, fault, bus.t_ns, ends=ends)
    elif isinstance(fault, Babble):
        bus.wire.device_sends(fault.noise(), bus.t_ns, bus.byte_ns)
    elif isinstance(fault, BrownOut):
        bus.world.supply_override_v = None if ends else fault.volt_v
    elif isinstance(fault, Unplug):
        bus.unplugged = True
    else:
        raise ConfigError(f"the virtual bus knows no fault {type(fault).__name__}")
    duration_ns = fault.duration_ns if isinstance(fault, Mute | StuckEncoder | BrownOut) else None
    if duration_ns is not None and not ends:
        injector.schedule(fault, bus.t_ns + duration_ns, ends=True)


def _apply_to_servo(servo: Servo, fault: ServoFault, t_ns: int, *, ends: bool) -> None:
    if isinstance(fault, Mute):
        servo.muted = not ends
    elif isinstance(fault, StuckEncoder):
        servo.encoder.stuck = not ends
    elif isinstance(fault, RebootServo):
        servo.reboot(t_ns)
    elif isinstance(fault, HardwareError):
        servo.raise_fault(fault.causes, t_ns)
    elif isinstance(fault, Overheat):
        servo.health.temperature_c = fault.temperature_c
    else:
        raise ConfigError(f"the virtual bus knows no fault {type(fault).__name__}")


def _servos(bus: VirtualBus, device_id: int) -> list[Servo]:
    found = [servo for servo in bus.servos if servo.configured.id == device_id]
    if not found:
        raise ConfigError(f"the virtual bus has no servo with id {device_id}")
    return found
