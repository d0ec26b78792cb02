"""The one gymnasium environment, its codec and its tasks. Importing this package registers ``robotsac/Arm-v0``."""

import gymnasium

ENV_ID = "robotsac/Arm-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(id=ENV_ID, entry_point="robotsac.env.arm_env:make_arm_env", order_enforce=False)
