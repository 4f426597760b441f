"""Sending a hub's sites over to a new worker: one after the other, and not for ever. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mpq_worker.contract import DRAIN_LIMIT
from mpq_worker.peer import Peer

MOVE_TIME = 3.0
"""All are told within this time, `MOVE_PAUSE` apart or less: each one's handshake costs the new worker some CPU."""
MOVE_PAUSE = 0.01
PATIENCE = DRAIN_LIMIT * 0.75
"""Who has not moved by then is left behind, and finds the new worker by himself: long, since on a host short of CPU a
handshake takes seconds, and who is left behind loses what he sends until he has found it."""
SILENCE = 3.0
"""Who owes an answer for so long is not waited for."""
LOOK = 0.25


class Moves:
    """`peers` are to be told; `expected` those that can move and have not said that they did."""

    def __init__(self, peers: Iterable[Peer], now: float) -> None:
        self._to_tell = deque(peers)
        self._pause = min(MOVE_PAUSE, MOVE_TIME / max(1, len(self._to_tell)))
        self._next = self._look = now
        self._until = now + PATIENCE
        self.expected = set(self._to_tell)

    def add(self, peer: Peer) -> None:
        """Somebody has come only now."""
        self._to_tell.append(peer)
        self.expected.add(peer)

    def due(self, now: float) -> list[Peer]:
        """Whom to tell now; asked at every wake-up."""
        due = []
        self._look = now + LOOK
        while self._to_tell and now >= self._next:
            due.append(self._to_tell.popleft())
            self._next += self._pause
        return due

    def over(self, now: float) -> bool:
        """Whether all who answer have moved, or patience has ended."""
        return now >= self._until or all(peer.silent_for(now) >= SILENCE for peer in self.expected)

    def deadline(self) -> float:
        """When to ask again."""
        return self._next if self._to_tell else min(self._look, self._until)
