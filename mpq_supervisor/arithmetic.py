"""The numbers, names and addresses that follow from a configuration by arithmetic. Pure.

For a site whose WAN has suffix s (1 for the first in the file) and whose number at the hub is n; where three
numbers stand, they are those of critical, bulk and default:

    tunnels          cr{s} br{s} df{s}         a plain 1:1 tunnel: mpq and the digits of the WAN's name
    index            3(s-1) + 0, 1, 2          plain: + 0; from it table, mark and uid
    hub port         45010 + (s-1)
    source ports     base + 10(s-1) + 0, 1, 2  plain: + 9; its successor's in a planned restart: + 3, 4, 5; + 6
    inner subnet     the (s-1)th after `inner.ipv4` and `inner.ipv6`
    inner host       12n + 1, 5, 9             plain: + 1; the hub is 254
    WAN table        table_base - 11 + s; of all LANs: table_base - 1
    LAN table        table_base + 27 + place in the file
    mark             index + 1 in the lowest five bits of mark_mask, place of the LAN + 1 in the others
    conntrack zone   of a LAN: from the name of its interface, since open flows are known by it

A hub's workers are `mt4.critical` with TUN `mt4c`, or `mt4` alone; index 3(place in the file) + class.
What WANs and tunnels have depends on nothing but their own entries, so that a reload moves no neighbour. Tables and
marks of LANs follow their order in the file and move with it: packets are marked anew, a flow is known by its zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from zlib import crc32

import msgspec

from mpq_supervisor.decode import nearest
from mpq_supervisor.schema import (
    ClassConfig,
    HubConfig,
    Identity,
    Listener,
    Network,
    Site,
    SiteConfig,
    Wan,
)
from mpq_worker.contract import TrafficClass

CRITICAL, DEFAULT, BULK = TrafficClass.CRITICAL, TrafficClass.DEFAULT, TrafficClass.BULK
TUNNEL_ORDER = (CRITICAL, BULK, DEFAULT)
PREFIX = {CRITICAL: "cr", BULK: "br", DEFAULT: "df"}
HUB_TUN_LETTER = {CRITICAL: "c", DEFAULT: "d", BULK: "b"}
FIRST_HUB_PORT = 45010
HUB_HOST = 254
NUMBERS_PER_SITE = 12
PLAIN_SOURCE_PORTS = (9, 6)


class ClassPlan(msgspec.Struct, frozen=True):
    """How the packets of a class are marked and queued. `priority` is SO_PRIORITY of the outer packets, `txqueuelen`
    what the TUN keeps while its worker waits for a CPU: 150 packets are 2 ms of 80,000 a second."""

    traffic_class: TrafficClass
    dscp: int
    priority: int
    txqueuelen: int


DEFAULT_CLASSES = {
    CRITICAL: ClassPlan(CRITICAL, dscp=46, priority=6, txqueuelen=100),
    BULK: ClassPlan(BULK, dscp=8, priority=2, txqueuelen=500),
    DEFAULT: ClassPlan(DEFAULT, dscp=0, priority=0, txqueuelen=500),
}


def suffix_of(place: int, wan: Wan) -> int:
    """A WAN's suffix; `place` is its index in the file."""
    return place + 1 if wan.suffix is None else wan.suffix


def hub_port(suffix: int, wan: Wan) -> int:
    """The hub's port for a WAN."""
    return FIRST_HUB_PORT + suffix - 1 if wan.hub_port is None else wan.hub_port


def tunnel_names(config: SiteConfig, suffix: int, wan: Wan) -> dict[str, TrafficClass | None]:
    """Names and classes of a WAN's tunnels, in order."""
    carried = config.matrix.get(wan.name)
    if carried is not None and not carried:
        digits = re.search(r"\d+$", wan.name)
        return {f"mpq{digits[0] if digits else suffix}": None}
    classes = class_plans(config.classes)
    return {f"{PREFIX[c]}{suffix}": c for c in TUNNEL_ORDER if c in classes and (carried is None or c in carried)}


def source_ports(base: int, suffix: int, traffic_class: TrafficClass | None) -> tuple[int, int]:
    """The UDP ports of a tunnel's worker, and of the one that takes over from it; they take turns."""
    if traffic_class is None:
        first, second = PLAIN_SOURCE_PORTS
    else:
        first = TUNNEL_ORDER.index(traffic_class)
        second = first + len(TUNNEL_ORDER)
    start = base + 10 * (suffix - 1)
    return start + first, start + second


def class_plans(configured: tuple[ClassConfig, ...]) -> dict[TrafficClass, ClassPlan]:
    """The classes of a host: the three usual ones, or those that its file lists."""
    if not configured:
        return DEFAULT_CLASSES
    plans = {}
    for entry in configured:
        usual = DEFAULT_CLASSES[entry.name]
        changes = {
            key: value for key in ("dscp", "priority", "txqueuelen") if (value := getattr(entry, key)) is not None
        }
        plans[entry.name] = msgspec.structs.replace(usual, **changes)
    return plans


LAN_TABLES = 27
"""From `table_base` to the routing table of the first LAN: behind those of all tunnels."""
_TUNNEL_BITS = 5
_FIRST_ZONE = 0x8000  # of 16 bits: as many are below it as from it on


def wan_table(table_base: int, suffix: int, wan: Wan) -> int:
    """The routing table of a WAN."""
    return table_base - 11 + suffix if wan.table is None else wan.table


def own_tables(table_base: int, lans: int) -> range:
    """All routing tables that a host with so many LANs may use, but for WANs that have another."""
    return range(table_base - 10, table_base + LAN_TABLES + lans)


def lan_zones(interfaces: Iterable[str]) -> dict[str, int]:
    """The conntrack zones of LANs, in the upper half of all."""
    zones: dict[str, int] = {}
    for interface in interfaces:
        zone = crc32(interface.encode()) % _FIRST_ZONE
        while _FIRST_ZONE + zone in zones.values():
            zone = (zone + 1) % _FIRST_ZONE
        zones[interface] = _FIRST_ZONE + zone
    return zones


def overlaps(networks: Mapping[str, Iterable[Network]]) -> list[tuple[str, str]]:
    """Which owners of networks have addresses in common: pairs, in the order of the owners."""
    names = tuple(networks)
    spans = [(n.version, int(n[0]), int(n[-1]), place) for place, name in enumerate(names) for n in networks[name]]
    found: set[tuple[int, int]] = set()
    around: list[tuple[int, int, int, int]] = []  # prefixes that overlap are in each other
    for span in sorted(spans, key=lambda span: (span[0], span[1], -span[2])):
        while around and (around[-1][0] != span[0] or around[-1][2] < span[1]):
            around.pop()
        found.update((min(other[3], span[3]), max(other[3], span[3])) for other in around if other[3] != span[3])
        around.append(span)
    return [(names[one], names[other]) for one, other in sorted(found)]


def nth_subnet(network: Network, steps: int) -> Network:
    """The subnet of the same length `steps` after `network`. Raises ValueError past the end of addresses."""
    start = int(network.network_address) + steps * network.num_addresses
    return type(network)((start, network.prefixlen))


def host(network: Network, number: int) -> str:
    """Address `number` of a subnet, as text."""
    return str(network.network_address + number)


def inner_number(site_number: int, traffic_class: TrafficClass | None) -> int:
    """Host number of a site's tunnel inside its subnet; a plain tunnel has that of critical."""
    position = TUNNEL_ORDER.index(traffic_class) if traffic_class is not None else 0
    return NUMBERS_PER_SITE * site_number + 1 + 4 * position


def site_numbers(network: Network) -> int:
    """How many sites have room in a subnet: 21 in a /24. The last address of it is left alone (broadcast)."""
    return max(0, (network.num_addresses - 2 - 9) // NUMBERS_PER_SITE + 1)


def hub_worker_names(config: HubConfig, listener: Listener) -> dict[str, TrafficClass | None]:
    """Names and classes of a listener's workers, in order."""
    if listener.workers == "shared":
        return {listener.name: None}
    return {f"{listener.name}.{c.name.lower()}": c for c in TrafficClass if c in class_plans(config.classes)}


def hub_tun(listener: Listener, traffic_class: TrafficClass | None) -> str:
    """The TUN of a hub's worker."""
    return listener.name + (HUB_TUN_LETTER[traffic_class] if traffic_class is not None else "")


def site_inner(site: Site, listener: Listener, worker: str, traffic_class: TrafficClass | None) -> tuple[str, ...]:
    """Inner addresses of a site at one worker of a hub; at a shared one it may use those of every class."""
    if worker in site.addresses:
        return tuple(str(address) for address in site.addresses[worker])
    if site.number is None:
        return ()
    classes = TUNNEL_ORDER if traffic_class is None else (traffic_class,)
    return tuple(
        host(network, inner_number(site.number, c))
        for network in (listener.ipv4, listener.ipv6)
        if network is not None
        for c in classes
    )


def lan_worker(config: HubConfig, listener: str | None, traffic_class: TrafficClass | None) -> str:
    """The worker of a LAN prefix behind a site. Raises ValueError saying why there is no single one."""
    candidates = [entry for entry in config.listener if listener in (None, entry.name)]
    if not candidates:
        raise ValueError(f'no listener "{listener}"{nearest(str(listener), (e.name for e in config.listener))}')
    if len(candidates) > 1:
        raise ValueError("return route is ambiguous: name the listener, there are several")
    workers = hub_worker_names(config, candidates[0])
    if candidates[0].workers == "shared":
        return candidates[0].name
    matches = [name for name, c in workers.items() if c == traffic_class]
    if not matches:
        known = ", ".join(c.name.lower() for c in workers.values() if c is not None)
        raise ValueError(f"return route is ambiguous: name the class, one of {known}")
    return matches[0]


def identity_name(identity: Identity) -> str:
    """The host's name: as configured, or the stem of its certificate's file."""
    return identity.name or re.sub(r"\.[^.]*$", "", identity.certificate.rsplit("/", 1)[-1])


def mark_shift(mask: int) -> int:
    """How far left of a mark's bit 0 its mask begins."""
    return (mask & -mask).bit_length() - 1


def tunnel_mask(mask: int) -> int:
    """The part of `mark_mask` that names a tunnel."""
    return ((1 << _TUNNEL_BITS) - 1) << mark_shift(mask)


def lan_mask(mask: int) -> int:
    """The rest of it, which names a LAN."""
    return mask & ~tunnel_mask(mask)


def lan_mark(mask: int, place: int) -> int:
    """The mark of a LAN; `place` is its index in the file."""
    return (place + 1) << mark_shift(mask) + _TUNNEL_BITS


def lan_room(mask: int) -> int:
    """How many LANs can have a mark, and a zone."""
    return min(lan_mask(mask) >> mark_shift(mask) + _TUNNEL_BITS, _FIRST_ZONE)
