"""How often tunnels went down, as `flapping` counts it; the next portal goes on with it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Mapping

import msgspec

from mpq_supervisor.life import SERVING
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.state import Tunnel
from mpq_supervisor.schema import MAX_FALLS

_PLANNED = "order"
"""The cause of restarts that are no falls (`lifecycle.cause`)."""


class Known(msgspec.Struct, frozen=True):
    """What outlives the portal of a tunnel: whether it served, its faults so far, and when it fell, in Unix time."""

    served: bool
    faults: int
    falls: tuple[float, ...]


class _Tunnel:
    def __init__(self, known: Known, now: float, wall: float) -> None:
        self.served, self.faults = known.served, known.faults
        self.here = False  # whether this portal has heard of it
        falls = ((now - max(0.0, wall - then), then) for then in known.falls)  # the clock may have been set back
        self.falls = deque(falls, MAX_FALLS)  # monotonic and Unix time


class Falls:
    """Those of the last `keep` seconds. Times are monotonic except `wall`."""

    def __init__(self, keep: float, known: Mapping[str, Known], now: float, wall: float) -> None:
        self._keep = keep
        self._tunnels = {name: _Tunnel(entry, now, wall) for name, entry in known.items()} if keep else {}

    def known(self) -> dict[str, Known]:
        """For the next portal."""
        return {
            name: Known(entry.served, entry.faults, tuple(wall for _, wall in entry.falls))
            for name, entry in self._tunnels.items()
        }

    def hear(self, tunnels: Iterable[Tunnel], now: float, wall: float) -> None:
        """Falls that are seen, and those that the causes tell of: it may serve again before anybody looks."""
        for tunnel in tunnels if self._keep else ():
            status = tunnel.status
            if status.state is Life.STOPPING:  # perhaps by order, which the next state shows
                continue
            serves = status.state in SERVING
            faults = sum(count for cause, count in status.causes.items() if cause != _PLANNED)
            entry = self._tunnels.setdefault(status.name, _Tunnel(Known(False, faults, ()), now, wall))
            if status.state is Life.STOPPED:  # who starts it again begins afresh
                entry.falls.clear()
            elif entry.served:
                seen = entry.here and not serves  # not by this portal: another supervisor may be adopting it
                entry.falls.extend([(now, wall)] * max(faults - entry.faults, int(seen)))
            while entry.falls and now - entry.falls[0][0] >= self._keep:
                entry.falls.popleft()
            entry.served, entry.faults, entry.here = serves, faults, True

    def forget(self, names: Container[str]) -> None:
        """Keeps those of these tunnels only."""
        self._tunnels = {name: entry for name, entry in self._tunnels.items() if name in names}

    def count(self, tunnel: Tunnel, seconds: float, now: float) -> float:
        """How often it fell in the last `seconds`."""
        entry = self._tunnels.get(tunnel.status.name)
        return float(sum(now - then < seconds for then, _ in entry.falls)) if entry else 0.0
