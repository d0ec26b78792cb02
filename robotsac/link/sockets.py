"""The ZeroMQ sockets under the two ends: every option set before connect or bind, no call that waits without a bound.

DEALER (robot) dials ROUTER (learner). ZeroMQ reconnects by itself for ever; what it sends may be lost, doubled by a
resend, or late: the two ends are built for that and trust nothing but their own acknowledgements.
"""

from __future__ import annotations

import errno
import socket
from typing import Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from robotsac.config.schema import LinkConfig
from robotsac.errors import LinkError
from robotsac.link.address import endpoint
from robotsac.link.messages import FRAMES_MAX

__all__ = ["LearnerSocket", "LinkSocket", "RobotSocket", "endpoint", "require_free_address", "set_options"]

RECONNECT_MS, RECONNECT_MAX_MS = 100, 2000
HANDSHAKE_MS = 2000
# Messages ZeroMQ may hold per peer and direction; the window bounds what is on its way, this bounds a flood.
QUEUE_MESSAGES = 1000
# More than the monitor holds, so that one look empties it; a bound, because a flood goes on meanwhile.
EVENTS_PER_ROUND = 4000
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 10, 5, 3

_EVENTS = {
    zmq.Event.CONNECTED: "connected",
    zmq.Event.ACCEPTED: "accepted",
    zmq.Event.DISCONNECTED: "disconnected",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "handshake_failed",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "handshake_failed",
}


class LinkSocket:
    """What both sockets share: bounded waiting, and receiving that survives anything a peer sends."""

    def __init__(self, kind: int, config: LinkConfig) -> None:
        self.context = zmq.Context(io_threads=1)
        self.socket = self.context.socket(kind)
        set_options(self.socket, config)
        # ZeroMQ drops a connection that misbehaves (garbage, a frame over the limit) without a word; its monitor tells.
        self.events = dict.fromkeys(_EVENTS.values(), 0)
        self._monitor = self.socket.get_monitor_socket(sum(_EVENTS))
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)

    def wake_on(self, fd: int) -> None:
        """From now on :meth:`wait` also ends when file descriptor ``fd`` can be read; its owner reads it."""
        self._poller.register(fd, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """Whether something can be received, waiting at most ``timeout_ms``. Call it often: it reads the monitor."""
        self.count_events()
        return any(which is self.socket for which, _ in self._poller.poll(timeout_ms))

    def receive_frames(self, frames_max: int) -> list[bytes] | None:
        """One message, or ``None`` when there is none now. More frames than ``frames_max`` are read and thrown away."""
        try:
            frames = [self.socket.recv(zmq.NOBLOCK)]
            while self.socket.getsockopt(zmq.RCVMORE):
                frame = self.socket.recv(zmq.NOBLOCK)
                # One frame too many is kept, so that the reader of the message sees that it is none.
                if len(frames) <= frames_max:
                    frames.append(frame)
        except zmq.Again:
            return None
        return frames

    def count_events(self) -> None:
        """Bring :attr:`events` up to date: connections made, lost, and refused for what they sent.

        Once some 2000 of them (``QUEUE_MESSAGES`` on either side) wait to be read, ZeroMQ's own thread waits too, for
        ever, and so does :meth:`close`. A tunnel whose far end is not there makes that many in half an hour.
        """
        for _ in range(EVENTS_PER_ROUND):
            if not self._monitor.poll(0):
                return
            event = zmq.Event(recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"])
            if event in _EVENTS:
                self.events[_EVENTS[event]] += 1

    def close(self) -> None:
        """Close at once, dropping what was not sent; idempotent."""
        if not self.socket.closed:
            self.count_events()
            self.socket.disable_monitor()
            # The pair socket at our end stays open otherwise, and an open socket keeps term() waiting for ever.
            self._monitor.close(linger=0)
            self.socket.close(linger=0)
        self.context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RobotSocket(LinkSocket):
    """DEALER, dialling the learner. Raises LinkError for an address that is not of this host."""

    def __init__(self, config: LinkConfig) -> None:
        where = endpoint(config.address)
        super().__init__(zmq.DEALER, config)
        self.socket.connect(where)

    def send(self, frames: list[bytes]) -> bool:
        """Hand a message over. False when no connection is there or its queue is full; then nothing was taken."""
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """One message, or ``None``."""
        return self.receive_frames(FRAMES_MAX)


class LearnerSocket(LinkSocket):
    """ROUTER, bound to the learner's one port.

    Raises:
        LinkError: the address is not of this host, is in use, or cannot be had.
    """

    def __init__(self, config: LinkConfig) -> None:
        where = endpoint(config.address)
        if _somebody_answers(where):
            raise _in_use(config.address)
        super().__init__(zmq.ROUTER, config)
        try:
            self.socket.bind(where)
        except zmq.ZMQError as error:
            self.close()
            raise _refused(config.address, error) from error

    def send(self, peer: bytes, frames: list[bytes]) -> bool:
        """Hand a message for ``peer`` over. False when that peer is gone or its queue is full."""
        try:
            self.socket.send_multipart([peer, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                return False
            raise
        return True

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """One message and the peer it came from, or ``None``."""
        frames = self.receive_frames(FRAMES_MAX + 1)
        return None if frames is None else (frames[0], frames[1:])


def require_free_address(config: LinkConfig) -> None:
    """See that a learner can have its address. Where that is a port, no robot that waits for one is disturbed.

    Raises:
        LinkError: as :class:`LearnerSocket`.
    """
    where = endpoint(config.address)
    if where.startswith("ipc://"):
        LearnerSocket(config).close()
        return
    host, _, port = where.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # As ZeroMQ does: connections of an earlier learner that are not quite over do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        raise _refused(config.address, error) from error


def set_options(zmq_socket: zmq.Socket[bytes], config: LinkConfig) -> None:
    """Every option, before connect or bind: ZeroMQ ignores most of them afterwards."""
    heartbeat_ms, dead_ms = int(config.heartbeat_ms), int(config.dead_ms)
    options = {
        zmq.LINGER: 0,
        zmq.SNDHWM: QUEUE_MESSAGES,
        zmq.RCVHWM: QUEUE_MESSAGES,
        zmq.MAXMSGSIZE: config.message_max_bytes,
        zmq.HEARTBEAT_IVL: heartbeat_ms,
        zmq.HEARTBEAT_TIMEOUT: dead_ms,
        zmq.HEARTBEAT_TTL: dead_ms,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_IDLE_S,
        zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_EVERY_S,
        zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_COUNT,
        zmq.RECONNECT_IVL: RECONNECT_MS,
        zmq.RECONNECT_IVL_MAX: RECONNECT_MAX_MS,
        # Only to connections that are there: nothing piles up for a dead peer.
        zmq.IMMEDIATE: 1,
        zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        zmq.IPV6: 1,
    }
    for option, value in options.items():
        zmq_socket.setsockopt(option, value)
    if zmq_socket.type == zmq.ROUTER:
        # An unknown peer is an answer (EHOSTUNREACH), not a message silently dropped.
        zmq_socket.setsockopt(zmq.ROUTER_MANDATORY, 1)


def _in_use(address: str) -> LinkError:
    port = address.rsplit(":", 1)[-1]
    owner = (
        f"ss -ltnp 'sport = :{port}'" if address.startswith("tcp:") else f"fuser -v {address.removeprefix('ipc://')}"
    )
    return LinkError(
        f"{address} is in use",
        reason="another learner, or another program, has this address; --set link.address=… takes another one",
        command=owner,
    )


def _refused(address: str, error: OSError | zmq.ZMQError) -> LinkError:
    """What the system said to binding ``address``, in words."""
    if error.errno == errno.EADDRINUSE:
        return _in_use(address)
    return LinkError(f"{address} cannot be bound", reason=str(error), command="--set link.address=tcp://127.0.0.1:5758")


def _somebody_answers(where: str) -> bool:
    """Whether a live process holds an ipc address; ZeroMQ's bind would silently take it away from that one."""
    if not where.startswith("ipc://"):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(where.removeprefix("ipc://"))
        except OSError:
            return False
    return True
