"""The conformance suite of the arm port.

A driver's author subclasses :class:`ArmContract`, says how to make a fresh, disconnected arm, and gets the suite::

    class TestMyArm(ArmContract):
        def make_arm(self) -> Arm:
            return open_arm(load_config("my_arm").robot)

It moves the arm by a few milliradians, with torques the guard has admitted. On real hardware, run it where that is fine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from robotsac.arm import Arm, ArmState, JointState, LimitedTorque
from robotsac.clock import NS_PER_S
from robotsac.errors import ArmStateError
from robotsac.guard.limits import Limits, admit

ROUNDS = 20


class ArmContract:
    """Subclass as ``Test…`` and give :meth:`make_arm`."""

    def make_arm(self) -> Arm:
        """A fresh arm, DISCONNECTED."""
        raise NotImplementedError

    @pytest.fixture
    def arm(self) -> Iterator[Arm]:
        """A fresh arm, closed afterwards."""
        arm = self.make_arm()
        yield arm
        arm.close()

    # ---- lifecycle -------------------------------------------------------------------------------------------------

    def test_lifecycle_goes_through_its_states(self, arm: Arm) -> None:
        seen = [arm.state]
        for move in (arm.connect, arm.energize, arm.stop, arm.close):
            move()
            seen.append(arm.state)
        disconnected, idle, energized = ArmState.DISCONNECTED, ArmState.IDLE, ArmState.ENERGIZED
        assert seen == [disconnected, idle, energized, idle, disconnected]

    def test_calls_outside_their_state_are_refused(self, arm: Arm) -> None:
        """Disconnected, idle and energized, in turn: ``ArmStateError``."""
        for call in (arm.energize, arm.read, lambda: arm.exchange(no_torque(arm))):
            with pytest.raises(ArmStateError):
                call()
        arm.connect()
        for call in (arm.connect, lambda: arm.exchange(no_torque(arm))):
            with pytest.raises(ArmStateError):
                call()
        arm.energize()
        for call in (arm.connect, arm.energize, arm.read):
            with pytest.raises(ArmStateError):
                call()

    def test_stop_and_close_are_legal_everywhere_and_idempotent(self, arm: Arm) -> None:
        """They raise in no state, however often."""
        arm.stop()
        arm.close()
        arm.connect()
        arm.stop()
        arm.stop()
        arm.energize()
        arm.stop()
        arm.stop()
        arm.close()
        arm.close()

    def test_can_be_energized_again_after_a_stop(self, arm: Arm) -> None:
        arm.connect()
        for _ in range(2):
            arm.energize()
            arm.exchange(no_torque(arm))
            arm.stop()
            assert arm.torque_is_off()

    def test_torque_is_off_until_energized_and_after_stop(self, arm: Arm) -> None:
        arm.connect()
        arm.stop()
        assert arm.torque_is_off()
        arm.energize()
        assert not arm.torque_is_off()
        arm.stop()
        assert arm.torque_is_off()

    # ---- states ----------------------------------------------------------------------------------------------------

    def test_state_arrays_have_the_arms_shape_and_finite_si_values(self, arm: Arm) -> None:
        """Every array (n,), measured ones float64 and finite; rad, °C and V by their size."""
        arm.connect()
        state = arm.read()
        n = arm.spec.n
        for name in ("q", "dq", "tau", "tau_cmd", "temp_c", "volt_v"):
            values = getattr(state, name)
            assert values.shape == (n,), name
            assert values.dtype == np.float64, name
            assert np.isfinite(values).all(), name
        assert state.fresh.shape == (n,)
        assert state.faults.shape == (n,)
        assert (np.abs(state.q) < 4 * np.pi).all(), "positions are radians"
        assert ((state.temp_c > -20) & (state.temp_c < 120)).all(), "temperatures are °C"
        assert ((state.volt_v > 1) & (state.volt_v < 100)).all(), "voltages are V"

    def test_sequence_and_time_only_go_forward(self, arm: Arm) -> None:
        states = list(self.rounds(arm))
        assert all(b.seq > a.seq for a, b in itertools.pairwise(states))
        assert all(b.t_ns > a.t_ns for a, b in itertools.pairwise(states))

    def test_a_state_is_never_written_again(self, arm: Arm) -> None:
        rounds = self.rounds(arm)
        first = next(rounds)
        kept = {name: getattr(first, name).copy() for name in ("q", "dq", "tau", "tau_cmd", "fresh", "faults")}
        list(rounds)
        for name, value in kept.items():
            np.testing.assert_array_equal(getattr(first, name), value, err_msg=name)

    def test_what_was_told_is_what_was_asked_within_quantisation(self, arm: Arm) -> None:
        arm.connect()
        arm.energize()
        asked = admitted(arm, arm.exchange(no_torque(arm)), 0.02 * arm.spec.tau_max)
        arm.clock.sleep_until(arm.clock.now_ns() + NS_PER_S // arm.spec.bus_rate_hz)
        state = arm.exchange(asked)
        np.testing.assert_allclose(state.tau_cmd, asked, atol=0.01 * arm.spec.tau_max.max())

    def test_the_caller_may_reuse_its_torque_array(self, arm: Arm) -> None:
        arm.connect()
        arm.energize()
        torque = no_torque(arm)
        state = arm.exchange(torque)
        torque[:] = 1e9
        np.testing.assert_array_equal(state.tau_cmd, np.zeros(arm.spec.n))

    def rounds(self, arm: Arm) -> Iterator[JointState]:
        """Connect, energize, and a few rounds without torque at the bus rate."""
        arm.connect()
        arm.energize()
        period_ns = NS_PER_S // arm.spec.bus_rate_hz
        for _ in range(ROUNDS):
            yield arm.exchange(no_torque(arm))
            arm.clock.sleep_until(arm.clock.now_ns() + period_ns)


def no_torque(arm: Arm) -> LimitedTorque:
    """Zero, the one torque that needs no state to be admitted."""
    return LimitedTorque(np.zeros(arm.spec.n))


def admitted(arm: Arm, state: JointState, tau: np.ndarray) -> LimitedTorque:
    """``tau`` (n,), N·m, through the guard's limits, with no gravity compensation."""
    zero = np.zeros(arm.spec.n)
    return admit(tau, zero, state, zero, Limits(arm.spec, 1.0 / arm.spec.bus_rate_hz)).torque
