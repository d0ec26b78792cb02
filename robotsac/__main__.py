"""Entry point of ``robotsac`` and ``python -m robotsac``: what a Ctrl-C means before any command listens for it."""

from __future__ import annotations

import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while it still imports ends it without a word: nothing has been touched yet."""
    interrupted = False

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    # A shell starts background jobs with SIGINT ignored; that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        from robotsac.cli.main import main as run_command_line

        run_command_line()
    except (Exception, KeyboardInterrupt):
        # An extension module that is interrupted while it loads turns the interrupt into an ImportError.
        if not interrupted:
            raise
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
