"""The lab: a site, a hub, the Internet between them, a LAN host and a server, in network namespaces of one machine.

The picture is in `topology.py`, what a stage does in `stage.py`:

    with Lab() as lab:
        for wan in WANS:
            lab.delay(wan, 20)
        lab.start("hub", hub_toml)
        lab.start("site", site_toml)
        lab.loss(Flow(sports=(41002,)), 30)      # the outer flow of one tunnel, in the router
        lab.run("lan", ["ping", "-c", "3", SERVER])

Everything that can be set on the way (loss, rate, delay, reordering, carrier, address) may be set again at any time.
"""

from __future__ import annotations

import json

import msgspec

from tools import namespaces, topology
from tools.product import Side
from tools.relay import LineStats, Relay
from tools.stage import Stage
from tools.topology import WANS, Direction, Flow, Loss, Role


class Count(msgspec.Struct, frozen=True):
    """Packets of a flow that the router saw since its loss was set, and how many of these it dropped."""

    seen: int
    lost: int


class Leaks(msgspec.Struct, frozen=True):
    """Packets with an inner address that left the site or the hub outside a tunnel; the router dropped them."""

    site: int
    hub: int


class Lab(Stage):
    """A stage with the Internet in it; without a relay WANs are plain veth. `seed` makes reordering repeatable."""

    def __init__(self, prefix: str | None = None, *, relay: bool = True, seed: int = 1) -> None:
        super().__init__(prefix)
        self._with_relay = relay
        self._seed = seed
        self._relay: Relay | None = None
        self._losses: dict[Flow, Loss] = {}
        self._bindings: dict[int, int] = {}  # how often each WAN behind a NAT was bound
        self._addresses = {(k, v): a for k in WANS for v, a in ((4, f"100.64.{k}.2/24"), (6, f"2001:db8:{k}::2/64"))}

    def close(self) -> None:
        """End what runs in the lab and delete it. May be called again."""
        super().close()  # kills the relay too
        if self._relay:
            self._relay.close()
        self._relay = None

    # ---- the Internet ----

    def loss(self, flow: Flow, percent: float, direction: Direction = "both") -> None:
        """Drop this share of a flow in the router (steps of 0.1 %); 0 only counts it. All counts start again at 0."""
        self._losses[flow] = Loss(flow, round(percent * 10), direction)
        self._apply_losses()

    def drop_all(self, flow: Flow, direction: Direction = "both") -> None:
        """A black hole in the middle of the network."""
        self.loss(flow, 100, direction)

    def clear_loss(self) -> None:
        """No loss and no counting."""
        self._losses.clear()
        self._apply_losses()

    def loss_counts(self) -> dict[Flow, Count]:
        """What became of each flow since the last change of any loss, both directions together."""
        counters = self.counters("loss")
        return {flow: Count(counters[f"seen{i}"], counters[f"lost{i}"]) for i, flow in enumerate(self._losses)}

    def leaks(self) -> Leaks:
        """Packets in clear that the router met since the lab was built."""
        counters = self.counters("leak")
        return Leaks(counters["site"], counters["hub"])

    def rate(self, wan: int, mbit: float | None, direction: Direction = "both") -> None:
        """Limit a WAN at the router's port by TBF with a queue of 50 ms, or lift the limit (None)."""
        ports = {"up": (self.name("link"), f"u{wan}"), "down": (self.name("router"), f"r{wan}")}
        for way in topology.directions(direction):
            namespace, device = ports[way]
            tc = ["tc", "-n", namespace, "qdisc"]
            # Deleting what is not there is an error, so that lifting means putting in what a veth has by default.
            qdisc = topology.tbf(mbit) if mbit else "noqueue"
            namespaces.feed([*tc, "replace", "dev", device, "root", *qdisc.split()], "")

    def delay(self, wan: int, rtt_ms: float) -> None:
        """Round-trip time that a WAN adds, half of it each way."""
        for port in (f"s{wan}", f"u{wan}"):
            self.relay.delay(port, round(rtt_ms * 500))

    def reorder(self, wan: int, percent: float, extra_ms: float, direction: Direction = "both") -> None:
        """Hold this share of a WAN's frames longer, so that later ones overtake them."""
        for way in topology.directions(direction):
            self.relay.reorder(self._entry(wan, way), round(percent * 1e4), round(extra_ms * 1e3))

    def carrier(self, wan: int, up: bool) -> None:
        """Pull or plug the cable of a site's WAN; the kernel tells of it up to 1 s later (it rations link events)."""
        role: Role = "link" if self._with_relay else "router"
        port = f"s{wan}" if self._with_relay else f"r{wan}"
        namespaces.batch([f"link set {port} {'up' if up else 'down'}"], ["ip", "-n", self.name(role)])

    def address(self, wan: int, new: str) -> None:
        """Give a WAN another address (`100.64.44.2/24`, or IPv6), and the router the first one of that subnet."""
        version = 6 if ":" in new else 4
        old, self._addresses[wan, version] = self._addresses[wan, version], new
        replace = [
            f"addr del {topology.router_address(old)} dev r{wan}",
            f"addr add {topology.router_address(new)} dev r{wan}{' nodad' * (version == 6)}",
        ]
        namespaces.batch(replace, ["ip", "-n", self.name("router")])
        namespaces.batch(topology.wan_lease(wan, new), ["ip", "-n", self.name("site")])
        self._apply_nat()

    def remove_wan(self, wan: int) -> None:
        """Take the interface away from the site, as when a modem is unplugged."""
        namespaces.batch([f"link set wan{wan} netns {self.name('link')}"], ["ip", "-n", self.name("site")])

    def return_wan(self, wan: int) -> None:
        """Give it back: same name, another index."""
        namespaces.batch([f"link set wan{wan} netns {self.name('site')}"], ["ip", "-n", self.name("link")])
        self.renew(wan)

    def renew(self, wan: int) -> None:
        """Have the WAN up with a lease of the addresses that it had."""
        lines = [line for version in (4, 6) for line in topology.wan_lease(wan, self._addresses[wan, version])]
        namespaces.batch([f"link set wan{wan} up", *lines], ["ip", "-n", self.name("site")])

    def rebind(self, wan: int) -> None:
        """Put the WAN's IPv4 behind a NAT, or give it another public address there; the old one is then dead."""
        self._bindings[wan] = self._bindings.get(wan, 0) + 1
        self._apply_nat()

    def limit_disk(self, side: Side, size: str) -> None:
        """Have one end keep its files on a disk of its own of this size (`256k`); before it is started."""
        directory = self.directory / side
        directory.mkdir(mode=0o755)
        namespaces.feed(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(directory)], "")

    @property
    def relay(self) -> Relay:
        """The relay, for its pid; raises `RuntimeError` in a lab that has none."""
        if not self._relay:
            raise RuntimeError("this lab has no relay")
        return self._relay

    def relay_stats(self, wan: int) -> dict[str, LineStats]:
        """The relay's counters of one WAN, by direction (`up`, `down`)."""
        stats = self.relay.stats()
        return {way: stats[self._entry(wan, way)] for way in topology.directions("both")}

    # ---- helpers ----

    def _build(self) -> None:
        roles = [role for role in topology.ROLES if role != "link" or self._with_relay]
        namespaces.batch(f"netns add {self.name(role)}" for role in roles)
        for role in roles:
            namespaces.write_sysctls(self.name(role), topology.sysctls(role))
        namespaces.batch(topology.links(self.prefix, self._with_relay))
        for role in roles:
            namespaces.batch(topology.addresses(role), ["ip", "-n", self.name(role)])
        namespaces.batch(topology.lan_rules6(), ["ip", "-6", "-n", self.name("lan")])
        self._nft(topology.leak_table())
        self._apply_losses()
        if self._with_relay:
            self._segment_early()
            pairs = [(f"s{k}", f"u{k}") for k in WANS]
            self._relay = Relay(namespaces.enter(self.name("link")), pairs, self._seed)

    def _segment_early(self) -> None:
        """Have the kernel cut UDP super-packets before they enter the Internet, as a network card would.

        Else the router's loss would take 40 datagrams at a stroke and count one.
        """
        outer: list[tuple[Role, str]] = [("hub", "ens3"), *(("site", f"wan{k}") for k in WANS)]
        for role, device in outer:
            self.run(role, ["ethtool", "-K", device, "tx-udp-segmentation", "off"])

    def _apply_losses(self) -> None:
        self._nft(topology.loss_table(list(self._losses.values())))

    def _apply_nat(self) -> None:
        self._nft(topology.nat_table({k: (self._addresses[k, 4], n) for k, n in self._bindings.items()}))

    def _nft(self, text: str) -> None:
        namespaces.feed([*namespaces.enter(self.name("router")), "nft", "-f", "-"], text)

    def counters(self, table: str) -> dict[str, int]:
        """Packets by counter of one of the router's nft tables (`inet`)."""
        listing = json.loads(self.run("router", ["nft", "-j", "list", "counters", "table", "inet", table]).stdout)
        counters = [entry["counter"] for entry in listing["nftables"] if "counter" in entry]
        return {counter["name"]: counter["packets"] for counter in counters}

    def _entry(self, wan: int, direction: Direction) -> str:
        """The relay's port where frames of that direction enter."""
        return f"s{wan}" if direction == "up" else f"u{wan}"
