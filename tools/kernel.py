"""One end's network in the kernel, by a netlink connection of its own: what is there, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from mpq_supervisor.config import load
from mpq_supervisor.desired import Desired, desired
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.plan import make_plan
from tools.product import Side
from tools.system import System


class Kernel:
    """One end's. While all its tunnels are up, `differences` is empty as soon as mpq has done its work."""

    def __init__(self, netlink: Netlink, system: System, side: Side) -> None:
        self.netlink = netlink
        self.plan = make_plan(load(system.configs[side]))

    def entries(self) -> Desired:
        """The rules, routes and addresses that are mpq's."""
        there = self.netlink.snapshot()
        tuns = {worker.tun for worker in self.plan.workers}
        return Desired(
            addresses=frozenset(a for a in there.assigned if a.interface in tuns),
            lan_addresses=tuple(a for a in there.own_addresses if a.interface not in tuns),
            routes=self.netlink.own_routes(there.links),
            rules=self.netlink.own_rules(),
        )

    def differences(self) -> list[str]:
        """What should be there and is not, and what is there and should not be."""
        want, there = desired(self.plan, self.netlink.snapshot()), self.entries()
        pairs = ((want.rules, there.rules), (want.routes, there.routes), (want.addresses, there.addresses))
        return [
            f"{word}: {entry}"
            for wanted, found in pairs
            for word, entries in (("missing", wanted - found), ("too much", found - wanted))
            for entry in entries
        ]


@contextmanager
def kernel(system: System, side: Side) -> Iterator[Kernel]:
    """Looks at one end; everything that is done with it is done there."""
    with system.inside(side):
        netlink = Netlink()
    with closing(netlink):
        yield Kernel(netlink, system, side)
