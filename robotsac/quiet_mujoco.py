"""MuJoCo, imported so that it leaves no file behind and no traceback: ``from robotsac.quiet_mujoco import mujoco``."""

from __future__ import annotations

from robotsac.signals import signals_deferred

# With it comes glfw, which starts a Python of its own to ask the window library for its version. A terminal's Ctrl-C reaches
# that process too, and it would print a traceback; so it would if this one left it before it was done.
with signals_deferred():
    import mujoco

# MuJoCo would write MUJOCO_LOG.TXT into whatever folder the user stands in; what it warns of is raised as an error.
mujoco.set_mju_user_warning(lambda _text: None)

__all__ = ["mujoco"]
