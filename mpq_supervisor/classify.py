"""Which rule and tunnel a packet would take: `ctl classify`. Pure evaluation over the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

import msgspec

from mpq_supervisor.classifier import CATCH_ALL, PROTOCOLS, WITH_PORTS, Packet, first_match
from mpq_supervisor.network import Route
from mpq_supervisor.plan import HostPlan, LanPlan


class Verdict(msgspec.Struct, frozen=True):
    """What happens to the first packet of a flow that enters by a LAN. `rule` is empty where the interface decides,
    `tunnel` where the packet is refused."""

    lan: str
    rule: str
    traffic_class: str = msgspec.field(name="class")
    tunnel: str

    def __str__(self) -> str:
        why = f"rule {self.rule}" if self.rule else "by its interface"
        return f"{self.lan}: {why}, {self.traffic_class}, {self.tunnel or 'refused'}"


class RuleCount(msgspec.Struct, frozen=True):
    """A line of the classifier, and for how many flows it has decided since it was put into the kernel."""

    rule: str
    traffic_class: str = msgspec.field(name="class")
    matches: str
    flows: int


def parse_packet(source: str, destination: str, dscp: int = 0) -> Packet:
    """A packet from SRC[:PORT]/PROTO and DST[:PORT], IPv6 addresses with a port in brackets.

    The destination port is that of the source where none is given. Raises ValueError saying what is wrong.
    """
    ends, _, protocol = source.rpartition("/")
    if protocol not in PROTOCOLS:
        raise ValueError(f'"{source}" does not end in one of /{", /".join(PROTOCOLS)}')
    if not 0 <= dscp <= 63:
        raise ValueError(f"DSCP {dscp} is not within 0-63")
    (sender, source_port), (receiver, port) = _endpoint(ends), _endpoint(destination)
    if ip_address(sender).version != ip_address(receiver).version:
        raise ValueError(f"{sender} and {receiver} are of different IP versions")
    if protocol not in WITH_PORTS:
        return Packet(sender, receiver, protocol, None, dscp)
    if (port := source_port if port is None else port) is None:
        raise ValueError(f"{protocol} needs a port: {receiver}:PORT")
    return Packet(sender, receiver, protocol, port, dscp)


def rule_counts(plan: HostPlan, counters: Mapping[str, int]) -> tuple[RuleCount, ...]:
    """The lines of the classifier in their order, with the counters of `ruleset`."""
    return tuple(
        RuleCount(rule.name, rule.traffic_class.name.lower(), str(rule), counters.get(f"rule_{rule.name}", 0))
        for rule in (*plan.rules, CATCH_ALL)
    )


def verdicts(plan: HostPlan, routes: Iterable[Route], packet: Packet) -> tuple[Verdict, ...]:
    """One for each LAN that the source may be in: those whose `routes` lead to it by the longest prefix."""
    source = ip_address(packet.source)
    reached: dict[str, int] = {}
    for route in routes:
        network = ip_network(route.destination)
        if route.interface is not None and source in network and not route.is_default:
            reached[route.interface] = max(network.prefixlen, reached.get(route.interface, 0))
    longest = max((reached.get(lan.interface, 0) for lan in plan.lans), default=0)
    return tuple(verdict(plan, lan, packet) for lan in plan.lans if longest and reached.get(lan.interface) == longest)


def verdict(plan: HostPlan, lan: LanPlan, packet: Packet) -> Verdict:
    """What happens to a packet that enters by this LAN."""
    rule = first_match(plan.rules, plan.sets, packet)
    traffic_class = rule.traffic_class if lan.traffic_class is None else lan.traffic_class
    name = rule.name if lan.traffic_class is None else ""
    return Verdict(lan.name, name, traffic_class.name.lower(), lan.tunnels.get(traffic_class, ""))


def _endpoint(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    if port and not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f'"{port}" in "{text}" is no port')
    return str(ip_address(address)), int(port) if port else None
