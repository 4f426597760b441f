"""The checks of a site's LANs; see `validate`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from mpq_supervisor import arithmetic
from mpq_supervisor.decode import nearest
from mpq_supervisor.problems import (
    Problems,
    check_class,
    check_prefixes,
    check_unicast,
    each,
    is_host,
    names_of,
    tunnels_of,
)
from mpq_supervisor.schema import Address, Lan, Network, SiteConfig


def check_lans(config: SiteConfig, problems: Problems) -> None:
    """Adds what is wrong with a site's LANs."""
    lans = list(each(config.lan, "lan"))
    problems.check_unique("LAN", "name", ((path, lan.name) for path, lan in lans))
    problems.check_unique("LAN", "interface", ((path, lan.interface) for path, lan in lans))
    tags = ((path, f"{lan.parent} {lan.vlan}") for path, lan in lans if lan.vlan is not None)
    problems.check_unique("LAN", "vlan", tags)
    _check_parents(config, lans, problems)
    _check_routed(lans, problems)
    inner = list(_inner_subnets(config))
    wans = dict(each(config.wan, "wan"))
    names = [wan.name for wan in wans.values()]
    for path, lan in lans:
        if lan.wan not in names and names:
            text = f'no WAN "{lan.wan}"{nearest(lan.wan, names)}'
            problems.add(f"{path}.wan", text, *names_of(config.wan, "wan"))
        if lan.traffic_class is not None:
            check_class(config, f"{path}.class", lan.traffic_class, problems)
        _check_link(path, lan, problems)
        _check_apart(path, lan, inner, problems)
        for wan_path, wan in wans.items():
            if lan.interface == wan.interface:
                problems.add(f"{path}.interface", f'"{lan.interface}" is the interface of {wan_path}')


def _check_link(path: str, lan: Lan, problems: Problems) -> None:
    """What mpq is to make of a LAN: interface, addresses, routes."""
    if (lan.vlan is None) != (lan.parent is None):
        problems.add(f"{path}.{'vlan' if lan.vlan is None else 'parent'}", "is missing, the other is there")
    for index, address in enumerate(lan.address):
        if not is_host(address.ip) or address.ip.is_loopback:
            problems.add(f"{path}.address[{index}]", f"{address.ip} is no address of a host")
        elif address.ip in {other.ip for other in lan.address[:index]}:
            problems.add(f"{path}.address[{index}]", f"{address.ip} is there twice")
        elif address.network.prefixlen == 0:
            problems.add(f"{path}.address[{index}]", f"{address} makes everything a neighbour")
        elif text := _of_all(address.ip, address.network):
            problems.add(f"{path}.address[{index}]", text)
    versions = {prefix.version for prefix in lan.prefixes}
    for index, gateway in enumerate(lan.gateway):
        if gateway.version not in versions:
            text = f"nothing is behind {gateway}: no prefix of its IP version"
            problems.add(f"{path}.gateway[{index}]", text, f"{path}.prefixes")
        elif gateway.version in {other.version for other in lan.gateway[:index]}:
            problems.add(f"{path}.gateway[{index}]", "is the second of its IP version")
        else:
            _check_gateway(f"{path}.gateway[{index}]", path, gateway, lan, problems)
    check_prefixes(f"{path}.prefixes", lan.prefixes, problems)
    for index, prefix in enumerate(lan.prefixes):
        check_unicast(f"{path}.prefixes[{index}]", prefix, problems)


def _check_gateway(here: str, path: str, gateway: Address, lan: Lan, problems: Problems) -> None:
    """Where addresses of its IP version are given it must be in the subnet of one; a link-local one always is."""
    alike = [address for address in lan.address if address.version == gateway.version]
    if gateway.version == 6 and gateway.is_link_local:
        return
    if not is_host(gateway) or gateway.is_loopback:
        problems.add(here, f"{gateway} is no address of a host")
    elif gateway in [address.ip for address in alike]:
        problems.add(here, f"{gateway} is this host itself", f"{path}.address")
    elif alike and not any(gateway in address.network for address in alike):
        problems.add(here, f"{gateway} is in no subnet of {path}.address", f"{path}.address")
    elif text := next((text for address in alike if (text := _of_all(gateway, address.network))), ""):
        problems.add(here, text, f"{path}.address")


def _of_all(address: Address, subnet: Network) -> str:
    """Why no single host of a subnet has this address; "" where one may (RFC 3021, RFC 6164: two have no others)."""
    if subnet.num_addresses <= 2 or address not in subnet:
        return ""
    if address == subnet.network_address:
        return f"{address} is {subnet} itself" + (", that of all its routers" if subnet.version == 6 else "")
    broadcast = subnet.version == 4 and address == subnet.broadcast_address
    return f"{address} is the broadcast address of {subnet}" if broadcast else ""


def _check_parents(config: SiteConfig, lans: list[tuple[str, Lan]], problems: Problems) -> None:
    tunnels = {name: path for path, _, names in tunnels_of(config) for name in names}
    parents = {lan.interface: lan.parent for _, lan in lans}
    for path, lan in lans:
        if lan.parent == lan.interface:
            problems.add(f"{path}.parent", "is the interface itself")
        elif lan.parent in tunnels:
            problems.add(f"{path}.parent", f'"{lan.parent}" is a tunnel of {tunnels[lan.parent]}')
        elif lan.parent is not None:
            below, seen = parents.get(lan.parent), {lan.parent}
            while below is not None and below not in seen:
                seen.add(below)
                below = parents.get(below)
            if lan.interface in seen:
                problems.add(f"{path}.parent", f'"{lan.parent}" stands on {lan.interface} itself')


def _check_routed(lans: list[tuple[str, Lan]], problems: Problems) -> None:
    """The hub knows an address that is not masqueraded by one tunnel."""
    routed = {path: lan for path, lan in lans if not lan.masquerade}
    networks = {path: [*(address.network for address in lan.address), *lan.prefixes] for path, lan in routed.items()}
    for one, other in arithmetic.overlaps(networks):
        ways = {(lan.wan, lan.traffic_class) for lan in (routed[one], routed[other])}
        if len(ways) > 1:
            text = f"is false, as in {one}, which has the same addresses: the hub has one tunnel for them"
            fields = ("masquerade", "wan", "class", "address", "prefixes")
            problems.add(f"{other}.masquerade", text, *(f"{path}.{key}" for path in (one, other) for key in fields))


def _inner_subnets(config: SiteConfig) -> Iterator[tuple[str, str, Network]]:
    """With the field and the WAN that they are of."""
    for key in ("ipv4", "ipv6"):
        network = getattr(config.inner, key) if config.inner is not None else None
        for place, wan in enumerate(config.wan):
            if network is not None and wan is not None:
                with suppress(ValueError):  # past the end of addresses: `validate_site` tells
                    subnet = arithmetic.nth_subnet(network, arithmetic.suffix_of(place, wan) - 1)
                    yield f"inner.{key}", f"wan[{place}]", subnet


def _check_apart(path: str, lan: Lan, inner: list[tuple[str, str, Network]], problems: Problems) -> None:
    """What is local comes before what is in the tunnels."""
    networks = [(f"{path}.address[{index}]", address.network) for index, address in enumerate(lan.address)]
    networks += [(f"{path}.prefixes[{index}]", prefix) for index, prefix in enumerate(lan.prefixes)]
    for here, network in networks:
        for field, wan, subnet in inner:
            if network.prefixlen and network.version == subnet.version and network.overlaps(subnet):
                problems.add(here, f"{network} overlaps {subnet} of {field} ({wan})", field, f"{wan}.suffix")
                break
