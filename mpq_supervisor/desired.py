"""What the kernel's network should look like: HostPlan and what is there → desired state. Pure.

A site's rules, in this order (IPv4 and IPv6; `base` is `supervisor.rule_priority`):

    base        from a LAN, its mark    → goto base + 5: what is no answer to another LAN looks for all of them
    base + 1    with a LAN's mark       → the LAN's table: back as it came, whoever else has the prefix
    base + 2    in from a tunnel's TUN  → the tables of the LANs that are of its class alone: what begins outside
    base + 3    out of a WAN            → the WAN's own table; first, since two WANs may have the same address
    base + 4    from a WAN's address    → the WAN's own table, so that its packets leave by it, whatever LANs have
    base + 5    everything              → LAN table: what is behind our own LANs is local, whoever asks
    base + 20   from a tunnel's address → the tunnel's table
                out of its TUN          → the tunnel's table
    base + 25   with both marks         → unreachable, if the LAN keeps its addresses and the tunnel is down
    base + 30   with a tunnel's mark    → the tunnel's table
    base + 40   in from a LAN           → unreachable: LAN traffic never gets as far as the main table

A tunnel's table is `default` and the hub's inner address by the TUN, and `unreachable default` at the highest
metric. The TUN's routes die with the TUN, the backstop does not: closed when dead (ARCHITECTURE 2). While a tunnel is
down its `default` leads by the first tunnel of its class that is up, in the order of `wan.fallback`, or is not there.
A hub has host and prefix routes to the TUN of the class in the main table, over the same kind of backstop.

`desired` is the whole of it, `closed` what stays when mpq has stopped and its traffic must be refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_network
from types import MappingProxyType

import msgspec

from mpq_supervisor.arithmetic import lan_mask, tunnel_mask
from mpq_supervisor.network import (
    ANY,
    BACKSTOP_METRIC,
    MAIN_TABLE,
    Address,
    Route,
    Rule,
    Snapshot,
    TunLink,
    link_state,
    version_of,
)
from mpq_supervisor.plan import HostPlan, LanPlan, TunnelPlan
from mpq_supervisor.shaper import Shaper, shaper

_LINK_LOCAL = "fe80::/64"


class Desired(msgspec.Struct, frozen=True):
    """What should be there. The default is nothing at all. `addresses` are all that TUNs have, `lan_addresses` are
    beside those that a LAN may have from others, in the order in which they are added: that of the file."""

    links: frozenset[TunLink] = frozenset()
    addresses: frozenset[Address] = frozenset()
    lan_addresses: tuple[Address, ...] = ()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    shapers: frozenset[Shaper] = frozenset()

    def everything(self) -> frozenset[object]:
        """All of it, of every kind."""
        return self.links | self.addresses | {*self.lan_addresses} | self.routes | self.rules | self.shapers


Last = Mapping[tuple[str, int], str]
"""By WAN and IP version, the address that it had last."""


def desired(
    plan: HostPlan, snapshot: Snapshot, down: Collection[str] = (), last: Last = MappingProxyType({})
) -> Desired:
    """Everything that mpq wants of this host's network while it runs; `down` are the tunnels that carry nothing.
    A WAN without an address keeps the rules of its `last` one."""
    return _site(plan, snapshot, down, last) if plan.role == "site" else _hub(plan, snapshot)


def behind(lan: LanPlan, snapshot: Snapshot) -> Iterator[Route]:
    """How what is in a LAN is reached, as routes of the main table; a default route there is not one of them."""
    yield from map(_connected, _addresses_of(lan))
    yield from (Route(MAIN_TABLE, prefix, lan.interface, gateway) for prefix, gateway in lan.behind)
    yield from (r for r in snapshot.routes if r.interface == lan.interface and not r.is_default)


def closed(plan: HostPlan, snapshot: Snapshot) -> Desired:
    """What remains of `desired` when mpq has stopped and LAN traffic must be refused, not sent in clear."""
    if plan.role == "hub":
        return Desired(routes=frozenset(_hub_backstops(plan, snapshot)))
    routes = (*_tunnel_backstops(plan, snapshot), *_lan_routes(plan, snapshot))
    rules = frozenset((*_lan_rules(plan, snapshot), *_mark_rules(plan, snapshot)))
    return Desired(routes=frozenset(routes), rules=rules, lan_addresses=tuple(_lan_addresses(plan)))


def _site(plan: HostPlan, snapshot: Snapshot, down: Collection[str], last: Last) -> Desired:
    remaining = closed(plan, snapshot)
    base = plan.supervisor.rule_priority
    routes, rules, addresses = set(remaining.routes), set(remaining.rules), set()
    for wan in plan.wans:
        state = link_state(wan, snapshot)
        routes.update(_copies(state.routes, wan.table))
        for version in _versions(snapshot):
            address = state.local_address(version) or _awaited(last.get((wan.name, version)), snapshot)
            if address is not None:
                rules.add(Rule(version, base + 4, table=wan.table, source=address))
                rules.add(Rule(version, base + 3, table=wan.table, output=wan.interface))
                routes.add(Route(wan.table, ANY[version], metric=BACKSTOP_METRIC))
        if state.address6 is not None:
            routes.add(Route(wan.table, _LINK_LOCAL, wan.interface))
    for tunnel in plan.tunnels:
        way = _way(plan, tunnel, down)
        for address in tunnel.inner:
            addresses.add(_host_address(tunnel.tun, address))
            rules.add(Rule(version_of(address), base + 20, table=tunnel.table, source=address))
            if way is not None:
                routes.add(Route(tunnel.table, ANY[version_of(address)], way))
        routes.update(Route(tunnel.table, _host_prefix(peer), tunnel.tun) for peer in tunnel.peers)
        rules.update(Rule(v, base + 20, table=tunnel.table, output=tunnel.tun) for v in _versions(snapshot))
    rules.update(_no_detours(plan, snapshot, down))
    return Desired(
        links=frozenset(TunLink(t.tun, t.mtu, t.txqueuelen) for t in plan.tunnels),
        addresses=frozenset(addresses),
        lan_addresses=remaining.lan_addresses,
        routes=frozenset(routes),
        rules=frozenset(rules),
        shapers=frozenset(s for wan in plan.wans if (s := shaper(wan, plan.classes))),
    )


def _awaited(address: str | None, snapshot: Snapshot) -> str | None:
    """A WAN's last address, if nobody has it now. It may come back with it, and what the kernel then answers from it
    must not leave by another WAN."""
    return None if any(there.address == address for there in snapshot.addresses) else address


def _hub(plan: HostPlan, snapshot: Snapshot) -> Desired:
    return Desired(
        links=frozenset(TunLink(w.tun, w.mtu, w.txqueuelen) for w in plan.hub_workers),
        addresses=frozenset(_host_address(w.tun, a) for w in plan.hub_workers for a in w.inner),
        routes=frozenset(Route(MAIN_TABLE, r, w.tun) for w in plan.hub_workers for r in w.routes)
        | frozenset(_hub_backstops(plan, snapshot)),
    )


def _way(plan: HostPlan, tunnel: TunnelPlan, down: Collection[str]) -> str | None:
    """The TUN of the tunnel that carries what belongs to this one now."""
    return next((candidate.tun for candidate in plan.carriers(tunnel) if candidate.name not in down), None)


def _no_detours(plan: HostPlan, snapshot: Snapshot, down: Collection[str]) -> Iterator[Rule]:
    """The hub knows the addresses of a LAN that keeps its own by one tunnel: no other may carry them."""
    mask = plan.supervisor.mark_mask
    for lan in plan.lans:
        for tunnel in plan.tunnels:
            if not lan.masquerade and tunnel.name in down and tunnel.name in lan.tunnels.values():
                for version in _versions(snapshot):
                    priority = plan.supervisor.rule_priority + 25
                    yield Rule(version, priority, mark=lan.mark | tunnel.mark, mask=mask)


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
    """The LANs' own routes, for all together and for each of them."""
    together = tuple(_copies((r for lan in plan.lans for r in behind(lan, snapshot)), plan.supervisor.table_base - 1))
    yield from together
    yield from _elsewhere(plan, snapshot, together)
    for lan in plan.lans:
        yield from _copies(behind(lan, snapshot), lan.table)


def _elsewhere(plan: HostPlan, snapshot: Snapshot, together: Collection[Route]) -> Iterator[Route]:
    """Within the LANs' prefixes, what the main table has by other interfaces: it is not behind a LAN."""
    lans = {lan.interface for lan in plan.lans}
    prefixes = {ip_network(route.destination) for route in together}
    lengths = {prefix.prefixlen for prefix in prefixes}
    for route in snapshot.routes:
        network = ip_network(route.destination)
        if route.interface in lans or network in prefixes:
            continue
        if any(network.supernet(new_prefix=n) in prefixes for n in lengths if n < network.prefixlen):
            yield Route(plan.supervisor.table_base - 1, route.destination, throw=True)


def _connected(address: Address) -> Route:
    """The route that comes with an address, as the kernel makes it."""
    subnet = str(address.network)
    if address.version == 4:
        return Route(MAIN_TABLE, subnet, address.interface, metric=0, source=address.address)
    return Route(MAIN_TABLE, subnet, address.interface, metric=256)


def _lan_addresses(plan: HostPlan) -> Iterator[Address]:
    for lan in plan.lans:
        yield from _addresses_of(lan)


def _addresses_of(lan: LanPlan) -> Iterator[Address]:
    for text in lan.addresses:
        address, _, length = text.partition("/")
        yield Address(lan.interface, address, int(length))


def _copies(routes: Iterable[Route], table: int) -> Iterator[Route]:
    """The same routes in another table; of several that would replace each other there, the first."""
    copies: dict[tuple[int, str, int], Route] = {}
    for route in routes:
        copy = msgspec.structs.replace(route, table=table)
        copies.setdefault(copy.key, copy)
    return iter(copies.values())


def _lan_rules(plan: HostPlan, snapshot: Snapshot) -> Iterator[Rule]:
    base, mask = plan.supervisor.rule_priority, lan_mask(plan.supervisor.mark_mask)
    for version in _versions(snapshot):
        if plan.lans:
            yield Rule(version, base + 5, table=plan.supervisor.table_base - 1)
        for lan in plan.lans:
            yield Rule(version, base, input=lan.interface, mark=lan.mark, mask=mask, goto=base + 5)
            yield Rule(version, base + 1, table=lan.table, mark=lan.mark, mask=mask)
            if lan.bound is not None:
                yield Rule(version, base + 2, table=lan.table, input=lan.bound)
            yield Rule(version, base + 40, input=lan.interface)


def _mark_rules(plan: HostPlan, snapshot: Snapshot) -> Iterator[Rule]:
    mask, priority = tunnel_mask(plan.supervisor.mark_mask), plan.supervisor.rule_priority + 30
    for tunnel in plan.tunnels:
        for version in _versions(snapshot):
            yield Rule(version, priority, table=tunnel.table, mark=tunnel.mark, mask=mask)


def _versions(snapshot: Snapshot) -> tuple[int, ...]:
    return (4, 6) if snapshot.ipv6 else (4,)


def _host_prefix(address: str) -> str:
    return f"{address}/{32 if version_of(address) == 4 else 128}"


def _host_address(interface: str, address: str) -> Address:
    return Address(interface, address, 32 if version_of(address) == 4 else 128)
