"""The kinds of fault, and what each may cost: one table. Pure.

`scope` says which tunnels may lose, reorder or be late with packets: none; the one whose worker or TUN is hit; the
three of a WAN; all nine, where the host itself is hit. Everybody else loses nothing. `bound` is how many seconds
after the fault's end those in scope may still lose packets, and everything must be UP.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tools.product import Side

Victim = Literal["worker", "zygote", "supervisor", "portal", "tun", "wan", "host"]
Scope = Literal["none", "tunnel", "wan", "all"]

BOTH: tuple[Side, ...] = ("site", "hub")
SITE: tuple[Side, ...] = ("site",)


class Kind(msgspec.Struct, frozen=True):
    """One kind. `weight` is how often it comes in a round of the plan, `lasting` the range of its duration in s."""

    name: str
    victim: Victim
    scope: Scope
    weight: int = 1
    bound: float = 3.0
    lasting: tuple[float, float] = (0.0, 0.0)
    sides: tuple[Side, ...] = BOTH


KINDS = (
    # Processes. A SIGSTOPped worker is ended by the watchdog after 1.5 s, or 6 s where the host may be short of CPU.
    Kind("worker.kill", "worker", "tunnel", weight=6),
    Kind("worker.segv", "worker", "tunnel", weight=2),
    Kind("worker.term", "worker", "tunnel", weight=2),
    Kind("worker.stop", "worker", "tunnel", weight=2, bound=9.0),
    Kind("worker.pause", "worker", "tunnel", weight=2, lasting=(0.1, 1.0)),
    Kind("worker.restart", "worker", "none", weight=3),
    Kind("zygote.kill", "zygote", "none", weight=2),
    Kind("zygote.stop", "zygote", "none"),
    Kind("supervisor.pause", "supervisor", "none", lasting=(0.2, 2.0)),
    Kind("supervisor.kill", "supervisor", "none", bound=8.0),
    Kind("supervisor.segv", "supervisor", "none", bound=8.0),
    Kind("supervisor.stop", "supervisor", "none", lasting=(0.5, 3.0), bound=8.0),
    Kind("supervisor.restart", "supervisor", "none", bound=8.0),
    Kind("service.stop", "supervisor", "all", bound=8.0),
    Kind("portal.kill", "portal", "none"),
    Kind("portal.stop", "portal", "none", lasting=(0.5, 3.0)),  # nobody ends it: it goes on
    # What a host runs short of, while a worker dies.
    Kind("disk.full", "worker", "tunnel", lasting=(0.5, 1.0)),
    Kind("descriptors.none", "worker", "tunnel", lasting=(0.5, 1.0), bound=6.0),
    Kind("memory.none", "worker", "tunnel", bound=6.0),
    # The wall clock of both ends' processes jumps, and back again.
    Kind("clock.jump", "host", "none", lasting=(0.5, 2.0)),
    # Interfaces, addresses, ways.
    Kind("tun.delete", "tun", "tunnel", bound=6.0),
    Kind("wan.down", "wan", "wan", lasting=(0.3, 1.5), sides=SITE),
    Kind("wan.remove", "wan", "wan", lasting=(0.3, 1.5), sides=SITE),
    Kind("wan.carrier", "wan", "wan", lasting=(1.0, 2.0), sides=SITE),
    Kind("wan.address", "wan", "wan", sides=SITE),
    Kind("wan.blackout", "wan", "wan", lasting=(0.2, 3.0), sides=SITE, bound=6.0),
    Kind("wan.rebind", "wan", "wan", weight=2, sides=SITE),
    Kind("hub.address", "host", "all", lasting=(0.3, 2.0), sides=("hub",), bound=6.0),
)
BY_NAME = {kind.name: kind for kind in KINDS}
