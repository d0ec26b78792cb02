"""The arms that come with robotsac pass the suite that third parties get."""

from __future__ import annotations

from robotsac.arm import Arm, open_arm
from robotsac.config import load_config
from robotsac.testing import ArmContract


class TestMujocoArm(ArmContract):
    def make_arm(self) -> Arm:
        return open_arm(load_config("arm0-sim").robot)
