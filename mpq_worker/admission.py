"""Whether a stranger may begin a connection with a hub's worker, and how long it may remain one. Pure.

    few strangers                 → a connection, for its first Initial
    `retry_from` or more of them  → a Retry; a connection for whoever comes back with its token
    bounds reached                → dropped and counted

Whoever spoofs addresses gets at most `retry_from` connections; what it can take from the others is a round trip.
A stranger is who has not said Hello, and is given `HELLO_TIME` for it, however slowly it sends. It has a place for
that time, also when its connection is over before: a first packet that ends what it begins costs no less than others.
So the number of places bounds the rate as well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import takewhile
from typing import NamedTuple

from mpq_worker.contract import Limits
from mpq_worker.errors import DropReason
from mpq_worker.peer import Peer
from mpq_worker.quic.header import Header
from mpq_worker.quic.retry import LIFETIME, RetryTokens
from mpq_worker.quic.session import Address

HELLO_TIME = 5.0
"""From the first Initial to an accepted Hello, in seconds."""
MAX_REDEEMED = 4096
"""Tokens remembered as used; whoever uses up more within their lifetime has room for replays of its own."""


class Accept(NamedTuple):
    """`original_cid` is what the first Initial went to, `retry_cid` our choice in a Retry, if there was one."""

    original_cid: bytes
    retry_cid: bytes | None
    source: str


@dataclass(eq=False)
class _Place:
    until: float
    source: str  # empty while its address is not proven
    peer: Peer | None  # None: it is gone


class Admission:
    """The strangers of one worker; its length is how many places are taken."""

    def __init__(self, tokens: RetryTokens, limits: Limits) -> None:
        self._tokens = tokens
        self._limits = limits
        self._places: dict[_Place, None] = {}  # in order of time
        self._strangers: dict[Peer, _Place] = {}
        self._sources: Counter[str] = Counter()
        self._redeemed: dict[bytes, float] = {}  # until when, in order of time

    def __len__(self) -> int:
        return len(self._places)

    def judge(self, initial: Header, addr: Address, connections: int, now: float) -> Accept | bytes | DropReason:
        """For an Initial of nobody we know: go on, or the Retry to answer with, or why it is dropped."""
        host, port = addr[0], addr[1]
        if initial.token:
            original = self._tokens.redeem(initial, host, port, now)
            if original is None or self._is_redeemed(initial.destination_cid, now):
                return DropReason.TOKEN
            accept = Accept(original, initial.destination_cid, _network(host))
        elif len(self._places) >= self._limits.retry_from:
            return self._tokens.retry(initial, host, port, now)
        else:
            accept = Accept(initial.destination_cid, None, "")
        full = len(self._places) >= self._limits.handshakes or connections >= self._limits.connections
        if full or (accept.source and self._sources[accept.source] >= self._limits.per_source):
            return DropReason.LIMIT
        return accept

    def begin(self, peer: Peer, accept: Accept, now: float) -> None:
        """It has a connection now."""
        place = self._strangers[peer] = _Place(now + HELLO_TIME, accept.source, peer)
        self._places[place] = None
        if accept.retry_cid is not None:
            self._sources[accept.source] += 1
            self._redeemed[accept.retry_cid] = now + LIFETIME
            if len(self._redeemed) > MAX_REDEEMED:
                del self._redeemed[next(iter(self._redeemed))]

    def admit(self, peer: Peer) -> None:
        """It has said Hello, and is no stranger any more."""
        self._free(self._strangers.pop(peer))

    def lose(self, peer: Peer) -> bool:
        """Its connection is over. Whether it was a stranger, whose place remains taken."""
        place = self._strangers.pop(peer, None)
        if place is not None:
            place.peer = None
        return place is not None

    def overdue(self, now: float) -> list[Peer]:
        """Those whose time is over, from now on no strangers any more."""
        places = list(takewhile(lambda place: place.until <= now, self._places))
        for place in places:
            self._free(place)
        peers = [place.peer for place in places if place.peer is not None]
        for peer in peers:
            del self._strangers[peer]
        return peers

    def deadline(self) -> float | None:
        """When to ask for `overdue`."""
        return next((place.until for place in self._places), None)

    def _free(self, place: _Place) -> None:
        del self._places[place]
        if place.source:
            self._sources[place.source] -= 1
            if not self._sources[place.source]:
                del self._sources[place.source]

    def _is_redeemed(self, cid: bytes, now: float) -> bool:
        while self._redeemed and next(iter(self._redeemed.values())) < now:
            del self._redeemed[next(iter(self._redeemed))]
        return cid in self._redeemed


def _network(host: str) -> str:
    """What one customer has of the Internet: an IPv4 address, an IPv6 /64."""
    return IPv6Address(host).packed[:8].hex() if ":" in host else host
