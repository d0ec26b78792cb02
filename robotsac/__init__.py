"""robotsac: Soft Actor-Critic on a physical, torque-controlled robot arm.

Importing this package does nothing else: every room (``robotsac.arm``, ``robotsac.guard``, …) is imported by name.
"""

__version__ = "0.1.0"
