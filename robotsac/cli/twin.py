"""``robotsac twin``."""

from __future__ import annotations

import os
import select
from importlib.metadata import entry_points
from pathlib import Path

from pydantic import ValidationError

from robotsac.config import RobotConfig, load_config
from robotsac.errors import ConfigError, DriverUnavailable

STDIN_DEADLINE_S = 10.0
LINE_MAX = 1_000_000


def run_twin_command(
    robot: str,
    link: Path | None,
    seconds: float | None,
    from_stdin: bool,
    files: list[Path],
    overrides: list[str],
    as_json: bool,
) -> int:
    """See ``robotsac twin --help``. Returns the exit code.

    Raises:
        ConfigError: the robot's driver has no twin.
        DriverUnavailable: the simulation is not installed.
    """
    resolved = _robot_from_stdin() if from_stdin else load_config(robot, files, overrides).robot
    twins = {point.name: point for point in entry_points(group="robotsac.twins")}
    driver = resolved.driver.name
    if driver not in twins:
        raise ConfigError(
            f"{resolved.name} is driven by {driver!r}, which has no virtual bus",
            reason=f"drivers with one: {', '.join(sorted(twins)) or 'none'}",
            command="robotsac twin --robot arm0",
        )
    try:
        run_twin = twins[driver].load()
    except ImportError as error:
        raise DriverUnavailable(
            "the virtual servo bus cannot be loaded", reason=str(error), command="pip install 'robotsac[sim]'"
        ) from error
    code: int = run_twin(resolved, as_json=as_json, link=link, seconds=seconds)
    return code


def _robot_from_stdin() -> RobotConfig:
    """The robot of the driver that started this twin, with every ``--set`` and ``--config`` it was given.

    Raises:
        ConfigError: no line within 10 s, or not a robot.
    """
    line = b""
    # Byte by byte: what follows the line is not ours, and end of file is how the twin learns that its driver is gone.
    while not line.endswith(b"\n"):
        if not select.select((0,), (), (), STDIN_DEADLINE_S)[0] or not (byte := os.read(0, 1)) or len(line) > LINE_MAX:
            raise ConfigError("--from-stdin: no robot arrived", reason=f"{len(line)} bytes without an end of line")
        line += byte
    try:
        return RobotConfig.model_validate_json(line)
    except ValidationError as error:
        raise ConfigError("--from-stdin: the line is not a [robot]", reason=str(error).splitlines()[0]) from error
