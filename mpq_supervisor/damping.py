"""Links that come and go all the time count as away until they have been still for a while (after RFC 2439). Pure.

Falls are counted, not changes: a WAN that gets another address every second is worth following. A link that has
fallen more than `FREE_FALLS` times within `WINDOW` seconds is held until `HOLD` seconds after its last change; so a
loose plug costs a tunnel one outage and not a reconnect for each contact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from mpq_supervisor.network import LinkState

FREE_FALLS = 5
WINDOW = 10.0
HOLD = 3.0


class Damper:
    """What the fleet is told of the WANs."""

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}

    def step(self, states: Mapping[str, tuple[LinkState, bool]], now: float) -> dict[str, LinkState]:
        """The states to act on, for the true ones, each with whether it can be used."""
        self._histories = {wan: self._histories.get(wan) or _History() for wan in states}
        return {wan: self._histories[wan].step(state, usable, now) for wan, (state, usable) in states.items()}

    def wakes_at(self) -> float | None:
        """When `step` will say something else even if nothing changes; None if never."""
        return min((h.held_until for h in self._histories.values() if h.held_until is not None), default=None)


class _History:
    def __init__(self) -> None:
        self.held_until: float | None = None
        self._state: LinkState | None = None
        self._usable = False
        self._falls: deque[float] = deque(maxlen=FREE_FALLS + 1)

    def step(self, state: LinkState, usable: bool, now: float) -> LinkState:
        if self._usable and not usable:
            self._falls.append(now)
        often = len(self._falls) > FREE_FALLS and now - self._falls[0] <= WINDOW
        if state != self._state and (often or self.held_until is not None):
            self.held_until = now + HOLD
        elif self.held_until is not None and now >= self.held_until:
            self.held_until = None
            self._falls.clear()
        self._state, self._usable = state, usable
        return state if self.held_until is None else msgspec.structs.replace(state, flaps=True)
