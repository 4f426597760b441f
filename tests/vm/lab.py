"""Makes, at boot, what is around the site (lab.service); for the tests, the way into it."""

from __future__ import annotations

from tests.vm import plan
from tools import namespaces, topology
from tools.stage import Stage
from tools.topology import WANS, Role

ROLES: tuple[Role, ...] = ("lan", "router", "hub", "server")


class Surroundings(Stage):
    """The namespaces of the machine. Entered once, by its maker, and never left; who only looks in does not enter."""

    def __init__(self) -> None:
        super().__init__("vm")

    def loss(self, wan: int, percent: int) -> None:
        """Drop this share of what comes from the hub by a WAN, at random."""
        loss = f" loss {percent}%" if percent else ""
        netem = f"qdisc replace dev r{wan} root netem delay {plan.RTT_MS}ms{loss} limit 5000"
        namespaces.batch([netem], ["tc", "-n", self.name("router")])

    def leaks(self) -> str:
        """The router's counters of packets that should have been in a tunnel."""
        return self.run("router", ["nft", "list", "counters", "table", "inet", "leak"]).stdout

    def _build(self) -> None:
        namespaces.batch(f"netns add {self.name(role)}" for role in ROLES)
        for role in ROLES:
            namespaces.write_sysctls(self.name(role), topology.sysctls(role))
        namespaces.batch(plan.links(self.prefix))
        # Tags as bytes in the frame, not as a note beside it.
        namespaces.feed(["ethtool", "-K", plan.TRUNK, "txvlan", "off"], "")
        namespaces.feed([*namespaces.enter(self.name("lan")), "ethtool", "-K", "trunk", "txvlan", "off"], "")
        for role in ROLES:
            lines = plan.lan_lines() if role == "lan" else topology.addresses(role)
            namespaces.batch(lines, ["ip", "-n", self.name(role)])
        namespaces.batch(plan.lan_rules6(), ["ip", "-6", "-n", self.name("lan")])
        namespaces.feed([*namespaces.enter(self.name("router")), "nft", "-f", "-"], topology.leak_table())
        for wan in WANS:
            self.loss(wan, 0)


if __name__ == "__main__":
    Surroundings().__enter__()
