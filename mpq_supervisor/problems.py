"""What is wrong with a configuration: one list that every check adds to, and the checks they share. Pure."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from mpq_supervisor import arithmetic
from mpq_supervisor.decode import Problem, join
from mpq_supervisor.schema import Address, Network, Prefixes, SiteConfig, Wan
from mpq_worker.contract import TrafficClass

_T = TypeVar("_T")
RESERVED_WORDS = {"all", *(c.name.lower() for c in TrafficClass)}
"""What `ctl` takes for a group of workers; no WAN or listener may be called so."""
KERNEL_TABLES = {253, 254, 255}  # default, main, local


class Problems:
    def __init__(self, unread: Container[str] = ()) -> None:
        """`unread` are the paths of fields that could not be read, and have been reported."""
        self.found: list[Problem] = []
        self.unread = unread

    def add(self, path: str, text: str, *causes: str) -> None:
        """What follows from a field that could not be read, at `path` or among `causes`, is no news."""
        if not any(cause in self.unread for cause in (path, *causes)):
            self.found.append(Problem(path, text))

    def check_unique(self, what: str, key: str, values: Iterable[tuple[str, Hashable]]) -> None:
        """Adds a problem for every value that an earlier entry of the list has already."""
        seen: dict[Hashable, str] = {}
        for path, value in values:
            if join(path, key) in self.unread:
                continue
            first = seen.setdefault(value, path)
            if first != path:
                shown = value.name.lower() if isinstance(value, TrafficClass) else value
                self.add(join(path, key), f'"{shown}" is taken: {first} has the same {what} {key}')


def each(items: Sequence[_T], path: str) -> Iterator[tuple[str, _T]]:
    """The readable entries of a list with their paths."""
    return ((f"{path}[{index}]", item) for index, item in enumerate(items) if item is not None)


def tunnels_of(config: SiteConfig) -> Iterator[tuple[str, Wan, dict[str, TrafficClass | None]]]:
    """The readable WANs with their paths and tunnels."""
    for place, wan in enumerate(config.wan):
        if wan is not None:
            yield f"wan[{place}]", wan, arithmetic.tunnel_names(config, arithmetic.suffix_of(place, wan), wan)


def names_of(items: Sequence[object], path: str) -> tuple[str, ...]:
    """The paths of a list's names: what depends on there being a name depends on all of them."""
    return (path, *(f"{path}[{index}].name" for index in range(len(items))))


def check_inner(path: str, network: Network, problems: Problems) -> bool:
    """Whether tunnels can have their addresses from this network; if not, the problem is added."""
    if not is_unicast(network):
        problems.add(path, f"{network} is multicast, loopback, link-local or mapped: no addresses for an interface")
        return False
    if network.num_addresses >= 256:
        return True
    problems.add(path, f"{network} is too small: a /24 (IPv6: /120) or larger has room for the hub's 254")
    return False


def is_host(address: Address) -> bool:
    """Whether a host on the Internet can have this address; one of a link alone would need its interface."""
    nobody = address.is_unspecified or address.is_multicast or address.is_link_local or _is_mapped(address)
    return not nobody and not (isinstance(address, IPv4Address) and address.is_reserved)


def check_unicast(path: str, prefix: Network, problems: Problems) -> None:
    """Of a prefix behind a host of ours; that one is everything is for others to say."""
    if prefix.prefixlen and not is_unicast(prefix):
        problems.add(path, f"{prefix} is multicast, loopback, link-local or mapped: no hosts can be there")


def is_unicast(network: Network) -> bool:
    """Whether hosts can have the addresses of this network."""
    begin = network.network_address
    special = network.is_multicast or network.is_loopback or network.is_link_local
    return not (special or begin.is_unspecified or _is_mapped(begin))


def _is_mapped(address: Address) -> bool:
    """An IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5.2), which no packet has."""
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def check_interface_length(path: str, what: str, name: str, problems: Problems) -> None:
    if len(name) > 15:
        problems.add(path, f"its {what} {name} is longer than the 15 characters of an interface name")


def check_prefixes(path: str, prefixes: Sequence[Prefixes], problems: Problems) -> None:
    """None of a list at `path` may be everything."""
    for index, prefix in enumerate(prefixes):
        if not isinstance(prefix, str) and prefix.prefixlen == 0:
            problems.add(f"{path}[{index}]", f"{prefix} is everything: leave it out")


def check_class(config: SiteConfig, path: str, traffic_class: TrafficClass, problems: Problems) -> None:
    """A class that something of a site is to be carried by."""
    if traffic_class not in arithmetic.class_plans(config.classes):
        problems.add(path, f"{traffic_class.name.lower()} is not among this host's [[class]] entries")
