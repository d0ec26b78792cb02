"""What an import of MuJoCo starts is spared the terminal's Ctrl-C."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, signal, subprocess

blocked = []
start = subprocess.Popen.__init__


def noting(*args, **kwargs):
    blocked.append(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    start(*args, **kwargs)


subprocess.Popen.__init__ = noting
from robotsac.quiet_mujoco import mujoco

after = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(json.dumps({"blocked": blocked, "after": after, "version": mujoco.__version__}))
"""


def test_a_process_that_the_import_starts_gets_no_stop_signal():
    """glfw asks a Python of its own for the window library's version; it once met Ctrl-C with a traceback."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert found["blocked"] == [[1, 2, 15]] * len(found["blocked"])
    assert found["blocked"], "nothing is started any more: robotsac.quiet_mujoco need not block signals"
    assert found["after"] == []
