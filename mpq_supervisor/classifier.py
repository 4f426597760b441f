"""The classifier: rules in order, the first that matches decides. Pure.

`plan_rules` works the configuration's rules out; `first_match` evaluates them as the kernel does with what
`ruleset` makes of them (tests compare the two). What matches none is of the class `LAST_RESORT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

import msgspec

from mpq_supervisor.arithmetic import BULK, CRITICAL, DEFAULT
from mpq_supervisor.schema import NameSet, PortRange, Ports, Prefixes, Rule
from mpq_worker.contract import TrafficClass

LAST_RESORT = BULK
WITH_PORTS = ("tcp", "udp", "sctp")
PROTOCOLS = (*WITH_PORTS, "icmp", "icmpv6", "esp", "gre")

PrefixSets = Mapping[str, tuple[str, ...]]
"""The prefixes of every `[set.NAME]`, in text."""

DEFAULT_RULES = (
    Rule(
        name="voice", traffic_class=CRITICAL, protocol="udp", ports=(PortRange(5060, 5060), PortRange(10000, 20000))
    ),
    Rule(name="expedited", traffic_class=CRITICAL, dscp=(46,)),
    Rule(
        name="web",
        traffic_class=DEFAULT,
        protocol="tcp",
        ports=(PortRange(80, 80), PortRange(443, 443), PortRange(8443, 8443)),
    ),
    Rule(name="quic", traffic_class=DEFAULT, protocol="udp", ports=(PortRange(443, 443),)),
    Rule(name="iperf", traffic_class=BULK, protocol="tcp", ports=(PortRange(5001, 6000),)),
)


class RulePlan(msgspec.Struct, frozen=True):
    """One line of the classifier. Fields that are empty match everything; `source` and `destination` hold prefixes
    and "@NAME" for a set of them. `name` is that of its counter."""

    name: str
    traffic_class: TrafficClass
    protocol: str | None = None
    ports: tuple[PortRange, ...] = ()
    dscp: tuple[int, ...] = ()
    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()

    def __str__(self) -> str:
        fields = {
            "": [self.protocol] if self.protocol else [],
            "port ": [str(p.first) if p.first == p.last else f"{p.first}-{p.last}" for p in self.ports],
            "dscp ": [str(value) for value in self.dscp],
            "from ": self.source,
            "to ": self.destination,
        }
        words = [f"{word}{','.join(values)}" for word, values in fields.items() if values]
        return " ".join(words) or "everything"


class Packet(msgspec.Struct, frozen=True):
    """What the classifier looks at. `port` is the destination port, None for a protocol without ports."""

    source: str
    destination: str
    protocol: str
    port: int | None = None
    dscp: int = 0


CATCH_ALL = RulePlan("other", LAST_RESORT)
"""What decides when no rule does."""


def rule_name(place: int, rule: Rule) -> str:
    """A rule's name: as configured, or its place in the file from 0."""
    return rule.name or str(place)


def plan_rules(
    rules: Sequence[Rule], sets: Mapping[str, NameSet], classes: Iterable[TrafficClass]
) -> tuple[RulePlan, ...]:
    """The rules of a site's file, without any the default ones of its classes.

    The ports of sets are filled in; what overlaps within a rule is put together, as nftables wants it.
    """
    known = set(classes)
    return tuple(
        RulePlan(
            name=rule_name(place, rule),
            traffic_class=rule.traffic_class,
            protocol=rule.protocol,
            ports=_merge(rule.ports, sets),
            dscp=tuple(sorted(set(rule.dscp))),
            source=_collapse(rule.source),
            destination=_collapse(rule.destination),
        )
        for place, rule in enumerate(rules or [rule for rule in DEFAULT_RULES if rule.traffic_class in known])
    )


def first_match(rules: Iterable[RulePlan], sets: PrefixSets, packet: Packet) -> RulePlan:
    """The rule that decides about the first packet of a flow."""
    return next((rule for rule in rules if _matches(rule, sets, packet)), CATCH_ALL)


def _merge(ports: Iterable[Ports], sets: Mapping[str, NameSet]) -> tuple[PortRange, ...]:
    merged: list[PortRange] = []
    every = (p for item in ports for p in ((item,) if isinstance(item, PortRange) else sets[item[1:]].ports))
    for port in sorted(every, key=lambda p: p.first):
        if merged and port.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, port.last))
        else:
            merged.append(port)
    return tuple(merged)


def _collapse(items: Iterable[Prefixes]) -> tuple[str, ...]:
    items = tuple(items)
    return (
        *(str(n) for n in collapse_addresses(i for i in items if isinstance(i, IPv4Network))),
        *(str(n) for n in collapse_addresses(i for i in items if isinstance(i, IPv6Network))),
        *dict.fromkeys(item for item in items if isinstance(item, str)),
    )


def _matches(rule: RulePlan, sets: PrefixSets, packet: Packet) -> bool:
    return (
        rule.protocol in (None, packet.protocol)
        and (not rule.ports or any(p.first <= (packet.port or 0) <= p.last for p in rule.ports))
        and (not rule.dscp or packet.dscp in rule.dscp)
        and (not rule.source or _within(packet.source, rule.source, sets))
        and (not rule.destination or _within(packet.destination, rule.destination, sets))
    )


def _within(address: str, items: Iterable[str], sets: PrefixSets) -> bool:
    host = ip_address(address)
    prefixes = (p for item in items for p in (sets[item[1:]] if item.startswith("@") else (item,)))
    return any(host in ip_network(prefix) for prefix in prefixes)
