"""Stateless resets of a hub's worker (RFC 9000 section 10.3), within a budget. Pure.

To whoever speaks by a connection that is not there; and, after a worker has died, to all the peers that it had:
an idle site would otherwise notice with its next probe only. A budget spreads the return of many, since a handshake
costs a hub some milliseconds of CPU; each kind has its own, so that strangers take nothing of the second's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mpq_worker.budget import Budget
from mpq_worker.contract import MAX_RESET, LostPeer
from mpq_worker.quic.header import stateless_reset
from mpq_worker.quic.session import Address

AT_ONCE = 8
PER_SECOND = 200
PAUSE = 1 / PER_SECOND


class Resets:
    """`key` is that of the worker's tokens; `lost` are the connections of the process before."""

    def __init__(self, key: bytes, lost: Iterable[LostPeer], now: float) -> None:
        self._key = key
        self._lost = deque(lost)
        self._answers = Budget(PER_SECOND, AT_ONCE)
        self._unasked = Budget(PER_SECOND, AT_ONCE)
        self._next = now

    def answer(self, cid: bytes, received: int, now: float) -> bytes | None:
        """To `received` bytes for a connection ID of nobody."""
        reset = stateless_reset(self._key, cid, received)
        return reset if reset is not None and self._answers.take(now) else None

    def due(self, now: float) -> list[tuple[bytes, Address]]:
        """Those that nobody has asked for, with where they go."""
        resets: list[tuple[bytes, Address]] = []
        while self._lost and self._unasked.take(now):
            peer = self._lost.popleft()
            reset = stateless_reset(self._key, peer.cid, MAX_RESET + 1)
            if reset is not None:
                resets.append((reset, (*peer.address, peer.local)))
        self._next = now + PAUSE
        return resets

    def deadline(self) -> float | None:
        """When to ask for `due`."""
        return self._next if self._lost else None
