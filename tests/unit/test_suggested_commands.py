"""Every command that an error suggests can be pasted into a shell as it stands."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from robotsac.cli.main import app
from robotsac.errors import AGAIN, LEARN, ROBOT_FILE

ROOT = Path(__file__).parents[2]
PRODUCT = [ROOT / "robotsac", ROOT / "hardware/robotsac_hardware", ROOT / "sim/robotsac_sim"]
PROGRAMS = {
    "robotsac", "pip", "ls", "df", "find", "cat", "mv", "rm", "grep", "fuser", "ss", "findmnt", "ulimit", "sudo", "echo",
    "sha256sum", "kill", "${EDITOR:-vi}",
}  # fmt: skip
# For a programmer, not for a shell.
PYTHON = {
    "env.unwrapped.start()", "env.unwrapped.guard.clear_fault()", 'gymnasium.make("robotsac/Arm-v0", render_mode=None)',
}  # fmt: skip
# What the command line puts a command in place of.
WORDS = {AGAIN, LEARN, ROBOT_FILE}


def texts(node: ast.expr, constants: dict[str, str]) -> Iterator[str]:
    """What an expression may say; ``1`` stands for what is filled in, ``constants`` are the module's."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "1" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, constants)
        yield from texts(node.orelse, constants)
    elif isinstance(node, ast.Name) and node.id in constants:
        yield constants[node.id]


def suggested() -> Iterator[tuple[str, str]]:
    for root in PRODUCT:
        for path in sorted(root.rglob("*.py")):
            module = ast.parse(path.read_text(encoding="utf-8"))
            constants = {
                node.targets[0].id: node.value.value
                for node in module.body
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            }
            for node in ast.walk(module):
                if isinstance(node, ast.keyword) and node.arg == "command":
                    for text in texts(node.value, constants):
                        yield f"{path.relative_to(ROOT)}:{node.value.lineno}", text


def options(command: Any) -> set[str]:
    """Every option that a command or one below it takes."""
    own = {text for parameter in command.params for text in parameter.opts}
    return own.union(*(options(inner) for inner in getattr(command, "commands", {}).values()))


OPTIONS = options(typer.main.get_command(app))


def parse(arguments: list[str]) -> None:
    """What the command line makes of ``arguments``, without running anything. Raises click's UsageError."""

    def disarm(command: Any) -> None:
        command.callback = None
        for inner in getattr(command, "commands", {}).values():
            disarm(inner)

    command = typer.main.get_command(app)
    disarm(command)
    command.main(arguments, prog_name="robotsac", standalone_mode=False)


def check(command: str) -> None:
    """Raise AssertionError, or click's UsageError, for what cannot be pasted."""
    if command in PYTHON | WORDS or not command:
        return
    for placeholder in ("NAME", "HOST", "…", "...", "   ", "<"):
        assert placeholder not in command, placeholder
    if command.startswith("--"):
        option, _value = shlex.split(command)
        assert option in OPTIONS, f"no command takes {option}"
        return
    words = shlex.split(command, comments=True)
    assert words[0] in PROGRAMS or "1" in words[0], words[0]
    if words[0] == "robotsac" and words[1] != "--version":
        parse(words[1:])


def test_there_are_suggestions_to_check():
    assert len(list(suggested())) > 30


@pytest.mark.parametrize(("where", "command"), list(suggested()), ids=lambda value: str(value)[:60])
def test_a_suggested_command_can_be_pasted(where, command):
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        "robotsac learn --run ANOTHER_NAME",
        "robotsac collect --offline",
        "robotsac doctor",
        "robotsac learn   (or collect --offline to record without one)",
        "--set link.address=…",
        "--sett link.address=x",
        "--robot",
        "move the arm by hand",
    ],
)
def test_the_check_finds_what_cannot_be_pasted(command):
    with pytest.raises(Exception):  # noqa: B017 - click's error class differs between versions of typer
        check(command)
