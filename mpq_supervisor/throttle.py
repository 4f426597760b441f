"""A bound on log lines, so that a worker under attack cannot fill the journal. Pure."""

from __future__ import annotations

BURST = 20.0
PER_SECOND = 2.0


class Throttle:
    """A token bucket of lines."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._then = 0.0
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """None when the line must be suppressed, otherwise how many were since the last one admitted."""
        self._tokens = min(BURST, self._tokens + (now - self._then) * PER_SECOND)
        self._then = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
