"""The kernel's network as it is: links, addresses, routes, rules, and the state of a WAN that follows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

import msgspec

from mpq_supervisor.plan import WanPlan

MAIN_TABLE = 254
PROTOCOL = 109  # rtm_protocol and FRA_PROTOCOL of all that is ours; none of rtnetlink(7)'s
METRIC = 1024  # the kernel's own default in IPv6
BACKSTOP_METRIC = 0xFFFFFFFF
ANY = {4: "0.0.0.0/0", 6: "::/0"}


class Link(msgspec.Struct, frozen=True):
    """An interface as the kernel has it. `parent` is the index of the interface that it stands on, 0 for none, `vlan`
    the id of an 802.1Q interface; `tun_families` is whether the address families treat it as a TUN of ours
    (`netlink.set_tun`)."""

    name: str
    index: int
    up: bool
    carrier: bool
    mtu: int
    txqueuelen: int
    alias: str = ""
    parent: int = 0
    vlan: int | None = None
    tun_families: bool = False


class Address(msgspec.Struct, frozen=True):
    """An address of an interface; as every address here in the spelling of `ipaddress`, so that equal is the same."""

    interface: str
    address: str
    prefix: int

    def __str__(self) -> str:
        return f"address {self.address}/{self.prefix} dev {self.interface}"

    @property
    def version(self) -> int:
        """4 or 6."""
        return version_of(self.address)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """Its subnet."""
        return ip_interface(f"{self.address}/{self.prefix}").network


class Route(msgspec.Struct, frozen=True):
    """One route; without an interface it is an `unreachable` one, or with `throw` one at which the next rule goes on
    with the search. `destination` is a prefix in text, `attributes` is RTA_METRICS as the kernel has it: MTU, …"""

    table: int
    destination: str
    interface: str | None = None
    gateway: str | None = None
    metric: int = METRIC
    source: str | None = None
    throw: bool = False
    attributes: bytes = b""

    def __str__(self) -> str:
        kind = "" if self.interface else "throw " if self.throw else "unreachable "
        words = [f"route {kind}{self.destination}"]
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
    """One policy rule; with `goto` the next is that of this priority, else without a table its action is
    `unreachable`. Without selectors it is for everything."""

    version: int
    priority: int
    table: int | None = None
    source: str | None = None
    mark: int | None = None
    mask: int | None = None
    input: str | None = None
    output: str | None = None
    goto: int | None = None

    def __str__(self) -> str:
        selectors = [("from", self.source), ("iif", self.input), ("oif", self.output)]
        words = [f"{word} {value}" for word, value in selectors if value is not None]
        words += [f"fwmark {self.mark:#x}/{self.mask or 0:#x}"] if self.mark is not None else []
        action = "unreachable" if self.table is None else f"lookup {self.table}"
        action = action if self.goto is None else f"goto {self.goto}"
        return " ".join([f"IPv{self.version} rule {self.priority}:", *(words or ["from all"]), action])


class TunLink(msgspec.Struct, frozen=True):
    """How a TUN of ours must be set; it is always up."""

    name: str
    mtu: int
    txqueuelen: int

    def __str__(self) -> str:
        return f"link {self.name} mtu {self.mtu} txqueuelen {self.txqueuelen} up"


class Snapshot(msgspec.Struct, frozen=True):
    """What is there. `routes` are those of the main table that are not ours, lowest metric first. `addresses` are
    those to send from (global scope; not tentative, deprecated, secondary or temporary), `assigned` are all, and
    `own_addresses` those of these that carry our mark. `local` are the prefixes of what the kernel takes for itself:
    addresses, broadcasts, its loopback."""

    links: dict[str, Link] = {}
    addresses: tuple[Address, ...] = ()
    assigned: frozenset[Address] = frozenset()
    own_addresses: frozenset[Address] = frozenset()
    routes: tuple[Route, ...] = ()
    local: frozenset[str] = frozenset()
    ipv6: bool = True


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
    flaps: bool = False  # it came and went too often, and counts as away until it is still

    @property
    def present(self) -> bool:
        """The interface exists."""
        return self.index != 0

    @property
    def condition(self) -> tuple[str, str]:
        """How it is, as one stable word (ready, missing, carrier, flaps, address) and for people."""
        if not self.present:
            return "missing", f"no interface {self.interface}"
        if not self.carrier:
            return "carrier", f"{self.interface} has no carrier"
        if self.flaps:
            return "flaps", f"{self.interface} flaps, it counts as away until it is still"
        ends = [(self.address4, self.gateway4), (self.address6, self.gateway6)]
        words = [f"{address} via {gateway}" if gateway else address for address, gateway in ends if address]
        return ("ready", f"{self.interface} has {', '.join(words)}") if words else (
            "address", f"{self.interface} has no address",
        )  # fmt: skip

    def local_address(self, version: int) -> str | None:
        """The address to send from, of IP version 4 or 6."""
        return self.address4 if version == 4 else self.address6

    def reach(self, remotes: Iterable[str]) -> tuple[str, str] | None:
        """(local, remote) for the first of `remotes` that this WAN has an address and a route for."""
        if not self.carrier or self.flaps:
            return None
        for remote in remotes:
            local = self.local_address(version_of(remote))
            if local is not None and any(covers(route.destination, remote) for route in self.routes):
                return local, remote
        return None


def version_of(address: str) -> int:
    """IP version of an address or prefix in text."""
    return 6 if ":" in address else 4


def covers(prefix: str, address: str) -> bool:
    """Whether an address is in a prefix, both in text."""
    return ip_address(address) in ip_network(prefix)


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


def _pick_address(interface: str, version: int, default: Route | None, snapshot: Snapshot) -> str | None:
    """The address of the default route, else one in its gateway's subnet, else the first."""
    mine = [a for a in snapshot.addresses if a.interface == interface and a.version == version]
    texts = [a.address for a in mine]
    if default is not None and default.source in texts:
        return default.source
    if default is not None and default.gateway is not None:
        gateway = ip_address(default.gateway)
        for address in mine:
            if gateway in address.network:
                return address.address
    return texts[0] if texts else None
