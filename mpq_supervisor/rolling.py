"""One after the other: the workers that a change restarts, each begun when the one before has arrived. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mpq_supervisor.life import Life, State

PATIENCE = 15.0
"""Seconds that one worker is waited for; the hub, or the WAN, may be away."""
RETRY = 300.0
"""Seconds from a restart that failed to the next one that nobody asks for."""
SETTLED = frozenset({State.UP, State.WAITING, State.DEGRADED, State.STOPPED, State.FAILED})
"""Where a worker that is restarted has arrived, well or not."""


class Rolling:
    """Who is still to be restarted."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._current: str | None = None
        self._since = 0.0

    def want(self, names: Iterable[str]) -> None:
        """These too, in this order; who waits already keeps his place."""
        self._waiting.update(dict.fromkeys(names))

    def __contains__(self, name: str) -> bool:
        """Whether it waits for its turn."""
        return name in self._waiting

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


def is_ripe(life: Life, now: float) -> bool:
    """Whether a worker that is not what it should be may be restarted though nobody asks: once it has settled. After
    a restart that failed only later, and only while it is UP: then it goes on, whatever becomes of the next one."""
    if life.failed_restarts:
        return life.state is State.UP and now - life.since >= RETRY
    return life.state in SETTLED
