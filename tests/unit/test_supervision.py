"""How the supervisor notices that a process hangs, and how often it starts one again."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_world import ACT_DIM, DTYPE, OBS_DIM, a_contract

from robotsac.actor import uplink_child
from robotsac.actor.board import ACTOR_FIELDS, Phase
from robotsac.actor.status import CollectStatus, LinkWatch
from robotsac.actor.uplink_block import UPLINK_FIELDS, UplinkArgs
from robotsac.actor.uplink_child import UPLINK_STARTS_MAX, UplinkChild
from robotsac.config.schema import LinkConfig, SpoolConfig
from robotsac.errors import StorageError
from robotsac.shared import RecordRing, SharedBlock
from robotsac.silence import LOOK_MAX_S, Silence


def test_silence_grows_until_the_sign_changes():
    silence = Silence(0.0)
    assert silence.look("a", 0.1) == 0.0
    assert silence.look("a", 0.6) == pytest.approx(0.5)
    assert silence.look("a", 1.1) == pytest.approx(1.0)
    assert silence.look("b", 1.2) == 0.0


def test_a_pause_of_the_watcher_itself_is_no_silence_of_the_watched():
    """Ctrl-Z and fg: everybody stood still."""
    silence = Silence(0.0)
    silence.look("a", 0.0)
    assert silence.look("a", 600.0) == LOOK_MAX_S
    assert silence.look("b", 600.05) == 0.0


def test_the_status_line_shows_who_is_silent_and_no_rate_of_the_past():
    actor, uplink = SharedBlock.create(ACTOR_FIELDS), SharedBlock.create(UPLINK_FIELDS)
    try:
        actor["phase"], actor["rate_millihz"] = Phase.MOVING, 49_700
        line = CollectStatus.read("arm0", 1.0, actor, uplink, actor_silent_s=4.2, uplink_silent_s=7.0).line()
    finally:
        for block in (actor, uplink):
            block.close()
            block.unlink()
    assert line.startswith("arm0 moving  actor silent for 4 s  ")
    assert "uplink silent for 7 s" in line
    assert "49.7 Hz" not in line


def test_a_successors_news_are_told_from_its_first_one(tmp_path):
    path = tmp_path / "uplink-status.json"
    watch = LinkWatch(path)
    path.write_text(json.dumps({"pid": 1, "events": ["a", "b", "c"]}))
    assert list(watch.news()) == ["a", "b", "c"]
    path.write_text(json.dumps({"pid": 2, "events": ["a", "d", "again"]}))
    assert list(watch.news()) == ["d", "again"], "a is told already"


@pytest.fixture
def uplink(tmp_path: Path) -> Iterator[UplinkChild]:
    """One whose process ends as soon as it has started: its block has other fields."""
    ring, block, other = RecordRing.create(DTYPE, 64), SharedBlock.create(UPLINK_FIELDS), SharedBlock.create(("x",))
    args = UplinkArgs(
        robot="arm0",
        boot="boot1",
        contract_json=a_contract().to_json(),
        link=LinkConfig(),
        spool=SpoolConfig(),
        spool_path=tmp_path / "spool.db",
        policies=tmp_path / "policies",
        ring_name=ring.name,
        ring_capacity=64,
        obs_dim=OBS_DIM,
        act_dim=ACT_DIM,
        block_name=other.name,
        status_path=tmp_path / "uplink-status.json",
    )
    yield UplinkChild(multiprocessing.get_context("spawn"), args, block, ring)
    for part in (ring, block, other):
        part.close()
        part.unlink()


def mend(uplink: UplinkChild) -> str:
    """Once it has ended."""
    while not (done := uplink.mend()):
        pass
    return done


def test_an_uplink_that_keeps_ending_is_given_up(uplink):
    uplink.start()
    for _ in range(UPLINK_STARTS_MAX - 1):
        assert "started it again" in mend(uplink)
    with pytest.raises(StorageError, match="the uplink process ended unexpectedly") as caught:
        mend(uplink)
    assert f"started {UPLINK_STARTS_MAX} times within 600 s" in caught.value.reason
    assert uplink.starts == UPLINK_STARTS_MAX


def test_an_uplink_that_ends_once_in_a_while_is_started_for_ever(uplink, monkeypatch):
    monkeypatch.setattr(uplink_child, "UPLINK_WINDOW_S", 0.0)
    uplink.start()
    for _ in range(UPLINK_STARTS_MAX + 1):
        assert "started it again" in mend(uplink)
    uplink.end(lambda: None)
