"""A twin in a process of its own, for tests."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# A busy machine may take long for anything; nothing here is a measurement.
PATIENCE_S = 120.0
SCRIPT = """
import sys
from pathlib import Path
from robotsac.config import load_config
from robotsac_sim.twin.process import run_twin
link = Path(sys.argv[1]) if sys.argv[1] else None
raise SystemExit(run_twin(load_config("arm0", (), sys.argv[2:]).robot, as_json=True, link=link))
"""


class TwinProcess:
    """``with TwinProcess() as twin``: serves arm0's bus until the end of the block.

    Args:
        overrides: as ``--set``.
        link: symbolic link to the port.
    """

    def __init__(self, *overrides: str, link: Path | None = None) -> None:
        self._command = [sys.executable, "-c", SCRIPT, str(link or ""), *overrides]
        self.announced: dict[str, Any] = {}

    def __enter__(self) -> TwinProcess:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ready = select.select([self.process.stdout], [], [], PATIENCE_S)[0]
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise AssertionError(f"the twin did not start: {self.process.communicate()[1]}")
        self.announced = json.loads(line)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def port(self) -> str:
        return str(self.announced["port"])

    def finish(self) -> dict[str, Any]:
        """Wait until it ends by itself; its closing summary."""
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors
        summary: dict[str, Any] = json.loads(errors.splitlines()[-1])
        return summary


def wait_for(condition: Any, what: str) -> None:
    """Poll until ``condition()`` holds."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"never came true: {what}"
        time.sleep(0.01)
