"""Tells of what others took away of ours in the host's network and we have put back. Pure.

A line is of one burst of changes. Who takes away the same thing again and again gets a line now and then.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpq_worker.budget import Budget

PAUSE = 10.0
"""Seconds between two lines …"""
AT_ONCE = 5
"""… of which so many may come at once."""
NAMED = 4
"""Things that a line names."""


class Repairs:
    """What was put back, as lines for the log."""

    def __init__(self) -> None:
        self._lines = Budget(1 / PAUSE, AT_ONCE)
        self._untold = 0

    def line(self, things: Sequence[str], now: float) -> str | None:
        """The line for what was put back just now; None where there is nothing to tell, or not yet."""
        if not things:
            return None
        if not self._lines.take(now):
            self._untold += len(things)
            return None
        rest = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
        untold = f" ({self._untold} things before it not told)" if self._untold else ""
        self._untold = 0
        return f"put back what was gone: {', '.join(things[:NAMED])}{rest}{untold}"
