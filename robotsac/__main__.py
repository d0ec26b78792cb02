"""Entry point of ``robotsac`` and ``python -m robotsac``: what a Ctrl-C means before any command listens for it."""

from __future__ import annotations

import sys

from robotsac.early_interrupt import EARLY

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Ctrl-C while it still imports ends it without a word: nothing has been touched yet."""
    EARLY.listen()
    try:
        from robotsac.cli.main import main as run_command_line

        run_command_line()
    except (Exception, KeyboardInterrupt):
        # An extension module that is interrupted while it loads turns the interrupt into an ImportError.
        if not EARLY.seen:
            raise
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
