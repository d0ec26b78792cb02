"""The socket shells: addresses, options, and that nothing waits or falls over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from robotsac.config.schema import LinkConfig
from robotsac.errors import LinkError
from robotsac.link.sockets import LearnerSocket, RobotSocket, endpoint

PATIENCE_S = 60


@pytest.fixture
def config() -> LinkConfig:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return LinkConfig(address=f"tcp://127.0.0.1:{probe.getsockname()[1]}", message_max_bytes=10_000)


@pytest.fixture
def learner(config: LinkConfig) -> Iterator[LearnerSocket]:
    with LearnerSocket(config) as learner:
        yield learner


def until(what: object) -> None:
    """Wait for ``what()`` to be true."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5757", "tcp://127.1.2.3:1", "tcp://[::1]:65535", "ipc:///tmp/x"])
def test_addresses_of_this_host_are_taken(address: str) -> None:
    assert endpoint(address) == address


def test_localhost_is_this_host_and_not_a_name_to_look_up() -> None:
    assert endpoint("tcp://localhost:5757") == "tcp://127.0.0.1:5757"


NOT_HERE, NO_PORT, NO_NUMBER = "not encrypted yet (no CURVE)", "it names no port", "is not a number"
NO_RANGE, NO_SCHEME, PATH = (
    "out of range, ports go from 1 to 65535",
    "does not begin with tcp://",
    "1 to 100 characters",
)


@pytest.mark.parametrize(
    ("address", "why", "instead"),
    [
        ("tcp://*:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://0.0.0.0:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://192.168.1.5:6000", NOT_HERE, "tcp://127.0.0.1:6000"),
        ("gpu-host:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://[::]:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://localhost.evil.org:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.999:5757", NOT_HERE, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1", NO_PORT, "tcp://127.0.0.1:5757"),
        ("localhost", NO_PORT, "tcp://localhost:5757"),
        ("tcp://127.0.0.1:0", NO_RANGE, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1:65536", NO_RANGE, "tcp://127.0.0.1:5757"),
        ("tcp://localhost:99999", NO_RANGE, "tcp://localhost:5757"),
        ("tcp://127.0.0.1:0000057570000", NO_RANGE, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1:5757;tcp://10.0.0.1:1", NO_NUMBER, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1:5757\n", NO_NUMBER, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1:٥٧٥٧", NO_NUMBER, "tcp://127.0.0.1:5757"),
        ("localhost:5757", NO_SCHEME, "tcp://localhost:5757"),
        ("[::1]:5758", NO_SCHEME, "tcp://[::1]:5758"),
        ("pgm://127.0.0.1:5757", "begins with pgm://", "tcp://127.0.0.1:5757"),
        ("inproc://x", "begins with inproc://", "tcp://127.0.0.1:5757"),
        ("ipc://", PATH, "tcp://127.0.0.1:5757"),
        ("ipc://*" * 50, PATH, "tcp://127.0.0.1:5757"),
        ("tcp://:5757", "it names no host", "tcp://127.0.0.1:5757"),
        ("", "it names no host", "tcp://127.0.0.1:5757"),
    ],
)
def test_everything_else_is_refused_for_what_is_wrong_with_it_and_what_is_suggested_is_taken(
    address: str, why: str, instead: str
) -> None:
    with pytest.raises(LinkError, match="refused") as refused:
        endpoint(address)
    assert why in refused.value.reason
    assert (NOT_HERE in refused.value.reason) is (why is NOT_HERE), "said where it is the cause"
    assert refused.value.command == f"--set link.address={instead}"
    assert endpoint(instead)


def test_a_port_in_use_is_named_with_the_command_that_finds_its_owner(
    learner: LearnerSocket, config: LinkConfig
) -> None:
    with pytest.raises(LinkError, match=f"{config.address} is in use") as refused:
        LearnerSocket(config)
    assert refused.value.command == f"ss -ltnp 'sport = :{config.address.rsplit(':', 1)[1]}'"


def test_an_ipc_address_in_use_is_not_stolen(tmp_path: Path) -> None:
    config = LinkConfig(address=f"ipc://{tmp_path}/link")
    with LearnerSocket(config), pytest.raises(LinkError, match="is in use"):
        LearnerSocket(config)


@pytest.mark.parametrize(
    "option, value",
    [
        (zmq.LINGER, 0), (zmq.MAXMSGSIZE, 10_000), (zmq.HEARTBEAT_IVL, 200), (zmq.HEARTBEAT_TIMEOUT, 1000),
        (zmq.HEARTBEAT_TTL, 1000), (zmq.TCP_KEEPALIVE, 1), (zmq.IMMEDIATE, 1), (zmq.RECONNECT_IVL, 100),
        (zmq.RECONNECT_IVL_MAX, 2000), (zmq.HANDSHAKE_IVL, 2000), (zmq.SNDHWM, 1000), (zmq.RCVHWM, 1000),
    ],
)  # fmt: skip
def test_options_are_set(learner: LearnerSocket, option: int, value: int) -> None:
    assert learner.socket.getsockopt(option) == value


def test_both_ends_talk(learner: LearnerSocket, config: LinkConfig) -> None:
    with RobotSocket(config) as robot:
        until(lambda: robot.send([b"header", b"block"]))
        until(lambda: learner.wait(10))
        received = learner.receive()
        assert received is not None
        peer, frames = received
        assert frames == [b"header", b"block"]
        assert learner.receive() is None
        assert learner.send(peer, [b"answer"])
        until(lambda: robot.wait(10))
        assert robot.receive() == [b"answer"]


def test_waiting_ends_when_the_other_descriptor_has_something_to_tell(learner: LearnerSocket) -> None:
    reading, writing = os.pipe()
    try:
        learner.wake_on(reading)
        os.write(writing, b"x")
        begin_s = time.monotonic()
        assert not learner.wait(1000 * PATIENCE_S), "that is no message"
        assert time.monotonic() - begin_s < PATIENCE_S
    finally:
        os.close(reading)
        os.close(writing)


def test_without_a_learner_nothing_is_taken_and_nothing_waits(config: LinkConfig) -> None:
    with RobotSocket(config) as robot:
        assert not robot.send([b"header"])
        assert robot.receive() is None


def test_a_peer_that_is_not_there_is_an_answer(learner: LearnerSocket) -> None:
    assert not learner.send(b"nobody", [b"header"])


def test_many_frames_are_cut_and_an_oversize_one_ends_its_connection(
    learner: LearnerSocket, config: LinkConfig
) -> None:
    with RobotSocket(config) as hostile:
        until(lambda: hostile.send([b"x"] * 500))
        until(lambda: learner.wait(10))
        received = learner.receive()
        assert received is not None and len(received[1]) == 3, "one more than a message has"
        until(lambda: hostile.send([bytes(10_001)]))

        def dropped() -> bool:
            learner.count_events()
            return learner.events["disconnected"] > 0

        until(dropped)
        assert learner.receive() is None
        # It lives on: the same peer is heard again after it has reconnected.
        until(lambda: hostile.send([b"good"]) and learner.wait(50))


def test_bytes_that_are_no_zmtp_hurt_nobody(learner: LearnerSocket, config: LinkConfig) -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(4096), b"\xff" * 4096):
        with socket.create_connection(("127.0.0.1", int(config.address.rsplit(":", 1)[1]))) as raw:
            raw.sendall(rubbish)
    with RobotSocket(config) as robot:
        until(lambda: robot.send([b"good"]))
        until(lambda: learner.wait(10))
        assert learner.receive() is not None


FLAPPING = """
import socket, threading, time
from robotsac.config.schema import LinkConfig
from robotsac.link import sockets

sockets.RECONNECT_MS, sockets.RECONNECT_MAX_MS = 1, 2
tunnel = socket.create_server(("127.0.0.1", 0))
calls = 0

def hang_up():
    global calls
    while True:
        tunnel.accept()[0].close()
        calls += 1

threading.Thread(target=hang_up, daemon=True).start()
robot = sockets.RobotSocket(LinkConfig(address=f"tcp://127.0.0.1:{tunnel.getsockname()[1]}"))
while calls < 2000:
    robot.wait(20)
robot.close()
assert robot.events["connected"] >= 1000, robot.events
print("closed", flush=True)
"""


def test_a_tunnel_that_hangs_up_again_and_again_does_not_stop_the_link() -> None:
    """As ``ssh -L`` does while no learner runs. In a process of its own, since what is tested for cannot be interrupted."""
    result = subprocess.run(
        [sys.executable, "-c", FLAPPING], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.stdout == "closed\n", result.stderr
