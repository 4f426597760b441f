"""Events of a site's WAN links, by a seed.

carrier   the cable is pulled for a while            down      the interface is set down for a while
address   DHCP gives another address and gateway     gateway   another gateway, the address stays
removal   the interface goes, and comes back with another index
storm     a loose plug: up and down, again and again
"""

from __future__ import annotations

import random
from typing import NamedTuple

from tools.lab import Lab
from tools.topology import WANS
from tools.wait import pause

KINDS = ("carrier", "down", "address", "address6", "gateway", "removal", "storm")
LASTING = (0.1, 2.0)
CONTACTS = (6, 12)


class Event(NamedTuple):
    """What happens to a WAN: for how long, or how often."""

    kind: str
    wan: int
    seconds: float
    times: int


def make_plan(seed: int, count: int) -> list[Event]:
    """The first events of a seed; of as many as there are kinds, each is of another."""
    chance = random.Random(seed)
    events: list[Event] = []
    while len(events) < count:
        for kind in chance.sample(KINDS, len(KINDS)):
            seconds, times = round(chance.uniform(*LASTING), 2), chance.randint(*CONTACTS)
            events.append(Event(kind, chance.choice(WANS), seconds, times))
    return events[:count]


class Changer:
    """Does events, and knows the networks that the WANs are in by now."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._moves = 0
        self._network = {wan: f"100.64.{wan}" for wan in WANS}

    def do(self, event: Event) -> None:
        """Returns when it is over."""
        lab, wan, device = self._lab, event.wan, f"wan{event.wan}"
        self._moves += 1
        match event.kind:
            case "carrier":
                lab.carrier(wan, False)
                pause(event.seconds)
                lab.carrier(wan, True)
            case "down":
                self._down(wan, event.seconds)
            case "address":
                self._network[wan] = f"100.{65 + self._moves % 60}.{wan}"
                lab.address(wan, f"{self._network[wan]}.2/24")
            case "address6":
                lab.address(wan, f"2001:db8:{wan}:{self._moves:x}::2/64")
            case "gateway":
                gateway = f"{self._network[wan]}.{100 + self._moves % 100}"
                lab.run("router", ["ip", "address", "replace", f"{gateway}/24", "dev", f"r{wan}"])
                route = f"ip route replace default via {gateway} dev {device} proto dhcp metric {100 + wan}"
                lab.run("site", route.split())
            case "removal":
                lab.remove_wan(wan)
                pause(event.seconds)
                lab.return_wan(wan)
            case "storm":
                for _ in range(event.times):
                    self._down(wan, 0.05)
                    pause(0.05)

    def _down(self, wan: int, seconds: float) -> None:
        self._lab.run("site", ["ip", "link", "set", f"wan{wan}", "down"])
        pause(seconds)
        self._lab.renew(wan)
