"""A bound on log lines, so that a worker under attack cannot fill the journal. Pure."""

from __future__ import annotations

from mpq_worker.budget import Budget

BURST = 20.0
PER_SECOND = 2.0


class Throttle:
    """A budget of lines that knows what it left out; by default what one worker may say."""

    def __init__(self, burst: float = BURST, per_second: float = PER_SECOND) -> None:
        self._budget = Budget(per_second, burst)
        self.suppressed = 0
        """Since the last one admitted."""

    def admit(self, now: float) -> int | None:
        """None when the line must be suppressed, otherwise how many were since the last one admitted."""
        if not self._budget.take(now):
            self.suppressed += 1
            return None
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed
