"""A bound on log lines, so that a worker under attack cannot fill the journal. Pure."""

from __future__ import annotations

BURST = 20.0
PER_SECOND = 2.0


class Throttle:
    """A token bucket of lines; by default what one worker may say."""

    def __init__(self, burst: float = BURST, per_second: float = PER_SECOND) -> None:
        self._burst, self._per_second = burst, per_second
        self._tokens = burst
        self._then = 0.0
        self.suppressed = 0
        """Since the last one admitted."""

    def admit(self, now: float) -> int | None:
        """None when the line must be suppressed, otherwise how many were since the last one admitted."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._per_second)
        self._then = now
        if self._tokens < 1:
            self.suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed
