"""``robotsac twin``."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from robotsac.config import load_config
from robotsac.errors import ConfigError, DriverUnavailable


def run_twin_command(
    robot: str, link: Path | None, seconds: float | None, files: list[Path], overrides: list[str], as_json: bool
) -> int:
    """See ``robotsac twin --help``. Returns the exit code.

    Raises:
        ConfigError: the robot's driver has no twin.
        DriverUnavailable: the simulation is not installed.
    """
    config = load_config(robot, files, overrides)
    twins = {point.name: point for point in entry_points(group="robotsac.twins")}
    driver = config.robot.driver.name
    if driver not in twins:
        raise ConfigError(
            f"{robot} is driven by {driver!r}, which has no virtual bus",
            reason=f"drivers with one: {', '.join(sorted(twins)) or 'none'}",
            command="robotsac twin --robot arm0",
        )
    try:
        run_twin = twins[driver].load()
    except ImportError as error:
        raise DriverUnavailable(
            "the virtual servo bus cannot be loaded", reason=str(error), command="pip install 'robotsac[sim]'"
        ) from error
    code: int = run_twin(config.robot, as_json=as_json, link=link, seconds=seconds)
    return code
