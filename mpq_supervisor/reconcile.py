"""Brings the kernel's network to the desired state, with no message where nothing differs.

What closes comes first (backstops and rules), then what opens (interfaces, addresses, routes), then what went.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, ParamSpec

from mpq_supervisor import shaping
from mpq_supervisor.desired import Desired
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.network import Snapshot
from mpq_worker.errors import HostFault

_P = ParamSpec("_P")


class Outcome(NamedTuple):
    """`refused` is tried again at the next call; `done` are rules, routes, … that were set or removed; `in_place` is
    what is wanted and there."""

    refused: tuple[str, ...]
    done: tuple[object, ...]
    in_place: frozenset[object]


def reconcile(netlink: Netlink, want: Desired, there: Snapshot) -> Outcome:
    """Makes the changes.

    Raises HostFault if it refuses a rule or a backstop, since then traffic could leave in clear.
    """
    index = {name: link.index for name, link in there.links.items()}
    rules, routes = netlink.own_rules(), netlink.own_routes(there.links)
    refused: list[str] = []
    done: list[object] = []
    failed: set[object] = set()

    def attempt(what: object, change: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            change(*args, **kwargs)
            done.append(what)
        except OSError as error:
            refused.append(f"{what}: {error.strerror}")
            failed.add(what)

    for route in want.routes - routes:
        if route.interface is None:
            attempt(route, netlink.add_route, route, None)
    for rule in want.rules - rules:
        attempt(rule, netlink.add_rule, rule)
    if refused:
        raise HostFault("; ".join(refused))

    for tun in want.links:
        link = there.links.get(tun.name)
        if link and (link.mtu, link.txqueuelen, link.up) != (tun.mtu, tun.txqueuelen, True):
            attempt(tun, netlink.set_tun, tun, link.index)
    tuns = {tun.name for tun in want.links}
    addresses = frozenset(a for a in there.addresses if a.interface in tuns)
    for address in want.addresses - addresses:
        if address.interface in index:
            attempt(address, netlink.add_address, address, index[address.interface], prefix_route=False)
    for address in want.lan_addresses - frozenset(there.addresses):
        if address.interface in index:
            attempt(address, netlink.add_address, address, index[address.interface], prefix_route=True)
    for route in want.routes - routes:
        if route.interface in index:
            attempt(route, netlink.add_route, route, index[route.interface])

    for rule in rules - want.rules:
        attempt(rule, netlink.delete_rule, rule)
    replaced = {route.key for route in want.routes - routes}
    for route in routes - want.routes:
        if route.key not in replaced:
            attempt(route, netlink.delete_route, route, index.get(route.interface or ""))
    for address in (addresses | there.own_addresses) - want.addresses - want.lan_addresses:
        attempt(address, netlink.delete_address, address, index[address.interface])

    shaped = shaping.shaped(netlink)
    wanted = {index[shaper.interface]: shaper for shaper in want.shapers if shaper.interface in index}
    for i, shaper in wanted.items():
        if i not in shaped or shaping.read(netlink, shaper.interface, i) != shaper:
            attempt(shaper, shaping.apply, netlink, shaper, i)
    for i in shaped - wanted.keys():
        attempt(f"qdisc of interface {i}", shaping.remove, netlink, i)
    absent: set[object] = {*(want.routes - routes), *(want.rules - rules), *(want.addresses - addresses)}
    absent |= want.lan_addresses - frozenset(there.addresses)
    absent |= {tun for tun in want.links if tun.name not in index}
    absent |= {shaper for shaper in want.shapers if shaper.interface not in index}
    in_place = want.everything() - (absent | failed).difference(done)
    return Outcome(tuple(refused), tuple(done), in_place)
