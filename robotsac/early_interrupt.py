"""Ctrl-C before any command listens for it: it ends the command, even where a library swallows the exception.

An extension module may turn an interrupt of its import into something else, and go on. So whoever begins to listen asks
whether one came before.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


class EarlyInterrupt:
    """A handler of SIGINT that remembers.

    Attributes:
        seen: whether there was one.
    """

    def __init__(self) -> None:
        self.seen = False
        self._told_before = sys.unraisablehook

    def listen(self) -> None:
        """From now on, unless somebody else listens already; a shell starts background jobs with SIGINT ignored."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._told_before, sys.unraisablehook = sys.unraisablehook, self._without_a_word

    def raise_if_seen(self) -> None:
        """Raises KeyboardInterrupt, once more, where one was seen."""
        if self.seen:
            raise KeyboardInterrupt

    def _without_a_word(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Where Python cannot raise, as in a callback of its imports, it would print a traceback instead."""
        if not self.seen or not isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._told_before(unraisable)

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True
        raise KeyboardInterrupt


EARLY = EarlyInterrupt()
"""Of this process; ``robotsac.__main__`` makes it listen."""
