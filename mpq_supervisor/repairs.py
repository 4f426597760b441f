"""Tells of what others took away of ours in the host's network and we have put back. Pure.

A line is of one burst of changes. Who takes away the same thing again and again gets a line now and then.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpq_supervisor.throttle import Throttle

PAUSE = 10.0
"""Seconds between two lines …"""
AT_ONCE = 5
"""… of which so many may come at once."""
NAMED = 4
"""Things that a line names."""


class Repairs:
    """What was put back, as lines for the log."""

    def __init__(self) -> None:
        self._lines = Throttle(AT_ONCE, 1 / PAUSE)

    def line(self, things: Sequence[str], now: float) -> str | None:
        """The line for what was put back just now; None where there is nothing to tell, or not yet."""
        if not things:
            return None
        suppressed = self._lines.admit(now)
        if suppressed is None:
            return None
        rest = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
        before = f" ({suppressed} such lines before it left out)" if suppressed else ""
        return f"put back what was gone: {', '.join(things[:NAMED])}{rest}{before}"
