"""Whether a learner takes a robot, and what it says when not."""

from __future__ import annotations

from dataclasses import dataclass

from robotsac.contract import Contract
from robotsac.errors import ANOTHER_RUN, LinkError
from robotsac.link import messages as m
from robotsac.link.peers import Robots
from robotsac.link.ports import ReplayPort


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a HELLO is refused.

    Attributes:
        kind: for counting.
        passing: it may pass by itself, so asking again helps.
        error: in words.
    """

    kind: str
    passing: bool
    error: LinkError

    def answer(self, session: str, hello: m.Hello) -> m.Refused:
        """The message that says so."""
        return m.Refused(
            session=session,
            to=hello.session,
            attempt=hello.attempt,
            message=m.words(self.error.message),
            reason=m.words(self.error.reason),
            command=m.words(self.error.command),
            passing=self.passing,
        )


def objection(hello: m.Hello, robots: Robots, log: ReplayPort, robots_max: int, now_ns: int) -> Refusal | None:
    """What stands against ``hello``; ``None`` when it is welcome. Then the run is bound to its contract.

    Raises:
        StorageError: the log could not be bound.
    """
    return _crowd(hello, robots, robots_max, now_ns) or _contract(hello, log)


def _crowd(hello: m.Hello, robots: Robots, robots_max: int, now_ns: int) -> Refusal | None:
    same = robots.named(hello.robot)
    # The same boot in another session is the same collector, whose uplink was restarted.
    if same and same.session != hello.session and same.boot != hello.boot and robots.is_alive(same, now_ns):
        since_s = (now_ns - same.welcomed_ns) // 1_000_000_000
        error = LinkError(
            f"two collectors named {hello.robot}",
            reason=f"another one of that name has been connected for {since_s} s and is alive",
            command=f"--set robot.name={hello.robot}-2",
        )
        return Refusal("name in use", True, error)
    others = [robot for robot in robots.alive(now_ns) if robot.name != hello.robot]
    if len(others) >= robots_max:
        error = LinkError(
            f"the learner serves {len(others)} robots already, limit {robots_max}",
            reason="link.robots_max of the learner",
            command=f"robotsac learn --set link.robots_max={robots_max + 1}",
        )
        return Refusal("too many robots", True, error)
    return None


def _contract(hello: m.Hello, log: ReplayPort) -> Refusal | None:
    try:
        theirs = Contract.from_json(hello.contract)
    except ValueError as unreadable:
        return Refusal("malformed contract", False, _malformed("cannot be read", str(unreadable)))
    if theirs.digest() != hello.contract_digest:
        return Refusal("malformed contract", False, _malformed("is not the one its digest names", "sha256 differs"))
    run = log.contract()
    if run is None:
        log.bind(theirs)
    elif difference := run.difference(theirs):
        error = LinkError(
            "this run learns for another robot or task",
            reason=f"run against robot: {difference}",
            command=ANOTHER_RUN,
        )
        return Refusal("other contract", False, error)
    return None


def _malformed(what: str, why: str) -> LinkError:
    return LinkError(
        f"the contract {what}",
        reason=f"learner and robot may run different versions: {why}",
        command="robotsac --version",
    )
