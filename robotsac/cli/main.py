"""``robotsac``: the commands. Each one imports its application only when it is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from robotsac.cli.options import AsJson, Files, Overrides, Robot, Run
from robotsac.errors import ConfigError, RobotsacError

# click's class for a wrong command line. typer 0.2x brings a click of its own, earlier ones do not.
UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="robotsac",
    help="Soft Actor-Critic on a physical, torque-controlled robot arm. Research software; no safety system.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
policy_app = typer.Typer(help="Policy bundles.", no_args_is_help=True)
config_app = typer.Typer(help="Configuration.", no_args_is_help=True)
fault_app = typer.Typer(help="What the flight recorder kept.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")
app.add_typer(config_app, name="config")
app.add_typer(fault_app, name="fault")


def main() -> None:
    """Console entry point.

    Raises:
        SystemExit: always, with the command's exit code.
    """
    try:
        sys.exit(app(prog_name="robotsac", standalone_mode=False))
    except RobotsacError as error:
        sys.exit(_report(error))
    except UsageError as error:
        sys.exit(_report(_wrong_usage(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        _settle_stderr()


def _settle_stderr() -> None:
    """That nobody hears what was told must not become the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        from robotsac.cli.console import drop

        drop(sys.stderr)


def _report(error: RobotsacError) -> int:
    from robotsac.cli.console import report_error

    return report_error(error)


def _wrong_usage(error: Any) -> ConfigError:
    """What click says of a wrong command line, as an error like any other."""
    message, command = error.format_message().rstrip("."), error.ctx.command_path
    if not message:
        sys.exit(ConfigError.exit_code)  # no command at all: the help is on the screen already
    usage = " ".join(error.ctx.get_usage().split()).removeprefix("Usage: ")
    return ConfigError(
        message[0].lower() + message[1:], reason=f"the command goes like this: {usage}", command=f"{command} --help"
    )


def _version(wanted: bool) -> None:
    if wanted:
        from robotsac import __version__
        from robotsac.cli.console import say

        say(__version__)
        raise typer.Exit


def _was_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def collect(
    robot: Robot,
    run: Run = None,
    steps: Annotated[
        int,
        typer.Option(
            min=0, help="Control steps to collect, to the end of the episode that reaches them; 0 = until Ctrl-C."
        ),
    ] = 0,
    learner: Annotated[str | None, typer.Option(help="Address of the learner, tcp://HOST:PORT.")] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Begin without a learner. Records wait here; whenever one answers, they are sent."
        ),
    ] = False,
    config: Files = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the policy on the robot at its control rate, and stream what happens to the learner."""
    from robotsac.cli.collect import run_collect

    raise typer.Exit(run_collect(robot, run, steps, learner, offline, config or [], overrides or [], as_json))


@app.command()
def learn(
    run: Run = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an existing run.")] = False,
    config: Files = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, every two seconds.")] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End when this process is gone.")] = None,
) -> None:
    """Train SAC on what robots stream in, and send them new policies."""
    from robotsac.cli.learn import run_learn_command

    raise typer.Exit(run_learn_command(run, resume, config or [], overrides or [], as_json, parent))


@app.command()
def train(
    ctx: typer.Context,
    robot: Robot = "arm0-twin",
    run: Run = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Control steps; without --sync, to the end of the episode that reaches them.")
    ] = 20_000,
    until_success: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop early at this success rate over 50 episodes.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=0, help="Held-out episodes of the final evaluation.")] = 50,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync",
            help="Act and learn in turn in one process, in simulation. learn.prior_data is for learn, and for train without it.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run --run that was cut, with its settings: until --steps in all; with --sync, from its "
            "last evaluation. It begins a new episode, so it is not bit for bit the run that was not cut.",
        ),
    ] = False,
    env: Annotated[
        str | None,
        typer.Option(
            help="With --sync: a gymnasium id; its actions must be a bounded box, its observations one or flattened to one. "
            "Default: the arm of --robot. Learning's defaults are "
            "for arms at 50 Hz; --config gym is SAC as published for gymnasium's tasks. It exports no policy "
            "bundle: a bundle holds an arm's contract. Of \\[collect], noise_hold_s counts."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="With --sync: instead of learn.seed.")] = None,
    eval_every: Annotated[int, typer.Option(min=1, help="With --sync: control steps between evaluations.")] = 5000,
    eval_episodes: Annotated[int, typer.Option(min=1, help="With --sync: episodes of each evaluation.")] = 10,
    config: Files = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Learner and collector together on this machine, as separate processes; then evaluate. Or --sync: one process."""
    from robotsac.cli.sync_options import SyncOptions, require_fitting

    typed = frozenset(name for name in ctx.params if _was_typed(ctx, name))
    require_fitting(typed, sync, env)
    if sync:
        from robotsac.cli.sync import run_sync

        options = SyncOptions(env, robot, run, steps, eval_every, eval_episodes, seed, resume, typed)
        raise typer.Exit(run_sync(options, config or [], overrides or [], as_json))
    from robotsac.cli.train import TrainOptions, run_train

    asked = TrainOptions(robot, run, steps, until_success, episodes, resume)
    raise typer.Exit(run_train(asked, config or [], overrides or [], as_json))


@app.command(name="eval")
def evaluate(
    robot: Robot,
    policy: Annotated[Path, typer.Option(help="Policy bundle (.onnx), or a run folder.")],
    episodes: Annotated[int, typer.Option(min=1, help="Held-out episodes.")] = 50,
    seed: Annotated[int, typer.Option(help="First seed of the held-out goals.")] = 1_000_000,
    config: Files = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run a policy without noise on held-out goals and count."""
    from robotsac.cli.evaluate import run_evaluate

    raise typer.Exit(run_evaluate(robot, policy, episodes, seed, config or [], overrides or [], as_json))


@app.command()
def twin(
    robot: Robot = "arm0",
    link: Annotated[Path | None, typer.Option(help="Symbolic link to keep pointing at the port.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after this long.")] = None,
    from_stdin: Annotated[
        bool,
        typer.Option("--from-stdin", help="The resolved \\[robot] comes as one JSON line on stdin, from a driver."),
    ] = False,
    config: Files = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the robot's virtual servo bus on a pseudo-terminal, in real time, until Ctrl-C."""
    from robotsac.cli.twin import run_twin_command

    raise typer.Exit(run_twin_command(robot, link, seconds, from_stdin, config or [], overrides or [], as_json))


@policy_app.command("show")
def policy_show(
    path: Annotated[Path, typer.Argument(help="Policy bundle (.onnx), or a run folder.")], as_json: AsJson = False
) -> None:
    """What a policy bundle says about itself, and whether it computes here what it did at the learner (else exit code 7)."""
    from robotsac.cli.show_policy import show_policy

    raise typer.Exit(show_policy(path, as_json))


@config_app.command("show")
def config_show(robot: Robot, config: Files = None, overrides: Overrides = None) -> None:
    """The resolved configuration, as JSON."""
    from robotsac.cli.inspect import show_config

    raise typer.Exit(show_config(robot, config or [], overrides or []))


@config_app.command("check")
def config_check(robot: Robot, config: Files = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Validate everything that can be validated without touching hardware."""
    from robotsac.cli.inspect import check_config

    raise typer.Exit(check_config(robot, config or [], overrides or [], as_json))


@fault_app.command("show")
def fault_show(
    path: Annotated[Path, typer.Argument(help="fault-….json, or the folder that it lies in: the newest one there.")],
    ticks: Annotated[int, typer.Option(min=1, help="Bus ticks up to the fault in the table.")] = 20,
    joint: Annotated[
        str | None, typer.Option(help="Joint by name or index; default: the one concerned, else all.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of everything recorded, before the fault and in the stop.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Why the guard stopped the arm, and the bus ticks that led to it."""
    from robotsac.cli.fault import show_fault

    raise typer.Exit(show_fault(path, ticks, joint, plot, as_json))


if __name__ == "__main__":
    main()
