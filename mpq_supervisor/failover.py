"""Which tunnels carry nothing, for so long that others shall carry their traffic. Pure.

A tunnel that has not been UP for `after` seconds counts as down, and only after `back` seconds of being UP without a
break as up again: neither a restart nor a flapping link moves anybody's traffic to and fro. Where no other carries
all of its traffic, and some would be refused, it counts as up as soon as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Failover:
    """Times in seconds; whoever has never been seen counts as up."""

    def __init__(self, after: float, back: float) -> None:
        self.after = after
        self.back = back
        self._down: set[str] = set()
        self._doubts: dict[str, float] = {}  # since when a tunnel has not been what it counts as

    def step(self, up: Mapping[str, bool], stand_ins: Mapping[str, Sequence[str]], now: float) -> frozenset[str]:
        """The tunnels that count as down, of those named in `up`; `stand_ins` are the others that may carry its
        traffic."""
        self._down &= up.keys()
        self._doubts = {
            name: self._doubts.get(name, now) for name, is_up in up.items() if is_up is (name in self._down)
        }
        for name, since in self._doubts.items():
            if name not in self._down:
                patience = self.after
            else:
                patience = self.back if any(other not in self._down for other in stand_ins[name]) else 0.0
            if now - since >= patience:
                self._down ^= {name}
        return frozenset(self._down)
