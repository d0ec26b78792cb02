"""Who is welcome, and what is said to those who are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from link_world import DTYPE, LINK, World, a_contract, some_records

from robotsac.link import messages as m
from robotsac.link.outbox import Outbox
from robotsac.link.robot_end import RobotEnd
from robotsac.link.state import LinkState, RobotCard


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class Other:
    """A second robot that talks to the world's learner directly."""

    def __init__(self, world: World, name: str = "arm0", boot: str = "other", task: str = "reach") -> None:
        self._world = world
        contract = a_contract(task)
        self.heard: list[m.FromLearner] = []
        self._session = f"{hash((name, boot)) & 0xFFFFFFFF:08x}" * 2
        self.hello = m.Hello(
            session=self._session,
            to="",
            attempt=1,
            robot=name,
            boot=boot,
            boots=(m.BootOffer(boot, contract.digest(), 0, -1, -1),),
            contract=contract.to_json(),
            contract_digest=contract.digest(),
            versions={},
        )

    def say(self, message: m.FromRobot, block: bytes = b"") -> m.FromLearner | None:
        """Send, and give the answer."""
        wire = self._world.down
        before = len(wire.log)
        self._world.learner.receive(b"other", m.encode(message, block))
        self._world.learner.commit()
        answers = list(wire.log)[before:]
        return m.decode_from_learner(answers[-1])[0] if answers else None

    def batch(self, first: int, count: int, prev: int | None = None, boot: str = "other") -> m.FromLearner | None:
        """Send records."""
        block = some_records(first, count).tobytes()
        data = m.Data(
            session=self._session,
            to=self._world.learner.session,
            boot=boot,
            contract_digest=a_contract().digest(),
            prev_seq=first - 1 if prev is None else prev,
            first_seq=first,
            last_seq=first + count - 1,
            count=count,
            crc=m.block_crc(block),
        )
        return self.say(data, block)


def test_the_first_robots_contract_becomes_the_runs(world: World) -> None:
    assert world.replay.contract() is None
    world.run_for(0.2)
    assert world.replay.contract() == a_contract()


def test_another_contract_is_refused_and_the_difference_named(world: World) -> None:
    world.run_for(0.2)
    answer = Other(world, "arm1", task="hold").say(Other(world, "arm1", task="hold").hello)
    assert isinstance(answer, m.Refused)
    assert answer.message == "this run learns for another robot or task"
    assert "task is reach here and hold there" in answer.reason
    assert not answer.passing
    assert world.learner.status()["refusals"] == {"other contract": 1}


def test_two_collectors_of_one_name_are_refused_while_the_first_lives(world: World) -> None:
    world.run_for(0.5)
    other = Other(world)
    answer = other.say(other.hello)
    assert isinstance(answer, m.Refused)
    assert answer.message == "two collectors named arm0"
    assert answer.passing
    assert world.learner.last_refusal.startswith("two collectors named arm0")
    world.up.cut = True
    world.run_for(LINK.dead_ms / 1000 + 0.1)
    assert isinstance(other.say(other.hello), m.Welcome)


def test_a_restarted_uplink_takes_its_own_place_at_once(world: World) -> None:
    world.run_for(0.5)
    world.kill_robot()
    world.run_for(0.1)
    assert world.robot.state is LinkState.UP
    assert world.learner.refusals == {}


def test_a_collector_that_said_goodbye_leaves_its_name_free(world: World) -> None:
    world.run_for(0.5)
    world.robot.bye("stopped")
    for frames in world.up.arrived():
        world.learner.receive(b"peer", frames)
    other = Other(world)
    assert isinstance(other.say(other.hello), m.Welcome)


def test_more_robots_than_allowed_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path, link=LINK.model_copy(update={"robots_max": 1}))
    world.run_for(0.2)
    other = Other(world, "arm1")
    answer = other.say(other.hello)
    assert isinstance(answer, m.Refused)
    assert "serves 1 robots already, limit 1" in answer.message
    world.close()


def test_a_contract_that_is_not_one_is_refused(world: World) -> None:
    other = Other(world, "arm1")
    for changes in ({"contract": b"{}"}, {"contract_digest": "f" * 64}):
        answer = other.say(msgspec.structs.replace(other.hello, **changes))
        assert isinstance(answer, m.Refused)
    assert world.learner.refusals == {"malformed contract": 2}
    assert world.replay.contract() is None


def test_a_robot_that_is_refused_says_so_and_comes_in_when_it_may(world: World) -> None:
    world.run_for(0.2)
    outbox = Outbox(world.spool, "boot1", LINK)
    contract = a_contract("hold")
    wrong = RobotEnd(RobotCard("arm1", "b", contract, {}), LINK, outbox, world.fetch, world.up, world.clock)
    wrong.poll()
    for frames in world.up.arrived():
        world.learner.receive(b"peer", frames)
    for frames in world.down.arrived():
        wrong.receive(frames)
    assert wrong.state is LinkState.REFUSED
    assert wrong.refused_for_good
    assert wrong.notice.message == "this run learns for another robot or task"


def test_a_robot_of_another_protocol_is_told_so(world: World) -> None:
    (frame,) = m.encode(Other(world).hello)
    world.learner.receive(b"old", [frame[:4] + b"\x02\x00" + frame[6:]])
    assert world.learner.rejected == {"other protocol": 1}
    answer = world.down.log[-1]
    world.robot.receive([answer[0][:4] + b"\x02\x00" + answer[0][6:]])
    assert world.robot.state is LinkState.REFUSED
    assert "speaks protocol 2, this one 1" in world.robot.notice.message


def test_boots_of_another_contract_stay_in_the_spool_and_are_named(world: World) -> None:
    world.spool.close()
    world.contract = a_contract("hold")
    world.start_robot(new_boot=True)
    world.spool.append("boot2", some_records(0, 5))
    world.spool.close()
    world.contract = a_contract()
    world.start_robot(new_boot=True)
    world.produce(10)
    world.run_for(2)
    assert world.stored() == {"boot3": list(range(10))}
    assert set(world.outbox.refused) == {"boot2"}
    assert world.outbox.waiting == 0
    assert world.spool.unacked() == 5
    assert world.outbox.refused_records == 5
    (told,) = [words for _, words in world.robot.events if "stay in the spool" in words]
    assert told.startswith("5 records of earlier starts stay in the spool: they were recorded for another robot model")


def test_a_batch_out_of_turn_is_not_taken_and_asked_for_again(world: World) -> None:
    other = Other(world, "arm1")
    other.say(other.hello)
    answer = other.batch(5, 5)
    assert isinstance(answer, m.Ack)
    assert (answer.durable_seq, answer.rewind) == (-1, True)
    assert world.stored() == {}
    other.batch(0, 5)
    answer = other.batch(3, 7)
    assert isinstance(answer, m.Ack)
    assert (answer.durable_seq, answer.rewind) == (9, False)
    assert world.stored() == {"other": list(range(10))}
    robot = world.learner.robots.named("arm1")
    assert robot is not None and robot.duplicates == 2


def test_a_gap_the_robot_vouches_for_is_taken_and_counted(world: World) -> None:
    other = Other(world, "arm1")
    other.say(other.hello)
    other.batch(0, 5)
    other.batch(10, 5, prev=4)
    assert world.stored() == {"other": [*range(5), *range(10, 15)]}
    robot = world.learner.robots.named("arm1")
    assert robot is not None and robot.skipped == 5


def test_a_batch_that_does_not_fit_is_counted_and_not_stored(world: World) -> None:
    other = Other(world, "arm1")
    other.say(other.hello)
    good = m.Data(other.hello.session, world.learner.session, "other", a_contract().digest(), -1, 0, 3, 4, 0)
    records = some_records(0, 4)
    backwards = records[::-1].copy()
    for changes, block in [
        ({"boot": "unknown"}, records.tobytes()),
        ({"contract_digest": "f" * 64}, records.tobytes()),
        ({"count": 3}, records.tobytes()),
        ({"last_seq": 4}, records.tobytes()),
        ({"first_seq": 1}, records.tobytes()),
        ({"prev_seq": 0}, records.tobytes()),
        ({}, backwards.tobytes()),
        ({}, records.tobytes()[: -DTYPE.itemsize]),
        ({}, b""),
    ]:
        other.say(msgspec.structs.replace(good, crc=m.block_crc(block), **changes), block)
    assert world.learner.rejected == {"bad batch": 9}
    assert world.stored() == {}


def test_data_of_an_unknown_session_is_answered_never_taken(world: World) -> None:
    other = Other(world, "arm1")
    answer = other.batch(0, 5)
    assert isinstance(answer, m.HelloWanted)
    other.say(other.hello)
    stale = m.RobotBeat(other.hello.session, "f" * 32, 0, 0, 0)
    assert isinstance(other.say(stale), m.HelloWanted)
    assert world.learner.rejected == {"unknown session": 2}
    assert world.stored() == {}


def test_an_acknowledgement_of_what_was_never_sent_is_refused(world: World) -> None:
    world.produce(5)
    world.run_for(1)
    world.robot.receive(m.encode(m.Ack(world.learner.session, world.robot.session, "boot1", 99, -1, False)))
    assert world.outbox.durable == 4
    assert world.robot.rejected == {"acknowledges what was not sent": 1}


def test_credit_is_shared_among_the_robots_that_live(world: World) -> None:
    world.learner.progress.credit_total = 100
    world.run_for(0.5)
    other = Other(world, "arm1")
    answer = other.say(other.hello)
    assert isinstance(answer, m.Welcome)
    assert answer.credit == 50
