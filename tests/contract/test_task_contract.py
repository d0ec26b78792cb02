"""The tasks that come with robotsac pass the suite that third parties get."""

from __future__ import annotations

from functools import cached_property

from robotsac.arm import ArmSpec
from robotsac.config import Config, load_config
from robotsac.dynamics import RigidBody
from robotsac.env.checked_task import open_task
from robotsac.env.task import Task
from robotsac.testing import TaskContract


class _BuiltIn(TaskContract):
    name = ""

    @cached_property
    def config(self) -> Config:
        return load_config("arm0-sim", overrides=[f"task={{name='{self.name}'}}"])

    def make_task(self) -> Task:
        robot = self.config.robot
        return open_task(self.config.task, robot, RigidBody.from_config(robot))

    def make_spec(self) -> ArmSpec:
        return ArmSpec.from_config(self.config.robot)


class TestReach(_BuiltIn):
    name = "reach"


class TestHold(_BuiltIn):
    name = "hold"


class TestTrack(_BuiltIn):
    name = "track"
