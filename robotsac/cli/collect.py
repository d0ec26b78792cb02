"""``robotsac collect``."""

from __future__ import annotations

from pathlib import Path

from robotsac.actor.collect import CollectOptions, CollectReport, collect, report_json
from robotsac.cli.console import StatusLine, print_error, say, spell_out
from robotsac.cli.options import run_folder
from robotsac.config import load_config
from robotsac.link.sockets import endpoint


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
    chosen = [f"link.address={learner!r}"] if learner is not None else []
    config = load_config(robot, files, [*chosen, *overrides])
    endpoint(config.link.address)  # refused here, before an arm is touched
    options = CollectOptions(folder=run_folder(run, config.robot.name), steps=steps, offline=offline)
    with StatusLine(plain=as_json) as status:
        report = collect(config, options, lambda s: status.update(s.line()), status.event)
    return finish(report, as_json)


def finish(report: CollectReport, as_json: bool) -> int:
    """Say how it ended. Returns the exit code."""
    if report.error is not None:
        spell_out(report.error)
    if as_json:
        say(report_json(report))
    elif report.status.steps or report.interrupted:
        say(
            f"{report.status.steps:,} steps in {report.status.episodes} episodes, {report.seconds:.1f} s; "
            f"torque {'off, read back' if report.torque_off else 'NOT read back as off'}"
        )
        if report.unsent:
            say(f"{report.unsent:,} records wait in the spool and are sent next time")
    if report.error is not None:
        print_error(report.error)
        return report.error.exit_code
    return 0
