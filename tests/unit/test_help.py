"""What --help shows is what was written: rich takes a word in brackets for a style and leaves it out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from robotsac.cli.main import app

FRAME = re.compile(r"[│╭╮╰╯─]")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group, with the words that lead to it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ALL = list(commands(typer.main.get_command(app)))


def written(command: Any) -> list[str]:
    """Its help texts, without what escapes a bracket."""
    texts = [command.help or "", *(getattr(parameter, "help", "") or "" for parameter in command.params)]
    hidden = {parameter.help for parameter in command.params if getattr(parameter, "hidden", False)}
    return [inspect.cleandoc(text).replace("\\[", "[") for text in texts if text and text not in hidden]


def shown(path: tuple[str, ...]) -> str:
    return " ".join(FRAME.sub(" ", CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "2000"}).output).split())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "robotsac" for path, _ in ALL])
def test_help_leaves_nothing_out(monkeypatch, path, command):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 2000, raising=False)
    text = shown(path)
    for wanted in written(command):
        assert " ".join(wanted.split()) in text


def test_there_is_a_bracket_to_lose():
    assert any("[robot]" in text for _, command in ALL for text in written(command))
