"""The two ends over a bad network in simulated time: every committed record is in the replay log exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from link_world import LINK, SPOOL, World

from robotsac.errors import StorageError
from robotsac.link import messages as m
from robotsac.link.learner_end import ROW_RECORDS_MAX
from robotsac.link.policy_fetch import PolicyFetch
from robotsac.link.state import LIMIT_NONE, LIMIT_NOTHING, LinkState
from robotsac.policy.store import BundleStore


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def assert_exactly_once(world: World) -> None:
    expected = {boot: list(range(count)) for boot, count in world.produced.items() if count}
    assert world.stored() == expected


@pytest.mark.parametrize("seed", range(25))
def test_every_record_arrives_exactly_once_whatever_happens(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    rng = world.rng
    for _ in range(400):
        for wire in (world.up, world.down):
            if rng.random() < 0.02:
                wire.loss, wire.double = rng.choice([0, 0.05, 0.5]), rng.choice([0, 0.1, 0.5])
                wire.delay_ms, wire.cut = rng.choice([0, 50, 900]), rng.random() < 0.2
        if rng.random() < 0.01:
            world.kill_robot(new_boot=rng.random() < 0.3)
        if rng.random() < 0.01:
            world.kill_learner()
        if rng.random() < 0.5:
            world.produce(rng.randrange(4))
        # A learner that is killed between receiving and committing has staged records that nobody was promised.
        world.step(dt_ms=rng.choice([5, 20, 100]), commit=rng.random() < 0.8)
    for wire in (world.up, world.down):
        wire.loss = wire.double = 0
        wire.delay_ms, wire.cut = 0, False
    world.run_for(30, dt_ms=50)
    assert world.robot.state is LinkState.UP
    assert world.outbox.waiting == 0
    assert_exactly_once(world)
    assert world.learner.rejected["unreadable"] == world.robot.rejected["unreadable"] == 0
    world.outbox.flush()
    assert world.spool.unacked() == 0
    world.close()


def test_a_quiet_network_needs_no_resend(world: World) -> None:
    for _ in range(300):
        world.produce(1)
        world.step(20)
    world.run_for(1)
    assert_exactly_once(world)
    assert world.outbox.resends == 0
    assert world.learner.robots.named("arm0").duplicates == 0


def test_nothing_is_acknowledged_before_the_commit(world: World) -> None:
    world.run_for(0.1)
    world.produce(20)
    for _ in range(50):
        world.step(10, commit=False)
    assert world.outbox.durable == -1
    world.step(10)
    world.step(10)
    assert world.outbox.durable == 19


def test_the_window_bounds_what_is_on_its_way(world: World) -> None:
    world.run_for(0.1)
    world.produce(1000)
    for _ in range(20):
        world.step(10, commit=False)
    assert (
        world.learner.staged_bytes
        <= LINK.window_batches * LINK.batch_records * world.spool.pending("boot1", -1, 1).itemsize
    )


def test_silence_brings_the_link_down_and_it_comes_back_by_itself(world: World) -> None:
    world.run_for(0.5)
    assert world.robot.state is LinkState.UP
    world.down.cut = True
    world.run_for(LINK.dead_ms / 1000 + 0.3)
    assert world.robot.state is LinkState.DOWN
    assert "no sign of life" in world.robot.notice.message
    assert world.robot.limit_seq == LIMIT_NONE
    world.down.cut = False
    world.run_for(5)
    assert world.robot.state is LinkState.UP
    assert any("welcome" in words for _, words in world.robot.events)


def test_a_restarted_learner_is_greeted_anew(world: World) -> None:
    world.produce(50)
    world.run_for(1)
    session = world.learner.session
    world.kill_learner()
    world.produce(50)
    world.run_for(2)
    assert world.learner.session != session
    assert world.learner.rejected["unknown session"] > 0
    assert_exactly_once(world)


def test_records_of_an_earlier_boot_come_first(world: World) -> None:
    world.up.cut = True
    world.produce(30)
    world.kill_robot(new_boot=True)
    world.produce(30)
    world.up.cut = False
    world.run_for(5)
    assert_exactly_once(world)
    boots = [batch.boot for batch in world.replay.read_after(0, 1000)]
    assert boots == sorted(boots)


def test_a_learner_that_lost_its_disk_gets_what_is_still_kept(tmp_path: Path) -> None:
    world = World(tmp_path, spool=SPOOL.model_copy(update={"keep_acked_mb": 10.0}))
    world.produce(100)
    world.run_for(2)
    assert world.spool.unacked() == 0
    world.replay.close()
    (tmp_path / "run.db").unlink()
    world.start_learner()
    world.produce(10)
    world.run_for(3)
    assert_exactly_once(world)
    world.close()


def test_another_run_gets_only_what_no_run_has_taken(tmp_path: Path) -> None:
    world = World(tmp_path, spool=SPOOL.model_copy(update={"keep_acked_mb": 10.0}))
    world.produce(100)
    world.run_for(2)
    world.replay.close()
    world.run = "another"
    world.start_learner()
    world.produce(10)
    world.run_for(3)
    assert world.stored() == {"boot1": list(range(100, 110))}
    world.close()


def test_credit_bounds_the_robot_and_grows_with_the_run(world: World) -> None:
    world.learner.progress.credit_total = 0
    world.run_for(1)
    assert world.robot.limit_seq == LIMIT_NOTHING
    world.learner.progress.credit_total = 100
    world.run_for(1)
    assert world.robot.limit_seq == 99
    world.produce(40)
    world.run_for(1)
    assert world.robot.limit_seq == 99
    world.learner.progress.credit_total = -1
    world.run_for(1)
    assert world.robot.limit_seq == LIMIT_NONE


def test_a_policy_is_fetched_in_chunks_checked_and_stored(world: World) -> None:
    data = world.rng.randbytes(700_001)
    world.policies.publish(data, 3)
    world.up.loss = world.down.loss = 0.2
    world.run_for(20)
    entry = world.robot_policies.latest()
    assert entry is not None and entry.version == 3
    assert world.robot_policies.read(entry) == data


def test_a_new_policy_is_announced_at_once_and_not_with_the_next_heartbeat(world: World) -> None:
    world.run_for(1)
    world.policies.publish(b"one", 1)
    # Notice, request and bytes: each is taken in one round of the other side.
    for _ in range(4):
        world.step(dt_ms=1)
    entry = world.robot_policies.latest()
    assert entry is not None and entry.version == 1


def test_a_policy_that_cannot_be_read_is_tried_again_with_each_heartbeat_and_no_oftener(world: World) -> None:
    world.run_for(1)
    entry = world.policies.publish(b"good", 1)
    (world.policies.folder / entry.file).write_bytes(b"bad!")
    world.run_for(2)
    assert 9 <= world.learner.status()["policy_unreadable"] <= 11, "at 200 ms each, and once at once"
    (world.policies.folder / entry.file).write_bytes(b"good")
    world.run_for(0.5)
    assert world.robot_policies.latest() is not None


def test_batches_that_are_committed_together_share_rows_of_bounded_size(tmp_path: Path) -> None:
    link = LINK.model_copy(update={"batch_records": 50, "window_batches": 6})
    world = World(tmp_path, link=link)
    world.run_for(0.1)
    world.produce(275)
    for _ in range(10):
        world.step(10, commit=False)
    world.step(10)
    assert [len(batch.records) for batch in world.replay.read_after(0, 100)] == [100, 100, 50]
    world.run_for(1)
    assert_exactly_once(world)
    assert ROW_RECORDS_MAX == 128
    world.close()


def test_a_batch_larger_than_a_shared_row_is_a_row_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, link=LINK.model_copy(update={"batch_records": 1000}))
    world.produce(1000 + 10)
    world.run_for(2)
    assert [len(batch.records) for batch in world.replay.read_after(0, 100)] == [1000, 10]
    assert_exactly_once(world)
    world.close()


def test_neither_batches_nor_chunks_exceed_what_the_other_sides_socket_takes(tmp_path: Path) -> None:
    world = World(tmp_path, link=LINK.model_copy(update={"message_max_bytes": 300}))
    world.policies.publish(bytes(1000), 1)
    world.produce(50)
    world.run_for(5)
    assert_exactly_once(world)
    assert world.robot_policies.latest() is not None
    blocks = [frames[1] for frames in (*world.up.log, *world.down.log) if len(frames) == 2]
    assert len(blocks) > 10
    assert max(map(len, blocks)) <= 300
    world.close()


def test_an_oversize_policy_is_not_fetched_and_the_learner_hears_why(world: World) -> None:
    world.policies.publish(bytes(1_000_001), 1)
    world.run_for(2)
    assert world.robot_policies.latest() is None
    robot = world.learner.robots.named("arm0")
    assert robot.policy_refusals == 1
    assert "limit 1000000 bytes" in robot.policies[1][1]


def test_a_policy_result_reaches_the_learner_also_after_an_outage(world: World) -> None:
    world.up.cut = True
    world.robot.report_policy(7, False, "golden outputs differ")
    world.run_for(3)
    world.up.cut = False
    world.run_for(5)
    robot = world.learner.robots.named("arm0")
    assert robot.policies == {7: (False, "golden outputs differ")}
    assert robot.policy_refusals == 1


def test_a_goodbye_is_noticed_at_once(world: World) -> None:
    world.run_for(0.5)
    world.learner.bye("stopped by the operator")
    world.run_for(0.05)
    assert any("stopped by the operator" in words for _, words in world.robot.events)


def test_more_boots_than_fit_into_one_hello_are_all_delivered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robotsac.link.outbox.BOOTS_MAX", 4)
    world.up.cut = True
    for _ in range(11):
        world.produce(3)
        world.kill_robot(new_boot=True)
    world.up.cut = False
    world.run_for(20)
    assert_exactly_once(world)


def test_a_disk_that_refuses_is_never_acknowledged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run_for(0.1)
    world.produce(20)

    def refuse(_: object) -> list[int]:
        raise StorageError("disk full")

    monkeypatch.setattr(world.replay, "append_many", refuse)
    for _ in range(5):
        world.step(50, commit=False)
    with pytest.raises(StorageError):
        world.learner.commit()
    monkeypatch.undo()
    for _ in range(5):
        world.step(50, commit=False)
    assert world.outbox.durable == -1
    world.run_for(0.5)
    assert_exactly_once(world)


def test_after_a_restart_only_what_is_not_durable_is_sent_again(world: World) -> None:
    world.produce(50)
    world.run_for(1)
    world.kill_robot()
    world.kill_learner()
    world.produce(10)
    world.run_for(3)
    assert_exactly_once(world)
    assert world.learner.robots.named("arm0").duplicates == 0


def test_what_a_learner_lost_is_not_pruned_before_it_is_taken_again(tmp_path: Path) -> None:
    world = World(tmp_path, spool=SPOOL.model_copy(update={"keep_acked_mb": 10.0}))
    world.produce(100)
    world.run_for(2)
    world.replay.close()
    (tmp_path / "run.db").unlink()
    world.start_learner()
    for _ in range(50):
        world.step(20, commit=False)
    assert world.robot.state is LinkState.UP
    assert world.spool.unacked() == 100
    world.close()


def test_messages_of_another_session_are_ignored_and_counted(world: World) -> None:
    world.produce(10)
    world.run_for(1)
    me, learner = world.robot.session, world.learner.session
    world.robot.receive(m.encode(m.Bye(learner, "f" * 32, "for another robot")))
    world.robot.receive(m.encode(m.Bye("f" * 32, me, "from another learner")))
    assert world.robot.state is LinkState.UP
    assert world.robot.rejected == {"not for this session": 1, "from another learner session": 1}


def test_a_late_welcome_from_before_the_link_was_lost_is_ignored(world: World) -> None:
    world.run_for(0.1)
    (welcome,) = (frames for frames in world.down.log if b"welcome" in frames[0])
    world.robot.receive(welcome)
    assert world.robot.rejected == {"late answer": 1}
    world.down.cut = True
    world.run_for(2)
    assert world.robot.state is LinkState.DOWN
    world.robot.receive(welcome)
    assert world.robot.state is LinkState.DOWN
    assert world.robot.rejected == {"late answer": 2}


def test_a_policy_whose_bytes_are_not_those_announced_is_not_stored(tmp_path: Path) -> None:
    folder, data = BundleStore(tmp_path), b"policy"
    fetch = PolicyFetch(folder, 1000, LINK)
    notice = m.PolicyNotice(1, m.sha256(data), len(data))
    for answer in (b"polizy", b"policy and more"):
        fetch.announced(notice, 0)
        assert fetch.request(0) is not None
        fetch.received(m.Chunk("a" * 32, "b" * 32, 1, notice.sha256, 0, 0), answer, 0)
        assert fetch.refusals.pop() == (1, "size or sha256 is not what was announced")
        assert fetch.failure == "size or sha256 is not what was announced"
        assert folder.latest() is None
        fetch.announced(notice, 0)
        assert fetch.request(0) is None, "not at once again"
        fetch._retry_ns = 0
    fetch.announced(notice, 0)
    fetch.received(m.Chunk("a" * 32, "b" * 32, 1, notice.sha256, 0, 0), data, 0)
    assert folder.latest() is not None


def test_a_folder_that_refuses_a_policy_is_tried_again_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_data: bytes, _version: int) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(world.robot_policies, "publish", refuse)
    world.policies.publish(b"policy", 1)
    world.run_for(2)
    assert world.robot.status()["policy_failure"] == "disk full"
    monkeypatch.undo()
    world.run_for(3)
    assert world.robot_policies.latest() is not None
    assert world.robot.status()["policy_failure"] == ""


def test_a_policy_that_another_run_has_pushed_out_is_fetched_again(world: World) -> None:
    world.policies.publish(b"policy", 1)
    world.run_for(2)
    first = world.robot_policies.latest()
    world.robot_policies.begin_run("one")
    world.robot_policies.begin_run("two")
    assert world.robot_policies.latest() is None
    world.run_for(2)
    assert world.robot_policies.latest() == first


def test_a_missing_learner_is_to_be_started_where_this_robot_looks_for_it(tmp_path: Path) -> None:
    address = "tcp://127.0.0.1:6000"
    world = World(tmp_path, link=LINK.model_copy(update={"address": address}))
    try:
        world.run_for(0.5)
        assert world.robot.state is LinkState.UP
        commands = set()
        for _ in range(1000):  # the learner is gone
            world.robot.poll()
            world.clock.advance(10_000_000)
            commands.add(world.robot.notice.command)
        assert commands - {""} == {f"robotsac learn --set link.address={address}"}
    finally:
        world.close()
