"""Configuration: TOML files to one frozen tree."""

from robotsac.config.learn import LearnConfig
from robotsac.config.loading import load_config, load_gym_settings, load_learner_settings, robot_names
from robotsac.config.schema import (
    CollectConfig,
    Config,
    GuardConfig,
    GymSettings,
    JointConfig,
    LearnerSettings,
    LinkConfig,
    PolicyConfig,
    RobotConfig,
    SpoolConfig,
    TaskConfig,
)

__all__ = [
    "CollectConfig",
    "Config",
    "GuardConfig",
    "GymSettings",
    "JointConfig",
    "LearnConfig",
    "LearnerSettings",
    "LinkConfig",
    "PolicyConfig",
    "RobotConfig",
    "SpoolConfig",
    "TaskConfig",
    "load_config",
    "load_gym_settings",
    "load_learner_settings",
    "robot_names",
]
