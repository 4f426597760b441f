"""One after the other: the workers that a change restarts, each begun when the one before has arrived. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

PATIENCE = 15.0
"""Seconds that one worker is waited for; the hub, or the WAN, may be away."""


class Rolling:
    """Who is still to be restarted."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._current: str | None = None
        self._since = 0.0

    def want(self, names: Iterable[str]) -> None:
        """These too, in this order; who waits already keeps his place."""
        self._waiting.update(dict.fromkeys(names))

    def clear(self) -> None:
        """Nobody is to be restarted any more."""
        self._waiting.clear()

    def due(self, now: float, is_settled: Callable[[str], bool]) -> Iterator[str]:
        """The next one, if nothing is under way."""
        if self._current is not None:
            if now - self._since < PATIENCE and not is_settled(self._current):
                return
            self._current = None
        if self._waiting:
            self._current, self._since = next(iter(self._waiting)), now
            del self._waiting[self._current]
            yield self._current
