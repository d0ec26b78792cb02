"""How a tool ends that cannot go on: as the product does, with one sentence, one reason, one command."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from robotsac.cli.console import print_error, spell_out
from robotsac.errors import RobotsacError


def typed() -> str:
    """The command line of this tool, to be pasted in the project's folder."""
    return shlex.join(["python", f"tools/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def give_up(error: RobotsacError) -> NoReturn:
    """Say ``error`` and exit with its code; a command that is one option is for the end of what was typed.

    With ``--json`` stdout has it too, as that of ``robotsac --json``.
    """
    if error.command.startswith("--"):
        error.command = f"{typed()} {error.command}"
    spell_out(error)
    if "--json" in sys.argv:
        print(json.dumps({"error": error.to_dict()}))
    print_error(error)
    sys.exit(error.exit_code)
