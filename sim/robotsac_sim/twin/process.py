"""The twin as a process of its own: ``robotsac twin``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from robotsac.config.schema import RobotConfig
from robotsac.signals import stop_signals_call
from robotsac_sim.twin.bus import Overlap, VirtualBus
from robotsac_sim.twin.pty_port import PtyPort
from robotsac_sim.twin.realtime import LoopReport, RealTimeLoop, become_real_time
from robotsac_sim.twin.setup import build_bus


def run_twin(
    robot: RobotConfig, *, as_json: bool = False, link: Path | None = None, seconds: float | None = None
) -> int:
    """Serve the virtual bus of ``robot`` on a pty until SIGTERM, SIGINT, or the death of the parent.

    Args:
        robot: resolved config; ``[robot.sim]`` says what stands on the bus.
        as_json: one JSON line on standard output once the port is open, and one on standard error at the end.
        link: symbolic link to the port, made and removed again.
        seconds: end after this time.

    Returns:
        Exit code.

    Raises:
        ConfigError: ``[robot.sim]`` is wrong.
    """
    bus = build_bus(robot, overlap=Overlap.SUPERSEDE)
    port = PtyPort(bus.host_baud, link)
    scheduling = become_real_time()
    loop = RealTimeLoop(bus, port, seconds=seconds)
    started_s, used_s = time.monotonic(), time.process_time()
    try:
        with stop_signals_call(lambda _: loop.stop()):
            _announce(robot, bus, port, scheduling, as_json=as_json)
            loop.run()
    finally:
        port.close()
    share = (time.process_time() - used_s) / max(1e-9, time.monotonic() - started_s)
    _summarise(summary(bus, loop.report, port.lost, share, scheduling), as_json=as_json)
    return 0


def summary(
    bus: VirtualBus, report: LoopReport, bytes_lost: int, cpu_share: float, scheduling: str
) -> dict[str, object]:
    """What happened on a bus, as plain data."""
    return {
        "packets": bus.counters.packets,
        "replies": bus.counters.replies,
        "crc_errors": bus.counters.crc_errors,
        "gaps": bus.parser.gaps,
        "resyncs": bus.parser.resyncs,
        "refused_writes": bus.counters.refused_writes,
        "superseded_replies": bus.counters.superseded,
        "bytes_lost": bytes_lost,
        "watchdog_expiries": bus.world.watchdog_expiries,
        "slips": report.slips,
        "slipped_ms": round(report.slipped_ns * 1e-6, 1),
        "late_max_ms": round(report.late_max_ns * 1e-6, 1),
        "cpu_share": round(cpu_share, 4),
        "scheduling": scheduling,
        "torque_on": [servo.configured.id for servo in bus.servos if servo.torque],
        "hardware_errors": {servo.configured.id: servo.health.latched for servo in bus.servos if servo.health.latched},
    }


def _announce(robot: RobotConfig, bus: VirtualBus, port: PtyPort, scheduling: str, *, as_json: bool) -> None:
    servos = [{"id": servo.configured.id, "model": servo.model.name} for servo in bus.servos]
    if as_json:
        line = json.dumps(
            {
                "port": port.name,
                "robot": robot.name,
                "servos": servos,
                "pid": os.getpid(),
                "baud": bus.host_baud,
                "scheduling": scheduling,
            }
        )
    else:
        line = (
            f"{robot.name}: {len(servos)} servos at {bus.host_baud} bit/s on {port.name}, {scheduling}\n"
            f"use it: robotsac collect --robot {robot.name} --set robot.driver.port={port.name}"
        )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _summarise(facts: dict[str, object], *, as_json: bool) -> None:
    text = json.dumps(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items())
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        # Whoever read this is gone; nobody is left to tell.
        return
