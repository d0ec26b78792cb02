"""Anybody's code, such as a task or an environment: what it raised in words, with the file and the line."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

from robotsac.config.loading import edit_command
from robotsac.errors import TaskError

RAISED = (Exception, SystemExit)
"""What such code may raise that is its own: one that ends the process is no different from one that fails."""


def failed(what: str, call: str, error: BaseException, source: Path | None, instead: str) -> TaskError:
    """What ``call`` of ``what`` raised; errors of ours need no other words.

    Args:
        what, call: for the sentence, such as ``task 'reach'`` and ``begin()``.
        error: what was raised.
        source: see :func:`source_of`; a line of it is told rather than one further in.
        instead: the command, where no file is known.
    """
    where, file = _origin(error, source)
    return TaskError(
        f"{what} failed in {call}: {type(error).__name__}: {error}".rstrip(": "),
        reason=f"raised {where}",
        command=look_at(file, instead),
    )


def source_of(thing: object) -> Path | None:
    """The file that ``thing``, its class where it is neither class nor function, stands in."""
    try:
        return Path(inspect.getfile(thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)))
    except (TypeError, OSError):  # made by a C extension, or typed in
        return None


def look_at(file: Path | None, instead: str) -> str:
    """The command that opens ``file``; ``instead`` where there is none."""
    return edit_command(file) if file is not None else instead


def _origin(error: BaseException, source: Path | None) -> tuple[str, Path | None]:
    """Where in the code's own file, else where at all, an error or what caused it came from."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if isinstance(chain[-1], SyntaxError) and chain[-1].filename:  # no frame is in that file: it never ran
        return f"in {chain[-1].filename}, line {chain[-1].lineno}", Path(chain[-1].filename)
    frames = [frame for link in reversed(chain) for frame in traceback.extract_tb(link.__traceback__)]
    own = [frame for frame in frames if source is not None and Path(frame.filename) == source]
    frame = (own or frames)[-1]
    return f"in {frame.filename}, line {frame.lineno}", Path(frame.filename)
