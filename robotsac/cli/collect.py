"""``robotsac collect``."""

from __future__ import annotations

from pathlib import Path

from robotsac.actor.collect import CollectOptions, CollectReport, collect, report_json
from robotsac.cli.console import StatusLine, print_error, say, spell_out
from robotsac.cli.options import run_folder
from robotsac.config import LinkConfig, load_config
from robotsac.early_interrupt import EARLY
from robotsac.errors import ConfigError, LinkError
from robotsac.link.address import endpoint


def run_collect(
    robot: str,
    run: str | None,
    steps: int,
    learner: str | None,
    offline: bool,
    files: list[Path],
    overrides: list[str],
    as_json: bool,
) -> int:
    """See ``robotsac collect --help``. Returns the exit code.

    Raises:
        RobotsacError: before anything started.
    """
    config = load_config(robot, files, [*_address(learner, overrides), *overrides])
    _require_endpoint(config.link.address, learner)
    EARLY.raise_if_seen()
    options = CollectOptions(folder=run_folder(run, config.robot.name), steps=steps, offline=offline)
    with StatusLine(plain=as_json) as status:
        report = collect(config, options, lambda s: status.update(s.line()), status.event)
    return finish(report, config.link, as_json)


def _require_endpoint(address: str, learner: str | None) -> None:
    """Refuse an address here, before an arm is touched; the command uses the option that was typed. Raises LinkError."""
    try:
        endpoint(address)
    except LinkError as error:
        if learner is not None:
            error.command = error.command.replace("--set link.address=", "--learner ")
        raise


def _address(learner: str | None, overrides: list[str]) -> list[str]:
    """``--learner`` as an override.

    Raises:
        ConfigError: ``--set`` names another address.
    """
    if learner is None:
        return []
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip() == "link.address" and value.strip().strip("'\"") != learner:
            raise ConfigError(
                f"--learner {learner} contradicts --set {override}",
                reason="both say where the learner is",
                command=f"--set link.address={learner}",
            )
    return [f"link.address={learner!r}"]


def torque_words(energized: bool, off: bool) -> str:
    """What is known about torque, after the word."""
    return "off, read back" if off else "NOT read back as off" if energized else "never switched on"


def finish(report: CollectReport, link: LinkConfig, as_json: bool) -> int:
    """Say how it ended. Returns the exit code."""
    if report.error is not None:
        spell_out(report.error, link)
    if as_json:
        say(report_json(report))
    elif report.status.steps or report.interrupted:
        say(
            f"{report.status.steps:,} steps in {report.status.episodes} episodes, {report.seconds:.1f} s; "
            f"torque {torque_words(report.energized, report.torque_off)}"
        )
        if waiting := report.unsent - report.refused:
            say(f"{waiting:,} records wait in the spool and are sent next time")
        if report.refused:
            say(
                f"{report.refused:,} records wait in the spool that this learner does not take: "
                "they are of another robot model or task"
            )
    if report.error is not None:
        print_error(report.error)
        return report.error.exit_code
    return 0
