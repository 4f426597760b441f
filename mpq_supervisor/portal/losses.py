"""Loss ratios as alarms see them: means of the last seconds. Pure.

Of one second alone they say little where little is sent: of ten packets a second, of which a tenth is lost, a third
of all seconds lose none and a quarter two or more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import fmean

from mpq_supervisor.portal.state import Tunnel

WINDOW = 10.0
"""Seconds."""

Ratios = tuple[float | None, float | None]
"""Sent and received, 0..1; None where nothing was sent, or nothing is known."""


class Losses:
    """Of every path of every tunnel. Times are monotonic."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, deque[tuple[float, Ratios]]]] = {}  # by tunnel and site, with their times

    def hear(self, tunnels: Iterable[Tunnel], now: float) -> None:
        """Takes what these paths tell now; what is known of others is forgotten."""
        before, self._heard = self._heard, {}
        for tunnel in tunnels:
            known = before.get(tunnel.status.name, {})
            paths = self._heard[tunnel.status.name] = {}
            for path in tunnel.paths(""):
                heard = paths[path.site] = known.get(path.site, deque())
                heard.append((now, (path.stats.loss_tx, path.stats.loss_rx)))
                while now - heard[0][0] >= WINDOW:
                    heard.popleft()

    def of(self, tunnel: Tunnel) -> list[Ratios]:
        """The means of each path's."""
        return [
            (_mean(ratios[0] for _, ratios in heard), _mean(ratios[1] for _, ratios in heard))
            for heard in self._heard.get(tunnel.status.name, {}).values()
        ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
