"""Which rule and tunnel a packet would take: `ctl classify`. Pure evaluation over plan and desired state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address, ip_network

import msgspec

from mpq_supervisor.classifier import CATCH_ALL, PROTOCOLS, WITH_PORTS, Packet, first_match
from mpq_supervisor.desired import Desired, behind, desired
from mpq_supervisor.fib import way
from mpq_supervisor.network import Snapshot, covers
from mpq_supervisor.plan import HostPlan, LanPlan
from mpq_worker.contract import TrafficClass

_NOT_ROUTED = (
    "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32",
    "::/128", "::1/128", "fe80::/10", "ff00::/8",
)  # fmt: skip


class Verdict(msgspec.Struct, frozen=True):
    """What happens to the first packet of a flow that enters by a LAN. `rule` is empty where the interface decides.
    `tunnel` is the one that it takes now, `usual` the one that it takes when all are up: empty where it is refused,
    or `local`, for this host or a LAN."""

    lan: str
    rule: str
    traffic_class: str = msgspec.field(name="class")
    tunnel: str
    usual: str
    local: bool = False

    def __str__(self) -> str:
        why = f"rule {self.rule}" if self.rule else "by its interface"
        if self.local:
            return f"{self.lan}: {why}, {self.traffic_class}, for this host or a LAN"
        usual = f" ({self.usual} when all are up)" if self.usual != self.tunnel else ""
        return f"{self.lan}: {why}, {self.traffic_class}, {self.tunnel or 'refused'}{usual}"


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
    for address in (sender, receiver):
        for prefix in _NOT_ROUTED:
            if covers(prefix, address):
                raise ValueError(f"{address} is in {prefix}, which is not routed")
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


def verdicts(plan: HostPlan, there: Snapshot, down: Collection[str], packet: Packet) -> tuple[Verdict, ...]:
    """One for each LAN that the source may be in: those that lead to it by the longest prefix. `down` are the tunnels
    that carry nothing. Raises ValueError if the source is this host itself."""
    if _is_local(there, packet.source):
        raise ValueError(f"{packet.source} is this host's, it is no source of a packet that a LAN sends")
    longest = {lan.name: _longest(lan, there, packet.source) for lan in plan.lans}
    best = max(longest.values(), default=0)
    now, usual = desired(plan, there, down), desired(plan, there)
    return tuple(_verdict(plan, there, lan, packet, now, usual) for lan in plan.lans if longest[lan.name] == best > 0)


def decide(plan: HostPlan, lan: LanPlan, packet: Packet) -> tuple[str, TrafficClass]:
    """The rule that decides about a packet that enters by this LAN, "" where the interface does, and its class."""
    if lan.traffic_class is not None:
        return "", lan.traffic_class
    rule = first_match(plan.rules, plan.sets, packet)
    return rule.name, rule.traffic_class


def _verdict(plan: HostPlan, there: Snapshot, lan: LanPlan, packet: Packet, now: Desired, usual: Desired) -> Verdict:
    rule, traffic_class = decide(plan, lan, packet)
    tunnels = {tunnel.tun: tunnel for tunnel in plan.tunnels}
    chosen = lan.tunnels.get(traffic_class)
    mark = lan.mark | (tunnels[chosen].mark if chosen is not None else 0)
    takes, would_take = (way(want, packet, lan.interface, mark) for want in (now, usual))
    if _is_local(there, packet.destination) or takes not in (None, *tunnels):
        return Verdict(lan.name, rule, traffic_class.name.lower(), "", "", local=True)
    return Verdict(lan.name, rule, traffic_class.name.lower(), takes or "", would_take or "")


def _is_local(there: Snapshot, address: str) -> bool:
    """Whether the kernel takes it for itself: an address of its own, or a broadcast to a link of its own."""
    return any(covers(prefix, address) for prefix in there.local)


def _longest(lan: LanPlan, there: Snapshot, source: str) -> int:
    """Length of the longest prefix by which a LAN leads to an address; 0 if it does not."""
    found = (route.destination for route in behind(lan, there) if covers(route.destination, source))
    return max((ip_network(prefix).prefixlen for prefix in found), default=0)


def _endpoint(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":"):
            raise ValueError(f'"{text}" is neither [ADDRESS] nor [ADDRESS]:PORT')
    elif text.count(":") == 1:
        address, colon, port = text.partition(":")
    else:
        address, colon, port = text, "", ""
    if colon and not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f'"{port}" in "{text}" is no port')
    return str(ip_address(address)), int(port) if port else None
