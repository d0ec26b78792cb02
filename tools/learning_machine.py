"""Where the runs of ``bench_learning.py`` are made: what they are told of it, and what is noted of it."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robotsac.config.learn import LearnConfig
from robotsac.process import cores

ROOT = Path(__file__).resolve().parents[1]
DECISIVE = ("robotsac", "sim", "hardware", "configs", "tools", "pyproject.toml")
"""What a run is made by; a note that lies beside it is no change."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how runs are made; it does not belong to what was asked for.

    Args:
        device, threads, backend: ``learn.device``, ``learn.threads`` and ``learn.backend``; no backend: what the rest says.
        jobs: runs at a time, which share the processor.
    """

    device: str = "cpu"
    threads: int = 1
    backend: str | None = None
    jobs: int = 1

    def options(self) -> list[str]:
        """For the command line."""
        learn = {"device": self.device, "threads": self.threads, "backend": self.backend}
        return [word for key, value in learn.items() if value for word in ("--set", f"learn.{key}={value!r}")]

    def described(self) -> dict[str, Any]:
        """With the processor, the commit and the versions that decide about results."""
        found = {name: metadata.version(name) for name in ("torch", "numpy", "gymnasium", "mujoco-core")}
        return {
            **{name: value for name, value in asdict(self).items() if value is not None},
            "processor": _processor(),
            "cores": cores(),
            "python": platform.python_version(),
            **found,
            "commit": commit(),
        }


def what_is_wrong(**learn: Any) -> str:
    """With these keys of ``[learn]``, in words; ``""`` where nothing is."""
    try:
        LearnConfig.model_validate(learn)
    except ValidationError as error:
        first = error.errors()[0]
        return f"--{first['loc'][0]} {first['input']}: {first['msg']}"
    return ""


def _processor() -> str:
    """Its model, where the kernel says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit(root: Path = ROOT, paths: tuple[str, ...] = DECISIVE) -> str:
    """The commit that ``root`` stands at, with ``-dirty`` where files of ``paths`` are not as in it; ``""`` without git."""
    head = _git(root, "rev-parse", "--short", "HEAD")
    return head + "-dirty" if head and _git(root, "status", "--porcelain", "--", *paths) else head


def _git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
