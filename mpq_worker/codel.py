"""A send queue bounded in bytes, with CoDel at its head (RFC 8289). Pure."""

from __future__ import annotations

from collections import deque
from math import sqrt

from mpq_worker.contract import QueueLimits


class CodelQueue:
    """FIFO of packets. `pop` drops what has waited too long; `full_drops` and `codel_drops` count."""

    def __init__(self, limits: QueueLimits, mtu: int) -> None:
        self._limits = limits
        self._mtu = mtu
        self._packets: deque[tuple[float, bytes]] = deque()
        self._first_above: float | None = None
        self._dropping = False
        self._drop_next = 0.0
        self._count = 0
        self._last_count = 0
        self.bytes = 0
        self.full_drops = 0
        self.codel_drops = 0

    def __len__(self) -> int:
        return len(self._packets)

    def push(self, packet: bytes, now: float) -> None:
        """Append, or drop if that exceeds the bound."""
        if self.bytes + len(packet) > self._limits.max_bytes:
            self.full_drops += 1
            return
        self._packets.append((now, packet))
        self.bytes += len(packet)

    def pop(self, now: float) -> bytes | None:
        """The next packet to send, after CoDel has dropped what it must (RFC 8289 section 5.5)."""
        packet, drop = self._take(now)
        if self._dropping:
            if not drop:
                self._dropping = False
            while self._dropping and now >= self._drop_next:
                self.codel_drops += 1
                self._count += 1
                packet, drop = self._take(now)
                if drop:
                    self._drop_next = self._control_law(self._drop_next)
                else:
                    self._dropping = False
        elif drop:
            self.codel_drops += 1
            packet, _ = self._take(now)
            self._dropping = True
            delta = self._count - self._last_count
            recent = now - self._drop_next < 16 * self._limits.interval
            self._count = delta if delta > 1 and recent else 1
            self._drop_next = self._control_law(now)
            self._last_count = self._count
        return packet

    def _control_law(self, t: float) -> float:
        return t + self._limits.interval / sqrt(self._count)

    def _take(self, now: float) -> tuple[bytes | None, bool]:
        """The head, and whether it has been above target for a whole interval."""
        if not self._packets:
            self._first_above = None
            return None, False
        since, packet = self._packets.popleft()
        self.bytes -= len(packet)
        if now - since < self._limits.target or self.bytes <= self._mtu:
            self._first_above = None
            return packet, False
        if self._first_above is None:
            self._first_above = now + self._limits.interval
            return packet, False
        return packet, now >= self._first_above
