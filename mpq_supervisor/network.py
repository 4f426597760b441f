"""What the kernel's network should look like: HostPlan and what is there → desired state. Pure.

A site's rules, in this order (IPv4 and IPv6; `base` is `supervisor.rule_priority`):

    base        everything              → LAN table: what is behind our own LANs is local, whoever asks
    base + 10   from a WAN's address    → the WAN's own table, so that its packets leave by it
    base + 20   from a tunnel's address → the tunnel's table
                out of its TUN          → the tunnel's table
    base + 30   with a tunnel's mark    → the tunnel's table
    base + 40   in from a LAN           → unreachable: LAN traffic never gets as far as the main table

A tunnel's table is `default` and the hub's inner address by the TUN, and `unreachable default` at the highest
metric. The TUN's routes die with the TUN, the backstop does not: closed when dead (ARCHITECTURE 2).
A hub has host and prefix routes to the TUN of the class in the main table, over the same kind of backstop.

`desired` is the whole of it, `closed` what stays when mpq has stopped and its traffic must be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_interface, ip_network

import msgspec

from mpq_supervisor.plan import ClassPlan, HostPlan, WanPlan
from mpq_worker.contract import TrafficClass

MAIN_TABLE = 254
PROTOCOL = 109  # rtm_protocol and FRA_PROTOCOL of all that is ours; none of rtnetlink(7)'s
METRIC = 1024  # the kernel's own default in IPv6
BACKSTOP_METRIC = 0xFFFFFFFF
ANY = {4: "0.0.0.0/0", 6: "::/0"}

SHAPER_HANDLE = 0x6D70  # "mp": by this major number the root qdisc is known as ours
LEAF_DELAY = 0.020  # seconds of traffic that a leaf may queue
LEAF_MINIMUM = 10 * 1514  # bytes: enough for a burst of ten full packets on a slow link
ASSURED = 0.01  # share of the rate that default and bulk each get against a critical that wants everything


class Link(msgspec.Struct, frozen=True):
    """An interface as the kernel has it."""

    name: str
    index: int
    up: bool
    carrier: bool
    mtu: int
    txqueuelen: int


class Address(msgspec.Struct, frozen=True):
    """A usable address (global scope; not tentative, deprecated, secondary or temporary) of an interface."""

    interface: str
    address: str
    prefix: int

    def __str__(self) -> str:
        return f"address {self.address}/{self.prefix} dev {self.interface}"

    @property
    def version(self) -> int:
        """4 or 6."""
        return version_of(self.address)


class Route(msgspec.Struct, frozen=True):
    """One route; without an interface it is an `unreachable` one. `destination` is a prefix in text."""

    table: int
    destination: str
    interface: str | None = None
    gateway: str | None = None
    metric: int = METRIC
    source: str | None = None

    def __str__(self) -> str:
        words = [f"route {self.destination}"] if self.interface else [f"route unreachable {self.destination}"]
        words += [f"via {self.gateway}"] if self.gateway else []
        words += [f"dev {self.interface}"] if self.interface else []
        words += [f"src {self.source}"] if self.source else []
        return " ".join([*words, f"table {self.table} metric {self.metric}"])

    @property
    def version(self) -> int:
        """4 or 6."""
        return version_of(self.destination)

    @property
    def is_default(self) -> bool:
        """Covers every address of its family."""
        return self.destination in ANY.values()

    @property
    def key(self) -> tuple[int, str, int]:
        """Two routes of one key replace each other in the kernel."""
        return self.table, self.destination, self.metric


class Rule(msgspec.Struct, frozen=True):
    """One policy rule; without a table its action is `unreachable`, without selectors it is for everything."""

    version: int
    priority: int
    table: int | None = None
    source: str | None = None
    mark: int | None = None
    mask: int | None = None
    input: str | None = None
    output: str | None = None

    def __str__(self) -> str:
        selectors = [("from", self.source), ("iif", self.input), ("oif", self.output)]
        words = [f"{word} {value}" for word, value in selectors if value is not None]
        words += [f"fwmark {self.mark:#x}/{self.mask or 0:#x}"] if self.mark is not None else []
        action = "unreachable" if self.table is None else f"lookup {self.table}"
        return " ".join([f"IPv{self.version} rule {self.priority}:", *(words or ["from all"]), action])


class TunLink(msgspec.Struct, frozen=True):
    """How a TUN of ours must be set; it is always up."""

    name: str
    mtu: int
    txqueuelen: int

    def __str__(self) -> str:
        return f"link {self.name} mtu {self.mtu} txqueuelen {self.txqueuelen} up"


class ShaperClass(msgspec.Struct, frozen=True):
    """An HTB class. Rates in bytes per second, `limit` of its leaf in bytes; without `dscp`, for the rest."""

    minor: int
    prio: int
    rate: int
    ceil: int
    limit: int
    dscp: int | None = None


class Shaper(msgspec.Struct, frozen=True):
    """HTB on one WAN: a class of the whole rate (minor 1) over one leaf per traffic class."""

    interface: str
    rate: int
    classes: tuple[ShaperClass, ...]

    def __str__(self) -> str:
        return f"HTB of {self.rate * 8 / 1e6:g} Mbit/s on {self.interface}"


class Snapshot(msgspec.Struct, frozen=True):
    """What is there. `routes` are those of the main table that are not ours, lowest metric first."""

    links: dict[str, Link] = {}
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    ipv6: bool = True


class Desired(msgspec.Struct, frozen=True):
    """What should be there. The default is nothing at all."""

    links: frozenset[TunLink] = frozenset()
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    shapers: frozenset[Shaper] = frozenset()


class LinkState(msgspec.Struct, frozen=True):
    """A WAN as it is now. `index` is 0 and everything else empty while the interface is missing."""

    wan: str
    interface: str
    index: int = 0
    carrier: bool = False
    address4: str | None = None
    address6: str | None = None
    gateway4: str | None = None
    gateway6: str | None = None
    routes: tuple[Route, ...] = ()

    @property
    def present(self) -> bool:
        """The interface exists."""
        return self.index != 0

    def local_address(self, version: int) -> str | None:
        """The address to send from, of IP version 4 or 6."""
        return self.address4 if version == 4 else self.address6

    def reach(self, remotes: Iterable[str]) -> tuple[str, str] | None:
        """(local, remote) for the first of `remotes` that this WAN has an address and a route for."""
        if not self.carrier:
            return None
        for remote in remotes:
            local = self.local_address(version_of(remote))
            if local is not None and any(_covers(route.destination, remote) for route in self.routes):
                return local, remote
        return None


def version_of(address: str) -> int:
    """IP version of an address or prefix in text."""
    return 6 if ":" in address else 4


def link_state(wan: WanPlan, snapshot: Snapshot) -> LinkState:
    """What the kernel says about a WAN; nothing else (lease files, …) is asked (FIELD 8)."""
    link = snapshot.links.get(wan.interface)
    if link is None:
        return LinkState(wan.name, wan.interface)
    routes = tuple(route for route in snapshot.routes if route.interface == wan.interface)
    defaults = {v: next((r for r in routes if r.is_default and r.version == v), None) for v in (4, 6)}
    address4, address6 = (_pick_address(wan.interface, v, defaults[v], snapshot) for v in (4, 6))
    gateway4, gateway6 = (route.gateway if route else None for route in defaults.values())
    return LinkState(
        wan=wan.name,
        interface=wan.interface,
        index=link.index,
        carrier=link.up and link.carrier,
        address4=address4,
        address6=address6,
        gateway4=gateway4,
        gateway6=gateway6,
        routes=routes,
    )


def desired(plan: HostPlan, snapshot: Snapshot) -> Desired:
    """Everything that mpq wants of this host's network while it runs."""
    return _site(plan, snapshot) if plan.role == "site" else _hub(plan, snapshot)


def closed(plan: HostPlan, snapshot: Snapshot) -> Desired:
    """What remains of `desired` when mpq has stopped and LAN traffic must be refused, not sent in clear."""
    if plan.role == "hub":
        return Desired(routes=frozenset(_hub_backstops(plan, snapshot)))
    routes = (*_tunnel_backstops(plan, snapshot), *_lan_routes(plan, snapshot))
    rules = frozenset((*_lan_rules(plan, snapshot), *_mark_rules(plan, snapshot)))
    return Desired(routes=frozenset(routes), rules=rules)


def shaper(wan: WanPlan, classes: Iterable[ClassPlan]) -> Shaper | None:
    """HTB for a WAN whose rate is known.

    Classes borrow in the order of `prio`, but what a class is assured comes before what others borrow. So
    critical is assured nearly all and the others next to nothing: strict preference without starvation.
    """
    if wan.rate_mbit is None:
        return None
    total = int(wan.rate_mbit * 1e6 / 8)
    small = max(1, int(total * ASSURED))
    by_class = {plan.traffic_class: plan for plan in classes}
    leaves = []
    for place, traffic_class in enumerate(TrafficClass):  # critical, default, bulk
        plan = by_class.get(traffic_class)
        leaves.append(
            ShaperClass(
                minor=16 * (place + 1),
                prio=place,
                rate=total - 2 * small if place == 0 else small,
                ceil=total,
                limit=max(LEAF_MINIMUM, int(total * LEAF_DELAY)),
                dscp=plan.dscp if plan and traffic_class is not TrafficClass.DEFAULT else None,
            )
        )
    return Shaper(wan.interface, total, tuple(leaves))


def _site(plan: HostPlan, snapshot: Snapshot) -> Desired:
    remaining = closed(plan, snapshot)
    base = plan.supervisor.rule_priority
    routes, rules, addresses = set(remaining.routes), set(remaining.rules), set()
    for wan in plan.wans:
        state = link_state(wan, snapshot)
        routes.update(_copies(state.routes, wan.table))
        for address in (state.address4, state.address6):
            if address is not None:
                rules.add(Rule(version_of(address), base + 10, table=wan.table, source=address))
    for tunnel in plan.tunnels:
        for address in tunnel.inner:
            addresses.add(_host_address(tunnel.tun, address))
            rules.add(Rule(version_of(address), base + 20, table=tunnel.table, source=address))
            routes.add(Route(tunnel.table, ANY[version_of(address)], tunnel.tun))
        routes.update(Route(tunnel.table, _host_prefix(peer), tunnel.tun) for peer in tunnel.peers)
        rules.update(Rule(v, base + 20, table=tunnel.table, output=tunnel.tun) for v in _versions(snapshot))
    return Desired(
        links=frozenset(TunLink(t.tun, t.mtu, t.txqueuelen) for t in plan.tunnels),
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        rules=frozenset(rules),
        shapers=frozenset(s for wan in plan.wans if (s := shaper(wan, plan.classes))),
    )


def _hub(plan: HostPlan, snapshot: Snapshot) -> Desired:
    return Desired(
        links=frozenset(TunLink(w.tun, w.mtu, w.txqueuelen) for w in plan.hub_workers),
        addresses=frozenset(_host_address(w.tun, a) for w in plan.hub_workers for a in w.inner),
        routes=frozenset(Route(MAIN_TABLE, r, w.tun) for w in plan.hub_workers for r in w.routes)
        | frozenset(_hub_backstops(plan, snapshot)),
    )


def lan_table(plan: HostPlan) -> int:
    """The table of our LANs' own routes: below those of the WANs (plan: base - 10 + suffix, from 1)."""
    return plan.supervisor.table_base - 10


def _tunnel_backstops(plan: HostPlan, snapshot: Snapshot) -> Iterator[Route]:
    for tunnel in plan.tunnels:
        for version in _versions(snapshot):
            yield Route(tunnel.table, ANY[version], metric=BACKSTOP_METRIC)


def _hub_backstops(plan: HostPlan, snapshot: Snapshot) -> Iterator[Route]:
    for worker in plan.hub_workers:
        for prefix in (*worker.subnets, *(p for site in worker.sites for p in site.prefixes)):
            if version_of(prefix) in _versions(snapshot):
                yield Route(MAIN_TABLE, prefix, metric=BACKSTOP_METRIC)


def _lan_routes(plan: HostPlan, snapshot: Snapshot) -> Iterator[Route]:
    interfaces = {lan.interface for lan in plan.lans}
    behind = (r for r in snapshot.routes if r.interface in interfaces and not r.is_default)
    return _copies(behind, lan_table(plan))


def _copies(routes: Iterable[Route], table: int) -> Iterator[Route]:
    """The same routes in another table; of several that would replace each other there, the first."""
    copies: dict[tuple[int, str, int], Route] = {}
    for route in routes:
        copy = msgspec.structs.replace(route, table=table)
        copies.setdefault(copy.key, copy)
    return iter(copies.values())


def _lan_rules(plan: HostPlan, snapshot: Snapshot) -> Iterator[Rule]:
    base = plan.supervisor.rule_priority
    for version in _versions(snapshot):
        if plan.lans:
            yield Rule(version, base, table=lan_table(plan))
        for lan in plan.lans:
            yield Rule(version, base + 40, input=lan.interface)


def _mark_rules(plan: HostPlan, snapshot: Snapshot) -> Iterator[Rule]:
    mask, priority = plan.supervisor.mark_mask, plan.supervisor.rule_priority + 30
    for tunnel in plan.tunnels:
        for version in _versions(snapshot):
            yield Rule(version, priority, table=tunnel.table, mark=tunnel.mark, mask=mask)


def _pick_address(interface: str, version: int, default: Route | None, snapshot: Snapshot) -> str | None:
    """The address of the default route, else one in its gateway's subnet, else the first."""
    mine = [a for a in snapshot.addresses if a.interface == interface and a.version == version]
    texts = [a.address for a in mine]
    if default is not None and default.source in texts:
        return default.source
    if default is not None and default.gateway is not None:
        gateway = ip_address(default.gateway)
        for address in mine:
            if gateway in ip_interface(f"{address.address}/{address.prefix}").network:
                return address.address
    return texts[0] if texts else None


def _versions(snapshot: Snapshot) -> tuple[int, ...]:
    return (4, 6) if snapshot.ipv6 else (4,)


def _covers(prefix: str, address: str) -> bool:
    return ip_address(address) in ip_network(prefix)


def _host_prefix(address: str) -> str:
    return f"{address}/{32 if version_of(address) == 4 else 128}"


def _host_address(interface: str, address: str) -> Address:
    return Address(interface, address, 32 if version_of(address) == 4 else 128)
