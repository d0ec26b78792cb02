"""How fast a counter grows, over the last few seconds."""

from __future__ import annotations

from collections import deque

WINDOW_S = 3.0


class Rate:
    """Growth per second of a counter over the last :data:`WINDOW_S`."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, value: int) -> float:
        """Take a reading; the growth per second since the oldest reading in the window."""
        self._seen.append((now_s, value))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return (value - before) / (now_s - then_s) if now_s > then_s else 0.0
