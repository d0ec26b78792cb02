"""A folder that Python takes for an installed package with a task in it."""

from __future__ import annotations

from pathlib import Path

BROKEN = '''
import os

import numpy as np
from robotsac.contract import Channel
from robotsac.env.task import Judgement
from robotsac.records import EpisodeEnd


class Broken:
    """Gives what ``replies`` says, from the step of that number on."""

    name = "broken"
    channels = (Channel("one", 1, "m", (1.0,)),)
    parameters = {}

    def __init__(self, robot, params, body, dt_s, episode_s):
        if params.get("at") == "__init__":
            raise ZeroDivisionError("at the very start")
        self._at, self._calls = params.get("at"), 0

    def begin(self, rng, state):
        if self._at == "begin":
            raise ZeroDivisionError("at the beginning")
        return 0.0

    def observe(self, goal, state):
        if self._at == "observe":
            return {}["nothing"]
        return {"shape": np.zeros(2), "hole": np.array([np.nan])}.get(self._at, np.zeros(1))

    def judge(self, goal, state, action, previous):
        self._calls += 1
        if self._calls < 5:
            return Judgement(0.0, EpisodeEnd.RUNNING, goal, {"calls": self._calls})
        if self._at == "judge":
            raise ZeroDivisionError("in the middle")
        if self._at == "exit":
            raise SystemExit(0)
        if self._at == "gone":
            os._exit(0)
        return {
            "reward": Judgement(float("nan"), EpisodeEnd.RUNNING, goal, {}),
            "infinite": Judgement(1e39, EpisodeEnd.RUNNING, goal, {}),
            "word": Judgement("much", EpisodeEnd.RUNNING, goal, {}),
            "end": Judgement(0.0, EpisodeEnd.TIME_LIMIT, goal, {}),
            "number": Judgement(0.0, 1, goal, {}),
            "goal": Judgement(0.0, EpisodeEnd.RUNNING, None, {}),
            "info": Judgement(0.0, EpisodeEnd.RUNNING, goal, 3),
            "tuple": (0.0, EpisodeEnd.RUNNING, goal, {}),
        }.get(self._at, Judgement(np.float32(1.0), EpisodeEnd.RUNNING, goal, {"calls": self._calls}))
'''


def install(folder: Path, name: str, module: str, code: str, target: str) -> Path:
    """Make ``folder`` hold ``module``.py and the metadata of a package whose task ``name`` is ``target`` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[robotsac.tasks]\n{name} = {module}:{target}\n", encoding="utf-8")
    return folder


def install_broken(folder: Path) -> Path:
    """The task ``broken``; ``task.at`` says what is wrong with it."""
    return install(folder, "broken", "broken_task", BROKEN, "Broken")
