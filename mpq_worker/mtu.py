"""How large the packets of a path may be (RFC 8899, datagram PLPMTUD). Pure; sizes are of inner packets, in bytes.

                 lost                  acked
    in use ─────────────▶ BASE ─────────────────▶ halfway to what failed … until no more than GRAIN is open
      ▲ │ acked             │ lost
      │ └▶ done             └───────────────────▶ halfway between LEAST and BASE …
      │
      └── at first; when large packets no longer pass (`suspect`); the largest again after RAISE_TIME

The search begins at the top, and what is configured is in use meanwhile: nearly always it passes, and to tell every
host behind the tunnel of a smaller one at each reconnect would cost its connections ten minutes of small packets.
A size is lost when MAX_PROBES of it are, and a probe only if something that left after it was acknowledged, so that
an outage proves nothing.
"""

from __future__ import annotations

from mpq_worker.wire import DATAGRAM_OVERHEAD

BASE = 1280
"""What nearly every path carries, and the least that IPv6 allows inside."""
LEAST = 1200 - DATAGRAM_OVERHEAD
"""What every path of QUIC carries (RFC 9000 section 14); IPv4 alone can live with it."""
MAX_PROBES = 5
"""Probes of one size that have to be lost; more than RFC 8899's three, since radio loses packets of any size."""
RAISE_TIME = 600.0
"""Seconds after which a path that was found to be small is asked again (RFC 8899 section 5.1.1)."""
GRAIN = 4
"""The search ends when no more than this is open."""


class MtuSearch:
    """`mtu` is what packets may be as large as now. Ask for `due`, then tell `sent` and `on_fate`."""

    def __init__(self, largest: int) -> None:
        self.mtu = self._largest = largest
        self._low = min(LEAST, largest)
        self._high = largest + 1
        self._wanted: int | None = largest if largest > self._low else None
        self._number: int | None = None
        self._lost = 0
        self._raise_at: float | None = None

    def due(self, now: float) -> int | None:
        """The size to probe now, if any."""
        if self._raise_at is not None and now >= self._raise_at:
            self._raise_at = None
            self._high, self._wanted = self._largest + 1, self._largest
        return self._wanted if self._number is None else None

    def sent(self, number: int) -> None:
        """The probe that was due left as packet `number`."""
        self._number = number

    def suspect(self) -> None:
        """Large packets are lost while others arrive."""
        if self._wanted is None and self.mtu > LEAST:
            self._wanted = self.mtu

    def on_fate(self, number: int, good: bool, now: float) -> None:
        """A packet was acknowledged or lost; others than the probe are ignored."""
        if number != self._number or self._wanted is None:
            return
        self._number = None
        size, self._lost = self._wanted, 0 if good else self._lost + 1
        if good:
            self.mtu = self._low = size
        elif self._lost < MAX_PROBES:
            return
        else:
            self._lost = 0
            self._high = size
            if size <= self.mtu:  # what is in use does not pass
                self._low = LEAST
                self.mtu = self._wanted = BASE if size > BASE else LEAST
                if size > BASE:
                    return
        self._wanted = (self._low + self._high) // 2 if self._high - self._low > GRAIN else None
        if self._wanted is None and self._high <= self._largest:
            self._raise_at = now + RAISE_TIME
