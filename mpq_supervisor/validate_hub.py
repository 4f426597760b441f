"""The checks of a hub's file; see `validate`. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from mpq_supervisor import arithmetic
from mpq_supervisor.decode import join, nearest
from mpq_supervisor.problems import (
    RESERVED_WORDS,
    Problems,
    check_inner,
    check_interface_length,
    check_unicast,
    each,
    names_of,
)
from mpq_supervisor.schema import HubConfig, Listener, Network, Site

_ANYWHERE = {IPv4Address(0), IPv6Address(0)}


def check_hub(config: HubConfig, problems: Problems) -> None:
    listeners = list(each(config.listener, "listener"))
    if config.listener == ():
        problems.add("listener", "needs at least one listener")
    problems.check_unique("listener", "name", ((path, entry.name) for path, entry in listeners))
    _check_binding(listeners, problems)
    _check_subnets(listeners, problems)
    _check_hub_tuns(config, listeners, problems)
    sites = list(each(config.site, "site"))
    problems.check_unique("site", "name", ((path, site.name) for path, site in sites))
    problems.check_unique("site", "identity", ((path, site.uri) for path, site in sites))
    for path, site in sites:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", site.uri):
            problems.add(f"{path}.identity", f'"{site.uri}" is no URI such as mpq://site/{site.name}')
    # Below, everything is about workers: without all of the listeners nothing certain can be said of them.
    if 0 < len(listeners) == len(config.listener):
        active = [(path, site) for path, site in sites if not site.revoked]
        _check_site_addresses(config, active, problems)
        _check_site_lans(config, active, problems)


def _check_binding(listeners: list[tuple[str, Listener]], problems: Problems) -> None:
    for place, (path, entry) in enumerate(listeners):
        if not entry.address:
            problems.add(f"{path}.address", "needs at least one address")
        if len(set(entry.address)) > 1 and set(entry.address) != _ANYWHERE:
            problems.add(f"{path}.address", "must be one address, or 0.0.0.0 and :: together")
        for index, address in enumerate(entry.address):
            if address.is_multicast:
                problems.add(f"{path}.address[{index}]", f"{address} is no address of a host")
            elif address in entry.address[:index]:
                problems.add(f"{path}.address[{index}]", f"{address} is there twice")
        for other_path, other in listeners[:place]:
            meet = set(entry.address) & set(other.address)
            anywhere = any(address.is_unspecified for address in (*entry.address, *other.address))
            if entry.port == other.port and (meet or anywhere):
                problems.add(f"{path}.port", f"{entry.port} is taken: {other_path} listens there")


def _check_subnets(listeners: list[tuple[str, Listener]], problems: Problems) -> None:
    seen: list[tuple[str, Network]] = []
    for path, entry in listeners:
        if entry.ipv4 is None and entry.ipv6 is None:
            problems.add(path, "needs ipv4, ipv6 or both", f"{path}.ipv4", f"{path}.ipv6")
        for key, network in (("ipv4", entry.ipv4), ("ipv6", entry.ipv6)):
            if network is None:
                continue
            here = f"{path}.{key}"
            check_inner(here, network, problems)
            for address in entry.address:
                if address in network:
                    problems.add(here, f"{network} contains the listener's own address {address}")
            for other_path, other in seen:
                if _overlap(_span(network), _span(other)):
                    problems.add(here, f"{network} overlaps {other} of {other_path}")
            seen.append((here, network))


def _check_hub_tuns(config: HubConfig, listeners: list[tuple[str, Listener]], problems: Problems) -> None:
    taken = {config.nat.interface: "nat.interface"} if config.nat is not None else {}
    for path, entry in listeners:
        if entry.name in RESERVED_WORDS:
            problems.add(f"{path}.name", f'"{entry.name}" means something else to `ctl`')
        for traffic_class in arithmetic.hub_worker_names(config, entry).values():
            tun = arithmetic.hub_tun(entry, traffic_class)
            check_interface_length(f"{path}.name", "TUN", tun, problems)
            if taken.get(tun, path) != path:
                problems.add(f"{path}.name", f"its TUN {tun} has the name of an interface of {taken[tun]}")
            taken[tun] = path


def _check_site_addresses(config: HubConfig, sites: list[tuple[str, Site]], problems: Problems) -> None:
    workers = {
        name: (listener, traffic_class)
        for listener in config.listener
        for name, traffic_class in arithmetic.hub_worker_names(config, listener).items()
    }
    owners: dict[str, str] = {
        arithmetic.host(network, arithmetic.HUB_HOST): "the hub"
        for listener in config.listener
        for network in (listener.ipv4, listener.ipv6)
        if network is not None and network.num_addresses > arithmetic.HUB_HOST
    }
    unsure = names_of(config.listener, "listener")
    for path, site in sites:
        if site.number is None and not site.addresses:
            problems.add(
                f"{path}.number", "is missing, and there are no addresses instead of it", f"{path}.addresses"
            )
        for name, addresses in site.addresses.items():
            here = join(f"{path}.addresses", name)
            if name not in workers:
                problems.add(here, f'no worker "{name}"{nearest(name, workers)}', *unsure)
                continue
            listener, _ = workers[name]
            for index, address in enumerate(addresses):
                if not any(address in n for n in (listener.ipv4, listener.ipv6) if n is not None):
                    text = f"{address} is not in a subnet of {listener.name}"
                    problems.add(f"{here}[{index}]", text, *_subnets(config, listener))
        if not _check_number(config, path, site, problems):
            continue
        clashes: dict[str, str] = {}  # one problem for each place, however many addresses follow from it
        for name, (listener, traffic_class) in workers.items():
            here = join(f"{path}.addresses", name) if name in site.addresses else f"{path}.number"
            for text in arithmetic.site_inner(site, listener, name, traffic_class):
                owner = owners.setdefault(text, here)
                if owner != here:
                    clashes.setdefault(here, f"{text} is taken by {owner}")
        for here, text in clashes.items():
            problems.add(here, text)


def _subnets(config: HubConfig, listener: Listener) -> tuple[str, ...]:
    path = f"listener[{config.listener.index(listener)}]"
    return f"{path}.ipv4", f"{path}.ipv6"


def _check_number(config: HubConfig, path: str, site: Site, problems: Problems) -> bool:
    for listener in config.listener:
        for network in (listener.ipv4, listener.ipv6):
            room = arithmetic.site_numbers(network) if network is not None else None
            if site.number is not None and room is not None and site.number >= room:
                problems.add(
                    f"{path}.number",
                    f"{site.number} does not fit {network} of {listener.name}: 0 to {room - 1} do",
                )
                return False
    return True


def _check_site_lans(config: HubConfig, sites: list[tuple[str, Site]], problems: Problems) -> None:
    seen = [
        (f"listener {listener.name}", network, _span(network))
        for listener in config.listener
        for network in (listener.ipv4, listener.ipv6)
        if network is not None
    ]
    for path, site in sites:
        for lan_path, lan in each(site.lan, f"{path}.lan"):
            span = _span(lan.prefix)
            check_unicast(f"{lan_path}.prefix", lan.prefix, problems)
            for other_path, other, other_span in seen:
                if _overlap(span, other_span):
                    problems.add(
                        f"{lan_path}.prefix",
                        f"return route is ambiguous: {lan.prefix} overlaps {other} of {other_path}",
                    )
            seen.append((lan_path, lan.prefix, span))
            try:
                worker = arithmetic.lan_worker(config, lan.listener, lan.traffic_class)
            except ValueError as error:
                causes = names_of(config.listener, "listener")
                problems.add(lan_path, str(error), f"{lan_path}.listener", f"{lan_path}.class", *causes)
                continue
            if site.number is None and worker not in site.addresses:
                text = f"goes to {worker}, where the site has no address"
                problems.add(lan_path, text, f"{path}.number", f"{path}.addresses")
                continue
            there = next(one for one in config.listener if worker in arithmetic.hub_worker_names(config, one))
            if lan.prefix.version not in _inner_versions(site, worker, there):
                text = f"{lan.prefix} goes to {worker}, where the site has no IPv{lan.prefix.version} address"
                causes = (join(f"{path}.addresses", worker), *_subnets(config, there))
                problems.add(f"{lan_path}.prefix", text, *causes)


def _inner_versions(site: Site, worker: str, listener: Listener) -> set[int]:
    if worker in site.addresses:
        return {address.version for address in site.addresses[worker]}
    return {network.version for network in (listener.ipv4, listener.ipv6) if network is not None}


def _span(network: Network) -> tuple[int, int, int]:
    """IP version, first and last address: quick to compare, for thousands of prefixes."""
    return network.version, int(network.network_address), int(network.broadcast_address)


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[0] == other[0] and one[1] <= other[2] and other[1] <= one[2]
