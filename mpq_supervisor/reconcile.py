"""Brings the kernel's network to the desired state, with no message where nothing differs.

What closes comes first (backstops and rules), then what opens (interfaces, addresses, routes), then what went. Before
all of it addresses go: with the first of a subnet the kernel takes the others of it, and the routes that have them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, ParamSpec

from mpq_supervisor import shaping
from mpq_supervisor.desired import Desired
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.network import Route, Snapshot
from mpq_worker.errors import HostFault

_P = ParamSpec("_P")


class Outcome(NamedTuple):
    """`there` is what was found; `refused` is tried again at the next call; `done` are rules, routes, … that were set
    or removed; `in_place` is what is wanted and there."""

    there: Snapshot
    refused: tuple[str, ...]
    done: tuple[object, ...]
    in_place: frozenset[object]


def reconcile(netlink: Netlink, wanted: Callable[[Snapshot], Desired]) -> Outcome:
    """Makes the changes to what is `wanted` where things are so.

    Raises HostFault if it refuses a rule or a backstop, since then traffic could leave in clear.
    """
    there = netlink.snapshot()
    want = wanted(there)
    refused: list[str] = []
    done: list[object] = []
    failed: set[object] = set()

    def attempt(what: object, change: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            change(*args, **kwargs)
            done.append(what)
        except (OSError, ValueError, struct.error) as error:  # nor may what no message can hold keep back the rest
            refused.append(f"{what}: {getattr(error, 'strerror', None) or error}")
            failed.add(what)

    tuns = {tun.name for tun in want.links}
    old = frozenset(a for a in there.assigned if a.interface in tuns) | there.own_addresses
    if gone := old - want.addresses.union(want.lan_addresses):
        for address in gone:
            attempt(address, netlink.delete_address, address, there.links[address.interface].index)
        there = netlink.snapshot()
        want = wanted(there)
    index = {name: link.index for name, link in there.links.items()}

    rules, routes = netlink.own_rules(), netlink.own_routes(there.links)
    before = len(refused)
    for route in want.routes - routes:
        if route.interface is None:
            attempt(route, netlink.add_route, route, None)
    for rule in want.rules - rules:
        attempt(rule, netlink.add_rule, rule)
    if refused[before:]:
        raise HostFault("; ".join(refused[before:]))

    for tun in want.links:
        link = there.links.get(tun.name)
        if link and (link.mtu, link.txqueuelen, link.up, link.tun_families) != (tun.mtu, tun.txqueuelen, True, True):
            attempt(tun, netlink.set_tun, tun, link.index)
    for address in want.addresses - there.assigned:
        if address.interface in index:
            attempt(address, netlink.add_address, address, index[address.interface], prefix_route=False)
    taken = {(a.interface, a.address): a for a in there.assigned if a.version == 6}
    for address in want.lan_addresses:
        other = taken.get((address.interface, address.address), address)
        if other != address:  # an IPv6 address has one length, and this one is somebody else's
            refused.append(f"{address}: is there as /{other.prefix}")
        elif address not in there.assigned and address.interface in index:
            attempt(address, netlink.add_address, address, index[address.interface], prefix_route=True)
    for route in want.routes - routes:
        if route.interface in index:
            attempt(route, netlink.add_route, route, index[route.interface])

    for rule in rules - want.rules:
        attempt(rule, netlink.delete_rule, rule)
    replaced = {route.key for route in done if isinstance(route, Route)}
    for route in routes - want.routes:
        if route.key not in replaced:
            attempt(route, netlink.delete_route, route, index.get(route.interface or ""))

    shaped = shaping.shaped(netlink)
    shapers = {index[shaper.interface]: shaper for shaper in want.shapers if shaper.interface in index}
    for i, shaper in shapers.items():
        if i not in shaped or shaping.read(netlink, shaper.interface, i) != shaper:
            attempt(shaper, shaping.apply, netlink, shaper, i)
    for i in shaped - shapers.keys():
        attempt(f"qdisc of interface {i}", shaping.remove, netlink, i)
    absent: set[object] = {*(want.routes - routes), *(want.rules - rules), *(want.addresses - there.assigned)}
    absent |= {*want.lan_addresses} - there.assigned
    absent |= {tun for tun in want.links if tun.name not in index}
    absent |= {shaper for shaper in want.shapers if shaper.interface not in index}
    in_place = want.everything() - (absent | failed).difference(done)
    return Outcome(there, tuple(refused), tuple(done), in_place)
