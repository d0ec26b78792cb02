"""What the terminal shows: one live line on a terminal, plain lines elsewhere, and errors a tired person understands."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from robotsac.config.folders import find_config
from robotsac.config.loading import SHOW_KEYS, edit_command, robot_command
from robotsac.config.schema import LinkConfig
from robotsac.errors import AGAIN, LEARN, ROBOT_FILE, ConfigError, RobotsacError, StorageError

SHORT = {"-r": "--robot"}
# A closed terminal, a pipe whose reader left; rich turns the latter into SystemExit.
NOBODY_LISTENS = (OSError, SystemExit)
PLAIN_PERIOD_S = 5.0
UNCHANGED_PERIOD_S = 30.0
REFRESH_PER_S = 4


def report_error(error: RobotsacError) -> int:
    """Say what went wrong: to a person, and before that, with ``--json``, to a script. Returns the exit code."""
    spell_out(error)
    if "--json" in sys.argv:
        say(json.dumps({"error": error.to_dict()}))
    print_error(error)
    return error.exit_code


def spell_out(error: RobotsacError, link: LinkConfig | None = None) -> None:
    """Make ``error.command`` one that can be pasted: only here is it known what was typed.

    Args:
        error: changed.
        link: of the robot, where one was resolved: says where it looks for a learner.
    """
    if "--parent" in sys.argv:
        return  # nobody typed this; whoever started it spells it out
    typed = sys.argv[1:]
    if error.command == AGAIN:
        error.command = shlex.join(["robotsac", *typed])
    elif error.command == ROBOT_FILE:
        error.command = _look_at_robot(typed)
    elif error.command == LEARN:
        error.command = (link or LinkConfig()).learn_command()
    elif error.command.startswith("--"):
        options = (part.partition(" ") for part in re.split(r" (?=--)", error.command))
        error.command = typed_with(*((option, value) for option, _, value in options))


def typed_with(*options: tuple[str, str]) -> str:
    """What was typed, with other values of these options."""
    typed = sys.argv[1:]
    for option, value in options:
        typed = [*_without(option, value, typed), option, value]
    return shlex.join(["robotsac", *typed])


def _look_at_robot(typed: list[str]) -> str:
    """Where what is wrong with a robot's configuration can be seen and mended."""
    options = [(SHORT.get(option, option), value) for option, value in itertools.pairwise(_apart(typed))]
    robot = next((value for option, value in reversed(options) if option == "--robot"), None)
    files = [value for option, value in options if option == "--config"]
    try:
        if robot is None:
            in_file = files and "--set" not in dict(options)
            return edit_command(find_config(Path(files[-1]))) if in_file else SHOW_KEYS
        return robot_command(robot, laid_over=bool(files) or "--set" in dict(options))
    except ConfigError as nowhere:
        return nowhere.command


def _without(option: str, value: str, typed: list[str]) -> list[str]:
    """``typed`` without what ``option`` with ``value`` will replace.

    That is the same option; of ``--set`` the same key; with another ``--robot`` what was set of the old one's driver; and
    the learner's address, which has an option of its own.
    """
    words = _apart(typed)
    old = set()
    for i, (name, given) in enumerate(itertools.pairwise(words)):
        same = SHORT.get(name, name) == option and (
            option != "--set" or given.startswith(value.partition("=")[0] + "=")
        )
        of_old_robot = option == "--robot" and name == "--set" and given.startswith("robot.driver.")
        if same or of_old_robot or (_is_address(option, value) and _is_address(name, given)):
            old |= {i, i + 1}
    return [word for i, word in enumerate(words) if i not in old]


def _is_address(option: str, value: str) -> bool:
    return option == "--learner" or (option == "--set" and value.startswith("link.address="))


def _apart(typed: list[str]) -> list[str]:
    """``--option=value`` as two words."""
    return [part for word in typed for part in (word.split("=", 1) if word.startswith("--") else [word])]


def print_error(error: RobotsacError) -> None:
    """One sentence, one reason, one command, on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with contextlib.suppress(*NOBODY_LISTENS):
        console.print(Text.assemble(("robotsac: ", "bold red"), error.message))
        if error.reason:
            console.print(Text.assemble(("   why: ", "bold"), error.reason.replace("\n", "\n" + " " * len("   why: "))))
        if error.command:
            console.print(Text.assemble(("   try: ", "bold"), error.command))


class StatusLine:
    """A line that renews itself. Context manager.

    Args:
        plain: never the live line (a script reads our JSON): plain lines, on stderr.
    """

    def __init__(self, plain: bool = False) -> None:
        self._plain = plain
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last_s = time.monotonic()
        self._last = ""

    def __enter__(self) -> Self:
        if not self._plain and self._console.is_terminal:
            self._live = Live("", console=self._console, refresh_per_second=REFRESH_PER_S, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with contextlib.suppress(*NOBODY_LISTENS):
                self._live.stop()

    def update(self, line: str) -> None:
        """Show ``line`` instead of the last one; on a plain stream at most every 5 s, every 30 s when nothing changed."""
        if self._live is not None:
            self._live.update(Text(_folded(line, self._console.width)))
        elif time.monotonic() - self._last_s >= (PLAIN_PERIOD_S if line != self._last else UNCHANGED_PERIOD_S):
            self._last_s, self._last = time.monotonic(), line
            tell(line)

    def event(self, text: str) -> None:
        """Something that happened; stays on the screen."""
        if self._live is None:
            tell("· " + text)
            return
        with contextlib.suppress(*NOBODY_LISTENS):
            self._live.console.print(Text("· " + text))


def say(line: str) -> None:
    """To stdout; that nobody listens any more is no reason to fail, now or when the interpreter flushes at its end.

    Raises:
        StorageError: it goes to a file on a disk that is full.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        drop(sys.stdout)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError("output cannot be written", reason=str(error), command="df -h") from error


def drop(stream: TextIO) -> None:
    """What is written to ``stream`` and what it still holds goes nowhere: else Python, which flushes at its end, fails on it once
    more and exits with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(line: str) -> None:
    """To stderr. A terminal that is gone must not stand between the supervisor and an orderly stop."""
    with contextlib.suppress(*NOBODY_LISTENS):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _folded(line: str, width: int) -> str:
    """``line`` on as many rows as it needs, broken only between its parts (two spaces), so that none is cut off."""
    rows = [""]
    for part in line.split("  "):
        longer = f"{rows[-1]}  {part}" if rows[-1] else part
        if len(longer) <= width or not rows[-1]:
            rows[-1] = longer
        else:
            rows.append(part)
    return "\n".join(rows)
