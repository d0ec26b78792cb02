"""What robot and learner say to each other.

A message is one or two frames: a header, and for some kinds a block of raw little-endian bytes. The header frame is
``b"RSAC"``, the protocol number (little-endian uint16), the CRC-32 of the rest (little-endian uint32) and one msgpack map
with the fields below; nothing is trusted before its type, length and checksum have been checked, and nothing is ever
unpickled.

    robot                                             learner
    HELLO  who, boots on offer, contract       ──►
                                               ◄──    WELCOME  durable per boot, credit, policy   | REFUSED  in words
    DATA   batch of one boot                   ──►
                                               ◄──    ACK  durable, credit           (only after the disk has it)
    ROBOT_BEAT  progress                       ──►
                                               ◄──    LEARNER_BEAT  progress, credit, newest policy
    FETCH  version, offset                     ──►
                                               ◄──    CHUNK  part of a policy bundle
    POLICY_RESULT  accepted or why not         ──►
    BYE                                       ◄──►    BYE      (and HELLO_WANTED: who are you?)

Every message names the sender's ``session`` (drawn once per process) and, but for HELLO, the receiver's as ``to``: a
message from before a restart of either side is told apart and answered with a new handshake, never half-understood.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from robotsac.contract import CONTRACT_BYTES_MAX
from robotsac.errors import LinkError

MAGIC = b"RSAC"
PROTOCOL = 1
VERSION_BYTES = len(MAGIC) + 2
PREFIX_BYTES = VERSION_BYTES + 4
HEADER_BYTES_MAX = 256_000
FRAMES_MAX = 2
BOOTS_MAX = 256
CHUNK_BYTES = 256_000
SEQ_MAX = (1 << 63) - 1

# \Z and not $, which lets a final newline pass. No control characters: names and words from the other side end up on a terminal.
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
Session = Annotated[str, Meta(min_length=8, max_length=64, pattern=r"^[0-9a-f]+\Z")]
Digest = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]+\Z")]
Words = Annotated[str, Meta(max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
SeqOrNone = Annotated[int, Meta(ge=-1, le=SEQ_MAX)]
"""-1 stands for "none yet"."""
Count = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
Crc = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]


class Base(Struct, frozen=True, forbid_unknown_fields=True):
    """What every message says.

    Args:
        session: the sender's.
        to: the receiver's, as the sender knows it; ``""`` when it does not.
    """

    session: Session
    to: Annotated[str, Meta(max_length=64)]


class BootOffer(Struct, frozen=True, forbid_unknown_fields=True):
    """One boot in the robot's spool: the records ``first_seq`` to ``last_seq`` are there, ``acked_seq`` was taken."""

    boot: Name
    contract_digest: Digest
    first_seq: Seq
    last_seq: SeqOrNone
    acked_seq: SeqOrNone


class PolicyNotice(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy bundle that can be fetched: version, sha256 of its bytes, size in bytes."""

    version: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=1 << 40)]


class Hello(Base, frozen=True, tag="hello"):
    """Who calls. ``attempt`` comes back in the answer, so that a late answer to an earlier call is not taken for it."""

    attempt: Count
    robot: Name
    boot: Name
    boots: Annotated[tuple[BootOffer, ...], Meta(max_length=BOOTS_MAX)]
    contract: Annotated[bytes, Meta(max_length=CONTRACT_BYTES_MAX)]
    contract_digest: Digest
    versions: Annotated[
        dict[Annotated[str, Meta(max_length=50)], Annotated[str, Meta(max_length=100)]], Meta(max_length=20)
    ]


class Welcome(Base, frozen=True, tag="welcome"):
    """The robot may send. ``durable``: highest stored ``seq`` of each offered boot (-1 none); ``refused``: boots that
    this run cannot take, and why; ``credit``: records it will take beyond those durable, -1 for no bound;
    ``block_max_bytes``: no larger block, or its socket drops the connection."""

    attempt: Count
    run_id: Words
    durable: Annotated[dict[Name, SeqOrNone], Meta(max_length=BOOTS_MAX + 1)]
    refused: Annotated[dict[Name, Words], Meta(max_length=BOOTS_MAX + 1)]
    credit: Annotated[int, Meta(ge=-1, le=SEQ_MAX)]
    block_max_bytes: Annotated[int, Meta(ge=1)]
    policy: PolicyNotice | None


class Refused(Base, frozen=True, tag="refused"):
    """The robot may not send. ``passing``: it may pass by itself, so ask again."""

    attempt: Count
    message: Words
    reason: Words
    command: Words
    passing: bool


class HelloWanted(Base, frozen=True, tag="hello_wanted"):
    """The learner does not know this session: say HELLO again."""

    reason: Words


class Data(Base, frozen=True, tag="data"):
    """``count`` records of one boot, ``first_seq`` to ``last_seq``, in the block.

    ``prev_seq``: the robot has nothing for this learner between it and ``first_seq``; a learner whose durable mark is
    below ``prev_seq`` misses a batch and must not take this one.
    """

    boot: Name
    contract_digest: Digest
    prev_seq: SeqOrNone
    first_seq: Seq
    last_seq: Seq
    count: Annotated[int, Meta(ge=1, le=1000)]
    crc: Crc


class Ack(Base, frozen=True, tag="ack"):
    """Everything of ``boot`` up to ``durable_seq`` is on the learner's disk. ``rewind``: a batch is missing; go on from
    there."""

    boot: Name
    durable_seq: SeqOrNone
    credit: Annotated[int, Meta(ge=-1, le=SEQ_MAX)]
    rewind: bool


class RobotBeat(Base, frozen=True, tag="robot_beat"):
    """The robot lives. ``spooled_seq`` of the present boot, ``unsent`` records in the spool, policy in use."""

    spooled_seq: SeqOrNone
    unsent: Count
    policy_version: Count


class LearnerBeat(Base, frozen=True, tag="learner_beat"):
    """The learner lives, and how far it is."""

    updates: Count
    transitions: Count
    policy_version: Count
    credit: Annotated[int, Meta(ge=-1, le=SEQ_MAX)]
    policy: PolicyNotice | None


class Fetch(Base, frozen=True, tag="fetch"):
    """Send the bytes of a policy from ``offset`` on, at most ``limit`` of them."""

    version: Count
    offset: Count
    limit: Annotated[int, Meta(ge=1)]


class Chunk(Base, frozen=True, tag="chunk"):
    """Bytes of a policy from ``offset`` on, in the block; an empty ``sha256`` and no block: there is no such policy."""

    version: Count
    sha256: Annotated[str, Meta(max_length=64)]
    offset: Count
    crc: Crc


class PolicyResult(Base, frozen=True, tag="policy_result"):
    """What the robot made of a policy."""

    version: Count
    accepted: bool
    reason: Words


class Bye(Base, frozen=True, tag="bye"):
    """The sender ends in order."""

    reason: Words


FromRobot = Hello | Data | RobotBeat | Fetch | PolicyResult | Bye
FromLearner = Welcome | Refused | HelloWanted | Ack | LearnerBeat | Chunk | Bye
Message = FromRobot | FromLearner

WITH_BLOCK = (Data, Chunk)


class BadMessageError(LinkError):
    """Frames that are no message of this protocol; counted and dropped."""


class OtherProtocolError(BadMessageError):
    """A message of another protocol number."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"the other side speaks protocol {theirs}, this one {PROTOCOL}", command="robotsac --version")
        self.theirs = theirs


# msgspec lets bytes that are not UTF-8 escape as they are.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.msgpack.Encoder()
_from_robot: msgspec.msgpack.Decoder[FromRobot] = msgspec.msgpack.Decoder(FromRobot)
_from_learner: msgspec.msgpack.Decoder[FromLearner] = msgspec.msgpack.Decoder(FromLearner)


def encode(message: Message, block: bytes = b"") -> list[bytes]:
    """The frames of a message."""
    body = _encoder.encode(message)
    header = MAGIC + PROTOCOL.to_bytes(2, "little") + zlib.crc32(body).to_bytes(4, "little") + body
    return [header, block] if isinstance(message, WITH_BLOCK) else [header]


def decode_from_robot(frames: list[bytes]) -> tuple[FromRobot, bytes]:
    """The message and its block (``b""`` for kinds without). Raises BadMessageError, OtherProtocolError."""
    try:
        message = _from_robot.decode(_body(frames))
    except _UNREADABLE as error:
        raise BadMessageError("a message that cannot be read", reason=str(error)) from error
    return message, _block(message, frames)


def decode_from_learner(frames: list[bytes]) -> tuple[FromLearner, bytes]:
    """The message and its block (``b""`` for kinds without). Raises BadMessageError, OtherProtocolError."""
    try:
        message = _from_learner.decode(_body(frames))
    except _UNREADABLE as error:
        raise BadMessageError("a message that cannot be read", reason=str(error)) from error
    return message, _block(message, frames)


def words(text: str) -> str:
    """``text`` as it may be sent: one line, bounded."""
    return "".join(c if c.isprintable() else " " for c in text)[:2000]


def block_crc(block: bytes) -> int:
    """Checksum of a block."""
    return zlib.crc32(block)


def sha256(data: bytes) -> str:
    """Hex digest of a policy's bytes."""
    return hashlib.sha256(data).hexdigest()


def _body(frames: list[bytes]) -> memoryview:
    if not 1 <= len(frames) <= FRAMES_MAX:
        raise BadMessageError(f"a message of {len(frames)} frames")
    header = frames[0]
    if len(header) < VERSION_BYTES or header[: len(MAGIC)] != MAGIC:
        raise BadMessageError("a frame that is not of this protocol")
    theirs = int.from_bytes(header[len(MAGIC) : VERSION_BYTES], "little")
    if theirs != PROTOCOL:
        raise OtherProtocolError(theirs)
    if len(header) > HEADER_BYTES_MAX:
        raise BadMessageError(f"a header of {len(header)} bytes, limit {HEADER_BYTES_MAX}")
    body = memoryview(header)[PREFIX_BYTES:]
    if zlib.crc32(body) != int.from_bytes(header[VERSION_BYTES:PREFIX_BYTES], "little"):
        raise BadMessageError("a header that is damaged")
    return body


def _block(message: Message, frames: list[bytes]) -> bytes:
    if not isinstance(message, WITH_BLOCK):
        if len(frames) != 1:
            raise BadMessageError(f"a {type(message).__name__} with a block")
        return b""
    if len(frames) != FRAMES_MAX or zlib.crc32(frames[1]) != message.crc:
        raise BadMessageError(f"a {type(message).__name__} whose block is missing or damaged")
    return frames[1]
