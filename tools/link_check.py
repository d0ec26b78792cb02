"""What the benchmarks of the link share: a free address, a look into the replay log, CPU time and disk in numbers."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections import defaultdict
from pathlib import Path

from robotsac.config.schema import LinkConfig
from robotsac.learner.replay_log import FILE_NAME, ReplayLog

ROWS_PER_READ = 500
SYNCS, SYNC_BYTES = 30, 32_768


def free_link(robots: int) -> LinkConfig:
    """``[link]`` as it is by default, on a loopback port that nobody has now, for at least ``robots`` robots."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    usual = LinkConfig()
    return usual.model_copy(update={"address": address, "robots_max": max(robots, usual.robots_max)})


def lost_records(run_dir: Path, made: dict[str, int]) -> int:
    """Records that are not in the log exactly once and in order, of ``made`` by robot, each in one boot from 0 on."""
    wrong, next_seq = 0, defaultdict[str, int](int)
    with ReplayLog(run_dir / FILE_NAME, read_only=True) as log:
        row = 0
        while batches := log.read_after(row, ROWS_PER_READ):
            row = batches[-1].row
            for batch in batches:
                if batch.robot in made:
                    seq = batch.records["seq"].tolist()
                    expected = next_seq[batch.robot]
                    wrong += seq != list(range(expected, expected + len(seq)))
                    next_seq[batch.robot] = expected + len(seq)
    return wrong + sum(abs(count - next_seq[robot]) for robot, count in made.items())


def rows_in(run_dir: Path) -> int:
    """Batches in the log."""
    with ReplayLog(run_dir / FILE_NAME, read_only=True) as log:
        return log.counts()["batches"]


def cpu_s(pid: int) -> float:
    """CPU time that a process has used so far with all its threads, s: its clock as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(((~pid) << 3) | 2)


def busy_s() -> float:
    """CPU time that all processes of this computer, and its kernel, have used so far, s: proc(5), /proc/stat."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        user, nice, system, _idle, _iowait, *rest = map(int, file.readline().split()[1:8])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def sync_ms(folder: Path) -> float:
    """Milliseconds of a write of 32 kB and its sync in ``folder``, median: what a commit costs at the least."""
    path, took_s = folder / "sync-probe", []
    with path.open("wb") as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNC_BYTES))
            file.flush()
            begin_s = time.perf_counter()
            os.fsync(file.fileno())
            took_s.append(time.perf_counter() - begin_s)
    path.unlink()
    return round(1000 * statistics.median(took_s), 2)
