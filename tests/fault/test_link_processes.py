"""Real processes, real sockets, real kills: every record that was pushed is in both databases, exactly once."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from link_rig import RING, Learner, Robot, read_json, until
from small_disk import fill, small_disk

from robotsac.actor.uplink import LinkPhase, UplinkError
from robotsac.config.schema import LinkConfig, SpoolConfig
from robotsac.policy.store import BundleStore


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[Learner]:
    learner = Learner(tmp_path / "run")
    yield learner
    learner.close()


@pytest.fixture
def robot(tmp_path: Path, learner: Learner) -> Iterator[Robot]:
    robot = Robot(tmp_path / "robot", learner.link)
    yield robot
    robot.close()


def assert_all_accounted_for(robot: Robot, learner: Learner) -> None:
    """Ends the robot and compares what was pushed with both databases."""
    robot.until_delivered()
    assert robot.stop() == 0
    everything = list(range(robot.pushed))
    assert learner.stored()[robot.name, robot.boot] == everything
    assert robot.spooled()["seq"].tolist() == everything
    assert robot.counts() == (robot.pushed, robot.pushed, 0)
    assert robot.block["unsent"] == 0


def test_a_run_without_trouble(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    robot.push(1000)
    assert_all_accounted_for(robot, learner)
    until(lambda: learner.robot("arm0").get("state") == "left", "for the goodbye")


def test_ingest_killed_while_records_stream(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    for _ in range(3):
        robot.push(300)
        learner.restart()
        robot.push(300)
    assert_all_accounted_for(robot, learner)


def test_uplink_killed_while_records_stream(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    for _ in range(3):
        robot.push(300)
        robot.restart()
        robot.push(300)
    assert_all_accounted_for(robot, learner)
    assert learner.status()["refusals"] == {}, "an uplink that comes back is no second collector"


@pytest.mark.parametrize("seed", range(2))
def test_both_killed_at_random(robot: Robot, learner: Learner, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(12):
        robot.push(rng.randrange(RING))
        time.sleep(rng.random() * 0.2)
        for end in rng.choice([(robot,), (learner,), (robot, learner)]):
            end.restart()
    assert_all_accounted_for(robot, learner)


def test_a_frozen_learner_is_noticed_and_nothing_is_lost(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    robot.push(100)
    assert learner.process.pid is not None
    os.kill(learner.process.pid, signal.SIGSTOP)
    robot.push(2 * RING)
    until(lambda: robot.phase() is LinkPhase.DOWN, "for the silence to be noticed")
    assert robot.block["link_down_ns"] > 0
    until(lambda: any("no sign of life" in line for line in robot.status()["events"]))
    os.kill(learner.process.pid, signal.SIGCONT)
    assert_all_accounted_for(robot, learner)


def test_a_frozen_uplink_is_shown_as_silent_and_comes_back(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    assert robot.process.pid is not None
    os.kill(robot.process.pid, signal.SIGSTOP)
    until(lambda: learner.robot("arm0").get("state") == "silent")
    os.kill(robot.process.pid, signal.SIGCONT)
    robot.push(100)
    assert_all_accounted_for(robot, learner)


def test_records_of_a_run_without_learner_are_delivered_by_the_next(tmp_path: Path) -> None:
    link = LinkConfig(address="tcp://127.0.0.1:1", batch_records=8)
    alone = Robot(tmp_path / "robot", link, boot="alone")
    alone.push(RING)
    assert alone.stop() == 0
    assert alone.block["unsent"] == RING
    assert alone.status()["events"][-1] == f"{RING} records wait in the spool for the next learner"
    alone.close()
    learner = Learner(tmp_path / "run")
    robot = Robot(tmp_path / "robot", learner.link, boot="next")
    robot.push(50)
    until(lambda: robot.spooled().size == RING + 50 and robot.block["unsent"] == 0, "for both boots")
    assert robot.stop() == 0
    assert learner.stored() == {("arm0", "alone"): list(range(RING)), ("arm0", "next"): list(range(50))}
    robot.close()
    learner.close()


def test_garbage_hurts_nobody_and_is_counted(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    port = int(learner.link.address.rsplit(":", 1)[1])
    with zmq.Context() as context, context.socket(zmq.DEALER) as hostile:
        hostile.linger = 0
        hostile.connect(learner.link.address)
        for frames in ([b"garbage"], [b""], [b"RSAC\x09\x00"], [b"RSAC\x01\x00" + bytes(100)], [b"x"] * 50):
            hostile.send_multipart(frames)
        until(lambda: learner.status().get("rejected", {}).get("unreadable", 0) >= 4)
        assert learner.status()["rejected"]["other protocol"] == 1
        dropped = learner.status()["connections"]["disconnected"]
        hostile.send(bytes(learner.link.message_max_bytes + 1))
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        until(lambda: learner.status()["connections"]["disconnected"] > dropped, "for the oversize frame's connection")
        robot.push(200)
        assert_all_accounted_for(robot, learner)


def test_garbage_from_the_learners_side_hurts_no_robot(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as impostor:
        impostor.linger = 0
        port = impostor.bind_to_random_port("tcp://127.0.0.1")
        link = LinkConfig(address=f"tcp://127.0.0.1:{port}", batch_records=8, message_max_bytes=100_000)
        robot = Robot(tmp_path / "robot", link, deliver_deadline_s=2.0)
        peer = impostor.recv_multipart()[0]
        for frames in ([b"garbage"], [b""], [b"RSAC\x01\x00" + bytes(100)], [b"x"] * 50):
            impostor.send_multipart([peer, *frames])
        robot.push(100)
        until(lambda: robot.status().get("link", {}).get("rejected", {}).get("unreadable") == 4)
        assert robot.phase() is not LinkPhase.UP
        assert robot.stop() == 0
        assert len(robot.spooled()) == 100
        robot.close()


def test_two_collectors_of_one_name_the_second_is_refused_in_words(
    tmp_path: Path, robot: Robot, learner: Learner
) -> None:
    robot.until_up()
    second = Robot(tmp_path / "second", learner.link, boot="boot2")
    until(lambda: second.block["error"] == UplinkError.REFUSED, "for the refusal")
    until(lambda: second.status().get("message") == "two collectors named arm0")
    assert second.status()["exit_code"] == 5
    assert learner.status()["last_refusal"].startswith("two collectors named arm0")
    second.push(10)
    assert second.stop() == 0
    assert len(second.spooled()) == 10, "refused is not lost"
    second.close()
    robot.push(100)
    assert_all_accounted_for(robot, learner)
    assert set(learner.stored()) == {("arm0", "boot1")}


def test_a_robot_of_another_contract_is_refused_and_the_difference_named(
    tmp_path: Path, robot: Robot, learner: Learner
) -> None:
    robot.until_up()
    other = Robot(tmp_path / "other", learner.link, name="arm1", boot="boot2", task="hold")
    until(lambda: other.block["error"] == UplinkError.REFUSED, "for the refusal")
    until(lambda: "task is reach here and hold there" in other.status().get("reason", ""))
    assert other.phase() is LinkPhase.REFUSED
    assert other.stop() == 0
    other.close()


def test_an_address_of_another_host_is_refused_but_records_are_kept(tmp_path: Path) -> None:
    robot = Robot(tmp_path / "robot", LinkConfig(address="tcp://192.0.2.1:5757"))
    robot.push(20)
    until(lambda: robot.block["error"] == UplinkError.REFUSED)
    until(lambda: "not encrypted" in robot.status().get("reason", ""))
    assert robot.stop() == 0
    assert len(robot.spooled()) == 20
    robot.close()


def test_a_port_in_use_ends_ingest_with_words(tmp_path: Path, learner: Learner) -> None:
    until(lambda: learner.status())
    second = Learner(tmp_path / "second", learner.link)
    second.process.join(60)
    assert second.process.exitcode == 5
    error = read_json(second.folder / "ingest-error.json")
    assert error["message"] == f"{learner.link.address} is in use"
    assert error["command"].startswith("ss -ltnp")
    second.close()


def test_credit_and_progress_reach_the_robot(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    assert robot.block["limit_seq"] == -1
    learner.board["updates"], learner.board["policy_version"], learner.board["transitions"] = 7, 3, 5
    learner.board["credit_total"] = 100
    until(lambda: robot.block["limit_seq"] == 99)
    until(lambda: (robot.block["learner_updates"], robot.block["learner_version"]) == (7, 3))
    robot.push(40)
    robot.until_delivered()
    until(lambda: robot.block["limit_seq"] == 99)


def test_a_published_policy_reaches_the_robots_folder_and_its_verdict_the_learner(
    robot: Robot, learner: Learner
) -> None:
    data = os.urandom(600_000)
    BundleStore(learner.folder / "policies").publish(data, 4)
    folder = BundleStore(robot.folder / "policies")
    entry = until(folder.latest, "for the policy")
    assert (entry.version, folder.read(entry)) == (4, data)
    (robot.folder / "policy-refused.txt").write_text("policy 4: golden outputs differ")
    robot.block["policy_rejected"] = 1
    seen = until(lambda: learner.robot("arm0").get("policy_refused_last"))
    assert seen == {"version": 4, "reason": "policy 4: golden outputs differ"}


def test_an_uplink_whose_supervisor_was_killed_stores_the_ring_and_ends(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from link_rig import Robot
        from robotsac.config.schema import LinkConfig
        if __name__ == "__main__":
            robot = Robot(Path(sys.argv[1]), LinkConfig(address="tcp://127.0.0.1:1"))
            robot.push(300)
            while robot.block["beat_ns"] == 0:
                time.sleep(0.01)
            import os, signal
            os.kill(robot.process.pid, signal.SIGSTOP)
            while not robot.ring.fill:
                robot.push(100)
            print(robot.process.pid, robot.pushed, flush=True)
            time.sleep(600)
    """
    here, script = Path(__file__).parent, tmp_path / "supervisor.py"
    script.write_text(textwrap.dedent(code))
    supervisor = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "robot")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent / "unit")))},
    )
    assert supervisor.stdout is not None
    pid, pushed = map(int, supervisor.stdout.readline().split())
    supervisor.kill()
    supervisor.wait(60)
    os.kill(pid, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    robot_folder = tmp_path / "robot"
    assert read_json(robot_folder / "uplink-status.json")["spool"] == {"boot1": [pushed, 0, 0]}


def test_sigint_is_the_supervisors_business_and_sigterm_ends_in_order(robot: Robot, learner: Learner) -> None:
    robot.until_up()
    robot.push(100)
    assert robot.process.pid is not None
    os.kill(robot.process.pid, signal.SIGINT)
    robot.push(100)
    robot.until_delivered()
    robot.process.terminate()
    robot.process.join(60)
    assert robot.process.exitcode == 0
    assert robot.counts() == (200, 200, 0)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 4) as folder:
        yield folder


def test_a_full_disk_stops_collection_and_the_ring_still_goes_to_the_disk(tiny_disk: Path) -> None:
    robot = Robot(tiny_disk / "robot", LinkConfig(address="tcp://127.0.0.1:1"), spool=SpoolConfig(free_min_mb=0.05))
    robot.push(50)
    until(lambda: robot.block["spooled_seq"] == 49)
    fill(tiny_disk)
    robot.push(RING)
    until(lambda: robot.block["error"] == UplinkError.STORAGE, "for the disk to be noticed")
    assert robot.stop() == 0
    assert robot.spooled()["seq"].tolist() == list(range(50 + RING))
    robot.close()


def test_a_disk_that_comes_back_takes_what_waited_in_the_ring(tiny_disk: Path) -> None:
    (tiny_disk / "robot").mkdir()
    fill(tiny_disk)
    robot = Robot(tiny_disk / "robot", LinkConfig(address="tcp://127.0.0.1:1"))
    robot.push(RING)
    until(lambda: robot.block["error"] == UplinkError.STORAGE, "for the disk to be noticed")
    assert robot.ring.fill == RING
    (tiny_disk / "filler").unlink()
    until(lambda: robot.block["spooled_seq"] == RING - 1)
    assert robot.stop() == 0
    robot.close()


def test_records_that_no_disk_took_are_counted_exactly(tmp_path: Path, tiny_disk: Path) -> None:
    (tiny_disk / "robot").mkdir()
    fill(tiny_disk)
    robot = Robot(tiny_disk / "robot", LinkConfig(address="tcp://127.0.0.1:1"), status=tmp_path, store_deadline_s=1.0)
    robot.push(100)
    until(lambda: robot.block["error"] == UplinkError.STORAGE)
    assert robot.stop() == 6
    assert robot.status()["message"] == "100 records could not be stored and are lost"
    assert robot.status()["exit_code"] == 6
    robot.close()


def test_a_full_disk_at_the_learner_ends_ingest_and_nothing_is_lost(tmp_path: Path, tiny_disk: Path) -> None:
    learner = Learner(tiny_disk / "run")
    robot = Robot(tmp_path / "robot", learner.link)
    robot.until_up()
    fill(tiny_disk)
    robot.push(2 * RING)
    until(lambda: not learner.process.is_alive(), "for the disk to be noticed")
    assert learner.process.exitcode == 6
    (tiny_disk / "filler").unlink()
    learner.start()
    assert_all_accounted_for(robot, learner)
    robot.close()
    learner.close()
