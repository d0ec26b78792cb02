"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robotsac.errors import ConfigError

Robot = Annotated[str, typer.Option("--robot", "-r", help="Robot by name (configs/NAME.toml) or path.")]
Files = Annotated[
    list[Path] | None,
    typer.Option("--config", help="Further TOML file, by name (configs/NAME.toml) or path, laid over; repeatable."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one key; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a script; progress goes to stderr.")]
Run = Annotated[str | None, typer.Option("--run", help="Run folder: a name below runs/, or a path.")]


def run_folder(run: str | None, default: str) -> Path:
    """The folder of a run: below ``runs/`` when given by name.

    Raises:
        ConfigError: a name that is none.
    """
    if run is not None and run.strip() in ("", ".", ".."):
        raise ConfigError(
            f"--run {run!r} is no name", reason="it is a folder below runs/, or a path", command="ls -t runs"
        )
    name = run or default
    return Path(name) if "/" in name else Path("runs") / name
