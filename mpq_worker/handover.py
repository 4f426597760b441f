"""A planned restart, as one worker sees it: whose turn it is to read the TUN, and whose packets have to wait. Pure.

Two workers have one TUN, and exactly one of them reads it (docs/decisions/restarts.md):

    STANDBY ──Lead──▶ LEADING ──Drain──▶ MOVING ─────────────▶ DRAINING ─────────────▶ RELIEVED
    connects          reads the TUN      a hub sends its       sends out what it       delivers what comes
                                         sites over; reads     read, says Drained      in until Stop
                         ◀──────────────────Lead: the successor failed──────────────────┘

Both may write to the TUN. Lest the new one overtake the old, it keeps back what it hears of a peer until that peer's
`Moved` has arrived at the old one, or KEEP_BACK has passed.
"""

from __future__ import annotations

from enum import Enum, auto

from mpq_worker.peer import Peer

KEEP_BACK = 0.2
"""How long packets of a peer are kept back, at most."""
MAX_KEPT = 512
"""And how many."""
FLUSH_TIME = 0.25
"""How long DRAINING may take: nobody reads the TUN meanwhile."""


class Duty(Enum):
    """See above."""

    STANDBY = auto()
    LEADING = auto()
    MOVING = auto()
    DRAINING = auto()
    RELIEVED = auto()

    @property
    def reads(self) -> bool:
        """Whether the TUN is ours to read."""
        return self in (Duty.LEADING, Duty.MOVING)

    @property
    def leaves(self) -> bool:
        """Whether somebody else has taken over, or is about to."""
        return self in (Duty.DRAINING, Duty.RELIEVED)


class KeptBack:
    """Packets in the order in which they came, by peer; `Peer.held` marks those that are concerned."""

    def __init__(self) -> None:
        self._packets: dict[Peer, list[bytes]] = {}
        self._until: dict[Peer, float] = {}

    def add(self, peer: Peer, packet: bytes, now: float) -> bool:
        """True when there is no room for more of this peer."""
        packets = self._packets.setdefault(peer, [])
        packets.append(packet)
        self._until.setdefault(peer, now + KEEP_BACK)
        return len(packets) >= MAX_KEPT

    def release(self, peer: Peer) -> list[bytes]:
        """What was kept; from now on nothing is."""
        peer.held = False
        self._until.pop(peer, None)
        return self._packets.pop(peer, [])

    def due(self, now: float) -> list[Peer]:
        """Whose time is up."""
        return [peer for peer, until in self._until.items() if until <= now]

    def deadline(self) -> float | None:
        """When the first one's is."""
        return min(self._until.values(), default=None)
