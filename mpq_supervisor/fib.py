"""Which way a packet from a LAN takes by rules and routes of ours: what the kernel does with `desired`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from mpq_supervisor.classifier import Packet
from mpq_supervisor.desired import Desired
from mpq_supervisor.network import Route, Rule, covers, version_of


def way(want: Desired, packet: Packet, interface: str, mark: int) -> str | None:
    """The interface by which a packet leaves that came in by `interface` and has this mark; None if it is refused."""
    version, jump = version_of(packet.destination), 0
    for rule in sorted(want.rules, key=lambda rule: rule.priority):
        if rule.version != version or rule.priority < jump or not _selects(rule, packet, interface, mark):
            continue
        if rule.goto is not None:
            jump = rule.goto
            continue
        if rule.table is None:
            return None
        route = _longest((route for route in want.routes if route.table == rule.table), packet.destination)
        if route is not None and not route.throw:
            return route.interface
    return None


def _selects(rule: Rule, packet: Packet, interface: str, mark: int) -> bool:
    return (
        rule.output is None
        and rule.input in (None, interface)
        and rule.source in (None, packet.source)
        and (rule.mark is None or mark & (rule.mask or 0) == rule.mark)
    )


def _longest(routes: Iterable[Route], destination: str) -> Route | None:
    """The route of the longest prefix, of several the one with the lowest metric."""
    return max(
        (route for route in routes if covers(route.destination, destination)),
        key=lambda route: (ip_network(route.destination).prefixlen, -route.metric),
        default=None,
    )
