"""The slot that the control loop takes its policy from.

A thread of its own watches the bundle folder, accepts what comes, and leaves it ready; the loop picks it up between two
control ticks with one attribute read. The policy it replaces is kept for rollback.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from robotsac.config.schema import PolicyConfig
from robotsac.contract import Contract
from robotsac.errors import BundleRejected, StorageError
from robotsac.policy.accept import accept
from robotsac.policy.runner import Policy
from robotsac.policy.store import BundleEntry, BundleStore
from robotsac.policy.watch import FolderWatch

POLL_S = 0.02
"""The folder is looked into so often, and at once when a policy arrives."""
JOIN_S = 2.0


@dataclass(slots=True)
class SlotCounters:
    """Since the slot was made."""

    accepted: int = 0
    rejected: int = 0


class PolicySlot:
    """See module docstring.

    Args:
        store: the folder that is watched.
        contract: of this robot and task.
        config: of acceptance.
        refusals: file that says why the last bundle was refused.
    """

    def __init__(
        self, store: BundleStore, contract: Contract, config: PolicyConfig, refusals: Path | None = None
    ) -> None:
        self.current: Policy | None = None
        self.previous: Policy | None = None
        self.counters = SlotCounters()
        self.rejection = ""
        self._store = store
        self._contract = contract
        self._config = config
        self._refusals = refusals
        self._ready: Policy | None = None
        self._done: BundleEntry | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="policy-slot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent; waits at most 2 s."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)
            self._thread = None

    def swap(self) -> Policy | None:
        """The policy for the next control tick: the newest accepted one. Called by the loop, between ticks."""
        ready = self._ready
        if ready is not None and ready is not self.current:
            self.previous, self.current = self.current, ready
        return self.current

    def rollback(self) -> Policy | None:
        """Back to the policy before the current one, until a newer one is accepted."""
        if self.previous is not None:
            self.current, self.previous = self.previous, None
            self._ready = self.current
        return self.current

    def look(self) -> bool:
        """One look into the folder: accept what is new there. True when there was something new."""
        entry = self._store.latest()
        if entry is None or entry == self._done:
            return False
        self._done = entry
        in_use = self._ready
        newer_than = None if in_use is None else (in_use.info.run_id, in_use.version)
        try:
            policy = accept(
                self._store.read(entry), self._contract, self._config, sha256=entry.sha256, newer_than=newer_than
            )
        except (BundleRejected, StorageError) as error:
            self.rejection = f"policy {entry.version}: {error}"
            if self._refusals is not None:
                with contextlib.suppress(OSError):
                    self._refusals.write_text(self.rejection, encoding="utf-8")
            self.counters.rejected += 1
            return True
        self.counters.accepted += 1
        self._ready = policy
        return True

    def _watch(self) -> None:
        # The loop may run under a real-time policy that this thread inherits; loading must yield to it. It is no nicer than
        # other work, though: whoever keeps it from running while it holds Python's lock keeps the loop waiting too.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        with FolderWatch(self._store.folder) as watch:
            while not self._stop.is_set():
                self.look()
                watch.wait(POLL_S)
