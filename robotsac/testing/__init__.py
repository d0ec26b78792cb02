"""Conformance suites that a driver or task author subclasses. Needs pytest."""

from robotsac.testing.arm_contract import ArmContract
from robotsac.testing.task_contract import TaskContract

__all__ = ["ArmContract", "TaskContract"]
