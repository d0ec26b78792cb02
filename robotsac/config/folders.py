"""Where configuration files are looked for, and found by name."""

from __future__ import annotations

import difflib
import os
import shlex
from pathlib import Path

import robotsac
from robotsac.errors import ConfigError, path_command


def robot_names() -> list[str]:
    """Names that ``--robot`` accepts: every TOML file with a ``[robot]`` table in the config folders."""
    return sorted({file.stem for file in _files() if "[robot]" in file.read_text(encoding="utf-8")})


def config_folders() -> list[Path]:
    """Where they are looked for, first hit wins: ``$ROBOTSAC_CONFIG_DIR``, ``./configs``, the user's config
    folder, the ones that came with the package."""
    package = Path(robotsac.__file__).resolve().parent
    home = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    folders = [Path("configs"), home / "robotsac", package / "_configs", package.parent / "configs"]
    if chosen := os.environ.get("ROBOTSAC_CONFIG_DIR"):
        folders.insert(0, Path(chosen))
    return [folder for folder in folders if folder.is_dir()]


def find_robot(robot: str) -> Path:
    """The file of a robot given by name or path.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if robot.endswith(".toml") or os.sep in robot:
        path = Path(robot)
        require_file(path)
        return path
    for folder in config_folders():
        if (path := folder / f"{robot}.toml").is_file():
            return path
    known = robot_names()
    nearest = difflib.get_close_matches(robot, known, n=1)
    raise ConfigError(
        f"there is no robot {robot!r}",
        reason=f"known robots: {', '.join(known) or 'none'}",
        command=f"robotsac config show --robot {nearest[0] if nearest else (known or ['arm0'])[0]}",
    )


def require_file(path: Path) -> None:
    """Refuse a path that is no file. Raises ConfigError."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, not a file",
            reason="it was named on the command line or by a config file, which takes one TOML or MJCF file",
            command=f"ls {shlex.quote(str(path))}",
        )
    if not path.is_file():
        raise ConfigError(
            f"there is no file {path}",
            reason="it was named on the command line or by a config file",
            command=path_command(FileNotFoundError(), path),
        )


def find_config(file: Path) -> Path:
    """A file that ``--config`` names: a path, or else the name of a TOML file in the config folders, as ``gym``.

    Raises:
        ConfigError: a name that none has; names the nearest.
    """
    if file.is_file() or file.suffix or len(file.parts) != 1:
        return file
    for folder in config_folders():
        if (path := folder / f"{file}.toml").is_file():
            return path
    if file.is_dir():
        return file  # refused as what it is where it is read
    known = sorted({path.stem for path in _files()})
    nearest = difflib.get_close_matches(str(file), known, n=1)
    raise ConfigError(
        f"there is no configuration {str(file)!r}",
        reason=f"there is no such file, and by name there are: {', '.join(known) or 'none'}",
        command=f"--config {nearest[0]}" if nearest else path_command(FileNotFoundError(), file),
    )


def _files() -> list[Path]:
    return [file for folder in config_folders() for file in sorted(folder.glob("*.toml"))]
