"""The servo's control loops: from goals to phase current.

Current mode is exact. The others are honest but simple: PID on counts with the gains of the table and the divisors of the
e-manual, a profile of limited velocity and acceleration, one pass per ``control_period_ns``. Their internal units are not
published; a PWM count per count of error is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from robotsac_sim.motors import MotorModel
from robotsac_sim.twin.encoder import COUNTS_PER_TURN, RAD_S_PER_COUNT
from robotsac_sim.twin.protocol import POSITION_MODES, Mode
from robotsac_sim.twin.registers import Registers
from robotsac_sim.twin.table import PWM_FULL, Reg

# Divisors of the gain registers: e-manual, "Position PID Gain" and "Velocity PI Gain".
POSITION_P_SCALE, POSITION_I_SCALE, POSITION_D_SCALE = 128.0, 65_536.0, 16.0
VELOCITY_P_SCALE, VELOCITY_I_SCALE = 128.0, 65_536.0
FEEDFORWARD_SCALE = 4.0
# Profile units in counts of position: 0.229 rev/min and 214.577 rev/min².
PROFILE_VELOCITY_COUNTS_S = 0.229 * COUNTS_PER_TURN / 60.0
PROFILE_ACCELERATION_COUNTS_S2 = 214.577 * COUNTS_PER_TURN / 3600.0


@dataclass(slots=True)
class Settings:
    """The registers that the loops read, in register units."""

    mode: int = Mode.POSITION
    pwm_limit: int = PWM_FULL
    current_limit: int = 0
    velocity_p: int = 0
    velocity_i: int = 0
    position_p: int = 0
    position_i: int = 0
    position_d: int = 0
    feedforward_1st: int = 0
    feedforward_2nd: int = 0
    profile_velocity: int = 0
    profile_acceleration: int = 0
    goal_pwm: int = 0
    goal_current: int = 0
    goal_velocity: int = 0
    goal_position: int = 0
    # Whether the output depends on goals alone, so that time may pass in one piece.
    open_loop: bool = False

    def __post_init__(self) -> None:
        self._judge()

    @classmethod
    def read(cls, registers: Registers) -> Settings:
        """Take over the table as it stands."""
        get = registers.get
        return cls(
            mode=get(Reg.OPERATING_MODE),
            pwm_limit=get(Reg.PWM_LIMIT),
            current_limit=get(Reg.CURRENT_LIMIT),
            velocity_p=get(Reg.VELOCITY_P_GAIN),
            velocity_i=get(Reg.VELOCITY_I_GAIN),
            position_p=get(Reg.POSITION_P_GAIN),
            position_i=get(Reg.POSITION_I_GAIN),
            position_d=get(Reg.POSITION_D_GAIN),
            feedforward_1st=get(Reg.FEEDFORWARD_1ST_GAIN),
            feedforward_2nd=get(Reg.FEEDFORWARD_2ND_GAIN),
            profile_velocity=get(Reg.PROFILE_VELOCITY),
            profile_acceleration=get(Reg.PROFILE_ACCELERATION),
            goal_pwm=get(Reg.GOAL_PWM),
            goal_current=get(Reg.GOAL_CURRENT),
            goal_velocity=get(Reg.GOAL_VELOCITY),
            goal_position=get(Reg.GOAL_POSITION),
        )

    def set_goal(self, address: int, value: int) -> None:
        """One goal register was written."""
        if address == Reg.GOAL_CURRENT:
            self.goal_current = value
        elif address == Reg.GOAL_PWM:
            self.goal_pwm = value
            self._judge()
        elif address == Reg.GOAL_VELOCITY:
            self.goal_velocity = value
        elif address == Reg.GOAL_POSITION:
            self.goal_position = value

    def _judge(self) -> None:
        self.open_loop = self.mode == Mode.CURRENT and min(self.pwm_limit, abs(self.goal_pwm)) >= PWM_FULL


class Controller:
    """The loops of one servo.

    Args:
        motor: electrical figures.
        current_unit_a: A per count.
    """

    def __init__(self, motor: MotorModel, current_unit_a: float) -> None:
        self._motor = motor
        self._unit_a = current_unit_a
        self.settings = Settings()
        self.velocity_trajectory = 0.0
        self.position_trajectory = 0.0
        self.profile_running = False
        self._integral = 0.0
        self._last_error = 0.0

    def restart(self, position: int) -> None:
        """Torque comes on: the loops start from rest, here."""
        self._integral = 0.0
        self._last_error = 0.0
        self.velocity_trajectory = 0.0
        self.position_trajectory = float(position)
        self.profile_running = False

    def current_a(self, position: int, omega: float, volt_v: float, dt_s: float) -> float:
        """Phase current for the next ``dt_s``, A, in the servo's sense.

        Args:
            position: counts, as Present Position.
            omega: rad/s.
            volt_v: supply.
        """
        settings = self.settings
        if settings.mode == Mode.CURRENT:
            limit = settings.current_limit
            wanted = max(-limit, min(limit, settings.goal_current)) * self._unit_a
            return wanted if settings.open_loop else self._within_pwm(wanted, omega, volt_v)
        if settings.mode == Mode.PWM:
            pwm = float(max(-settings.pwm_limit, min(settings.pwm_limit, settings.goal_pwm)))
        elif settings.mode == Mode.VELOCITY:
            pwm = self._velocity_loop(omega / RAD_S_PER_COUNT, dt_s)
        else:
            pwm = self._position_loop(position, dt_s)
        current = self._current_at(pwm, omega, volt_v)
        if settings.mode == Mode.CURRENT_BASED_POSITION:
            ceiling = min(abs(settings.goal_current), settings.current_limit) * self._unit_a
            current = max(-ceiling, min(ceiling, current))
        return current

    def pwm(self, current_a: float, omega: float, volt_v: float) -> int:
        """Present PWM: the duty that a current needs, in counts of 0.113 %."""
        duty = (current_a * self._motor.resistance_ohm + self._motor.back_emf_v_s_rad * omega) / max(volt_v, 0.1)
        return round(max(-1.0, min(1.0, duty)) * PWM_FULL)

    def _current_at(self, pwm: float, omega: float, volt_v: float) -> float:
        volts = pwm / PWM_FULL * volt_v
        return (volts - self._motor.back_emf_v_s_rad * omega) / self._motor.resistance_ohm

    def _pwm_ceiling(self) -> float:
        return float(min(self.settings.pwm_limit, abs(self.settings.goal_pwm)))

    def _within_pwm(self, current: float, omega: float, volt_v: float) -> float:
        ceiling = self._pwm_ceiling()
        low, high = self._current_at(-ceiling, omega, volt_v), self._current_at(ceiling, omega, volt_v)
        return max(low, min(high, current))

    def _saturate(self, pwm: float) -> float:
        ceiling = self._pwm_ceiling()
        return max(-ceiling, min(ceiling, pwm))

    def _velocity_loop(self, velocity: float, dt_s: float) -> float:
        settings = self.settings
        self.velocity_trajectory = _approach(
            self.velocity_trajectory,
            settings.goal_velocity,
            settings.profile_acceleration * PROFILE_ACCELERATION_COUNTS_S2 / PROFILE_VELOCITY_COUNTS_S * dt_s,
        )
        self.profile_running = self.velocity_trajectory != settings.goal_velocity
        error = self.velocity_trajectory - velocity
        return self._pi(error, settings.velocity_p / VELOCITY_P_SCALE, settings.velocity_i / VELOCITY_I_SCALE, dt_s)

    def _position_loop(self, position: int, dt_s: float) -> float:
        settings = self.settings
        before = self.velocity_trajectory
        self._follow_profile(dt_s)
        error = self.position_trajectory - position
        # The D gain works on the change of the error per pass of 1 ms.
        slope = (error - self._last_error) / (dt_s * 1e3)
        self._last_error = error
        pwm = self._pi(error, settings.position_p / POSITION_P_SCALE, settings.position_i / POSITION_I_SCALE, dt_s)
        pwm += settings.position_d / POSITION_D_SCALE * slope
        pwm += settings.feedforward_1st / FEEDFORWARD_SCALE * self.velocity_trajectory * 1e-3
        pwm += settings.feedforward_2nd / FEEDFORWARD_SCALE * (self.velocity_trajectory - before) * 1e-3
        return self._saturate(pwm)

    def _pi(self, error: float, p: float, i: float, dt_s: float) -> float:
        step = i * error * dt_s * 1e3
        pwm = self._saturate(p * error + self._integral + step)
        # The integral stops where the output does.
        if abs(pwm) < self._pwm_ceiling() or pwm * error < 0.0:
            self._integral += step
        return pwm

    def _follow_profile(self, dt_s: float) -> None:
        """Move the position trajectory (counts) at the profile's velocity (counts/s); 0 jumps."""
        settings = self.settings
        left = settings.goal_position - self.position_trajectory
        top = settings.profile_velocity * PROFILE_VELOCITY_COUNTS_S
        if top <= 0.0 or settings.mode not in POSITION_MODES:
            self.position_trajectory = float(settings.goal_position)
            self.velocity_trajectory = 0.0
            self.profile_running = False
            return
        acceleration = settings.profile_acceleration * PROFILE_ACCELERATION_COUNTS_S2
        if acceleration > 0.0:
            top = min(top, math.sqrt(2.0 * acceleration * abs(left)))
        self.velocity_trajectory = _approach(self.velocity_trajectory, math.copysign(top, left), acceleration * dt_s)
        step = self.velocity_trajectory * dt_s
        self.profile_running = abs(step) < abs(left)
        if self.profile_running:
            self.position_trajectory += step
        else:
            self.position_trajectory = float(settings.goal_position)
            self.velocity_trajectory = 0.0


def _approach(value: float, goal: float, step: float) -> float:
    """``value`` moved towards ``goal`` by at most ``step``; at once when ``step`` is 0."""
    if step <= 0.0:
        return goal
    return value + max(-step, min(step, goal - value))
