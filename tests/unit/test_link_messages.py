"""Frames: what is encoded comes back, and nothing else gets in."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_world import World, a_contract, some_records

from robotsac.link import messages as m

ME, YOU = "a" * 32, "b" * 32
BLOCK = some_records(3, 4).tobytes()
DATA = m.Data(ME, YOU, "boot", "0" * 64, 2, 3, 6, 4, m.block_crc(BLOCK))
HELLO = m.Hello(
    session=ME,
    to="",
    attempt=1,
    robot="arm0",
    boot="boot",
    boots=(m.BootOffer("boot", a_contract().digest(), 0, -1, -1),),
    contract=a_contract().to_json(),
    contract_digest=a_contract().digest(),
    versions={"robotsac": "0.1.0"},
)
NOTICE = m.PolicyNotice(1, "0" * 64, 100)
FROM_ROBOT = [
    (HELLO, b""),
    (DATA, BLOCK),
    (m.RobotBeat(ME, YOU, -1, 0, 0), b""),
    (m.Fetch(ME, YOU, 1, 0, 1000), b""),
    (m.PolicyResult(ME, YOU, 1, False, "golden outputs differ"), b""),
    (m.Bye(ME, YOU, "stopped"), b""),
]
FROM_LEARNER = [
    (m.Welcome(ME, YOU, 1, "run", {"boot": -1}, {}, -1, 1000, NOTICE), b""),
    (m.Refused(ME, YOU, 1, "two collectors", "why", "command", True), b""),
    (m.HelloWanted(ME, YOU, "who?"), b""),
    (m.Ack(ME, YOU, "boot", 6, 100, False), b""),
    (m.LearnerBeat(ME, YOU, 1, 2, 3, -1, None), b""),
    (m.Chunk(ME, YOU, 1, "0" * 64, 0, m.block_crc(b"abc")), b"abc"),
    (m.Bye(ME, YOU, "stopped"), b""),
]


@pytest.mark.parametrize("name", ["red\x1b[31m", "two\nlines", "", "x" * 101])
@pytest.mark.parametrize("field", ["durable", "refused"])
def test_names_of_boots_from_a_learner_are_checked_too(field: str, name: str) -> None:
    """They end up on the robot's terminal."""
    welcome = m.Welcome(ME, YOU, 1, "run", {"boot": -1}, {"other": "why"}, -1, 1000, NOTICE)
    m.decode_from_learner(m.encode(welcome))
    named = {"durable": {name: -1}, "refused": {name: "why"}}
    with pytest.raises(m.BadMessageError):
        m.decode_from_learner(m.encode(msgspec.structs.replace(welcome, **{field: named[field]})))


@pytest.mark.parametrize("message, block", FROM_ROBOT, ids=lambda v: type(v).__name__)
def test_what_a_robot_says_comes_back(message: m.FromRobot, block: bytes) -> None:
    assert m.decode_from_robot(m.encode(message, block)) == (message, block)


@pytest.mark.parametrize("message, block", FROM_LEARNER, ids=lambda v: type(v).__name__)
def test_what_a_learner_says_comes_back(message: m.FromLearner, block: bytes) -> None:
    assert m.decode_from_learner(m.encode(message, block)) == (message, block)


def test_each_side_refuses_what_only_the_other_may_say() -> None:
    with pytest.raises(m.BadMessageError):
        m.decode_from_learner(m.encode(HELLO))
    with pytest.raises(m.BadMessageError):
        m.decode_from_robot(m.encode(FROM_LEARNER[0][0]))


def test_another_protocol_is_told_apart_from_garbage() -> None:
    (frame,) = m.encode(HELLO)
    other = frame[:4] + (7).to_bytes(2, "little") + b"whatever protocol 7 has here"
    with pytest.raises(m.OtherProtocolError, match="speaks protocol 7, this one 1"):
        m.decode_from_robot([other])


def _header(**changes: object) -> bytes:
    fields = {**msgspec.to_builtins(DATA), **changes}
    return sealed(msgspec.msgpack.encode(fields))


def sealed(body: bytes) -> bytes:
    """A header frame with a right prefix and checksum around any ``body``."""
    return m.MAGIC + m.PROTOCOL.to_bytes(2, "little") + zlib.crc32(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"RSAC"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [_header()],
        [_header(), BLOCK, BLOCK],
        [_header(), BLOCK[:-1]],
        [_header(), BLOCK[:-1] + bytes([BLOCK[-1] ^ 1])],
        [_header(count=0), BLOCK],
        [_header(count=1001), BLOCK],
        [_header(first_seq=-1), BLOCK],
        [_header(prev_seq=-2), BLOCK],
        [_header(last_seq=2**63), BLOCK],
        [_header(boot=""), BLOCK],
        [_header(boot="x" * 101), BLOCK],
        [_header(boot="red\x1b[31m"), BLOCK],
        [_header(boot="newline\n"), BLOCK],
        [_header(contract_digest="0" * 63 + "\n"), BLOCK],
        [_header(contract_digest="0"), BLOCK],
        [_header(session="not hex!!"), BLOCK],
        [_header(surprise=1), BLOCK],
        [_header() + b"\x00", BLOCK],
        [_header(boot="x" * (m.HEADER_BYTES_MAX + 1)), BLOCK],
        [*m.encode(HELLO), b"a block"],
        [sealed(b"\xdd\xff\xff\xff\xff")],
        [sealed(b"\x91" * 5000)],
        [_header()[:-1], BLOCK],
        [_header().replace(b"boot", b"toob"), BLOCK],
    ],
    ids=lambda frames: f"{len(frames)}x{len(frames[0]) if frames else 0}",
)
def test_frames_that_are_no_message_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(m.BadMessageError):
        m.decode_from_robot(frames)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_a_message_or_refused(frames: list[bytes]) -> None:
    prefixed = [sealed(frame) for frame in frames]
    for some in (frames, prefixed):
        for decode in (m.decode_from_robot, m.decode_from_learner):
            with pytest.raises(m.BadMessageError):
                decode(some)


def test_a_flipped_bit_in_the_records_never_passes() -> None:
    header, block = m.encode(DATA, BLOCK)
    for bit in range(8 * len(block)):
        flipped = bytearray(block)
        flipped[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(m.BadMessageError):
            m.decode_from_robot([header, bytes(flipped)])


def test_words_are_one_bounded_line() -> None:
    assert m.words("red\x1b[31m\nline") == "red [31m line"
    assert len(m.words("x" * 9999)) == 2000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A conversation that has been going on, with a policy fetched."""
    world = World(tmp_path)
    world.policies.publish(bytes(1000), 1)
    for _ in range(100):
        world.produce(2)
        world.step(10)
    yield world
    world.close()


def damaged(frames: list[bytes], rng: random.Random) -> list[bytes]:
    """``frames`` with some bytes changed, sometimes cut short."""
    changed = [bytearray(frame) for frame in frames]
    for _ in range(rng.randrange(1, 4)):
        frame = rng.choice(changed)
        if frame:
            frame[rng.randrange(len(frame))] ^= rng.randrange(1, 256)
    if rng.random() < 0.2:
        changed[0] = changed[0][: rng.randrange(len(changed[0]))]
    return [bytes(frame) for frame in changed]


def test_damaged_messages_change_nothing(world: World) -> None:
    rng = random.Random(0)
    spoken = [*world.up.log, *world.down.log]
    for _ in range(3000):
        frames = damaged(rng.choice(spoken), rng)
        world.learner.receive(b"peer", frames)
        world.robot.receive(frames)
    for end in (world.learner, world.robot):
        # A damaged protocol number is taken for another protocol; all else is unreadable.
        assert set(end.rejected) <= {"unreadable", "other protocol"}
        assert sum(end.rejected.values()) >= 2900
    world.produce(10)
    world.run_for(5)
    assert world.stored() == {"boot1": list(range(world.produced["boot1"]))}


def test_neither_end_falls_over_a_peer_that_lies(world: World) -> None:
    """The same with checksums made right again: a hostile peer can do that."""
    rng = random.Random(1)
    spoken = [*world.up.log, *world.down.log]
    understood = 0
    for _ in range(20_000):
        header, *block = rng.choice(spoken)
        body, *_ = damaged([header[m.PREFIX_BYTES :]], rng)
        frames = [sealed(body), *block]
        before = world.learner.rejected["unreadable"] + world.robot.rejected["unreadable"]
        world.learner.receive(b"peer", frames)
        world.learner.commit()
        world.robot.receive(frames)
        understood += world.learner.rejected["unreadable"] + world.robot.rejected["unreadable"] - before < 2
    assert understood > 300, "some of the lies must get past the reader, or this test tests nothing"
    seqs = world.stored().get("boot1", [])
    assert len(set(seqs)) == len(seqs)
