"""Rigid-body model of the arm: gravity torque and kinematics, from its MJCF, with MuJoCo as the library.

The same computation on robot and in simulation. It is a model, not the plant: it knows no friction and no motor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from robotsac.config.loading import edit_command
from robotsac.config.schema import RobotConfig
from robotsac.errors import ConfigError
from robotsac.quiet_mujoco import mujoco

Vector = NDArray[np.float64]


class RigidBody:
    """One arm's MJCF.

    Args:
        model: MJCF file.
        joint_names: the arm's hinge or slide joints, in config order; other joints of the file stay at their defaults.
        tip_site: site whose position :meth:`tip` returns.

    Raises:
        ConfigError: the file does not load, or a joint or the site is not in it.
    """

    def __init__(self, model: Path, joint_names: tuple[str, ...], tip_site: str) -> None:
        self.model = load_model(model)
        self._data = mujoco.MjData(self.model)
        self._q_index, self._dof = joint_indices(self.model, joint_names, model)
        self._site = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, tip_site)
        if self._site < 0:
            sites = ", ".join(self.model.site(i).name for i in range(self.model.nsite)) or "none"
            raise ConfigError(
                f"robot.tip_site: there is no site {tip_site!r} in {model}", reason=f"the model has sites: {sites}"
            )
        self._jacobian = np.zeros((3, self.model.nv))
        self._bias = np.zeros(self.model.nv)

    @classmethod
    def from_config(cls, robot: RobotConfig) -> Self:
        """Of a robot. Raises as the constructor."""
        return cls(robot.model, tuple(joint.name for joint in robot.joints), robot.tip_site)

    def gravity(self, q: Vector) -> Vector:
        """Torque (n,), N·m, that holds the arm still at ``q`` (n,), rad, against gravity."""
        self._data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        # Velocities in this MjData are never set, so the recursive Newton-Euler bias is gravity alone.
        mujoco.mj_rne(self.model, self._data, 0, self._bias)
        gravity: Vector = self._bias[self._dof]
        return gravity

    def inertia(self, q: Vector) -> Vector:
        """Inertia (n,), kg·m², that each joint's motor faces at ``q`` (n,), rad, while the others stand still."""
        self._data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_crb(self.model, self._data)
        full = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, self._data, full)
        return np.array(np.diagonal(full)[self._dof])

    def tip(self, q: Vector) -> Vector:
        """Position (3,), m, of the tip at ``q`` (n,), rad, in the base frame of the MJCF."""
        self._data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self.model, self._data)
        return np.array(self._data.site_xpos[self._site])

    def tip_jacobian(self, q: Vector) -> NDArray[np.float64]:
        """d tip / d q at ``q``: (3, n), m/rad."""
        self._data.qpos[self._q_index] = q
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_jacSite(self.model, self._data, self._jacobian, None, self._site)
        return np.array(self._jacobian[:, self._dof])


def load_model(path: Path) -> mujoco.MjModel:
    """Compile an MJCF file.

    Raises:
        ConfigError: it does not compile.
    """
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ConfigError(
            f"{path} is not a model MuJoCo can load", reason=" ".join(str(error).split()), command=edit_command(path)
        ) from error


def joint_indices(
    model: mujoco.MjModel, joint_names: tuple[str, ...], path: Path
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the named one-degree-of-freedom joints in ``qpos`` and ``qvel``.

    Raises:
        ConfigError: a name is not in the model, or the joint is a ball or free joint.
    """
    q_index, dof = [], []
    for name in joint_names:
        joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
        if joint < 0:
            present = ", ".join(model.joint(i).name for i in range(model.njnt)) or "none"
            raise ConfigError(
                f"robot.joints: there is no joint {name!r} in {path}", reason=f"the model has joints: {present}"
            )
        if int(model.jnt_type[joint]) not in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
            raise ConfigError(
                f"robot.joints: joint {name!r} of {path} has more than one degree of freedom",
                reason="an arm here is made of hinges and slides, one number each",
            )
        q_index.append(int(model.jnt_qposadr[joint]))
        dof.append(int(model.jnt_dofadr[joint]))
    return np.array(q_index, dtype=np.intp), np.array(dof, dtype=np.intp)
