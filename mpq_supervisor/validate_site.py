"""The checks of a site's file; see `validate`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from mpq_supervisor import arithmetic
from mpq_supervisor.classifier import CATCH_ALL, WITH_PORTS, rule_name
from mpq_supervisor.decode import join, nearest
from mpq_supervisor.problems import (
    KERNEL_TABLES,
    RESERVED_WORDS,
    Problems,
    check_class,
    check_inner,
    check_interface_length,
    check_prefixes,
    each,
    is_host,
    names_of,
    tunnels_of,
)
from mpq_supervisor.schema import Inner, Prefixes, SiteConfig, Wan
from mpq_supervisor.validate_lan import check_lans

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def check_site(config: SiteConfig, problems: Problems) -> None:
    _check_hub_address(config, problems)
    _check_wans(config, problems)
    if config.inner is not None:
        _check_inner(config, config.inner, problems)
    _check_tunnels(config, problems)
    _check_matrix(config, problems)
    check_lans(config, problems)
    _check_rules(config, problems)


def _check_hub_address(config: SiteConfig, problems: Problems) -> None:
    lists = [("hub.address", config.hub.address)] if config.hub is not None else []
    lists += [(f"{p}.hub_address", wan.hub_address) for p, wan in each(config.wan, "wan")]
    if config.hub is not None:
        if not config.hub.address:
            problems.add("hub.address", "needs at least one address")
        if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", config.hub.name):
            problems.add("hub.name", f'"{config.hub.name}" is neither a host name nor an address')
    for path, addresses in lists:
        for index, address in enumerate(addresses):
            if not is_host(address):
                problems.add(f"{path}[{index}]", f"{address} is no address of a host")
            elif address in addresses[:index]:
                problems.add(f"{path}[{index}]", f"{address} is there twice")


def _check_wans(config: SiteConfig, problems: Problems) -> None:
    wans = list(each(config.wan, "wan"))
    if config.wan == ():
        problems.add("wan", "needs at least one WAN")
    problems.check_unique("WAN", "name", ((path, wan.name) for path, wan in wans))
    problems.check_unique("WAN", "interface", ((path, wan.interface) for path, wan in wans))
    problems.check_unique("WAN", "table", ((path, wan.table) for path, wan in wans if wan.table is not None))
    suffixes = [
        (f"wan[{place}]", arithmetic.suffix_of(place, wan), wan)
        for place, wan in enumerate(config.wan)
        if wan is not None
    ]
    problems.check_unique("WAN", "suffix", ((path, suffix) for path, suffix, _ in suffixes))
    problems.check_unique(
        "WAN", "hub_port", ((path, arithmetic.hub_port(suffix, wan)) for path, suffix, wan in suffixes)
    )
    for path, suffix, wan in suffixes:
        _check_table(config, path, wan, problems)
        _check_fallback(path, wan, [entry.name for _, entry in wans], names_of(config.wan, "wan"), problems)
        if suffix > 9:
            problems.add(path, "is the tenth WAN; there is room for nine")
        if wan.name in RESERVED_WORDS:
            problems.add(f"{path}.name", f'"{wan.name}" means something else to `ctl`')


def _check_table(config: SiteConfig, path: str, wan: Wan, problems: Problems) -> None:
    own = arithmetic.own_tables(config.supervisor.table_base, len(config.lan))
    if wan.table in KERNEL_TABLES:
        problems.add(f"{path}.table", f"{wan.table} is the kernel's")
    elif wan.table in own:
        text = f"{wan.table} is among {own[0]}-{own[-1]}, which follow from supervisor.table_base"
        problems.add(f"{path}.table", text, "supervisor.table_base")


def _check_fallback(path: str, wan: Wan, names: list[str], unsure: tuple[str, ...], problems: Problems) -> None:
    for index, name in enumerate(wan.fallback):
        if name == wan.name:
            problems.add(f"{path}.fallback[{index}]", "is this WAN itself")
        elif name not in names:
            problems.add(f"{path}.fallback[{index}]", f'no WAN "{name}"{nearest(name, names)}', *unsure)
        elif name in wan.fallback[:index]:
            problems.add(f"{path}.fallback[{index}]", f"{name} is there twice")


def _check_inner(config: SiteConfig, inner: Inner, problems: Problems) -> None:
    if inner.ipv4 is None and inner.ipv6 is None:
        problems.add("inner", "needs ipv4, ipv6 or both", "inner.ipv4", "inner.ipv6")
    hub_addresses = config.hub.address if config.hub is not None else ()
    for key, network in (("ipv4", inner.ipv4), ("ipv6", inner.ipv6)):
        if network is None or not check_inner(f"inner.{key}", network, problems):
            continue
        room = arithmetic.site_numbers(network)
        if inner.number >= room:
            problems.add("inner.number", f"{inner.number} does not fit {network}: 0 to {room - 1} do")
        for place, wan in enumerate(config.wan):
            if wan is None:
                continue
            try:
                subnet = arithmetic.nth_subnet(network, arithmetic.suffix_of(place, wan) - 1)
            except ValueError:
                problems.add(f"inner.{key}", f"{network} leaves no subnet for wan[{place}]", f"wan[{place}].suffix")
                continue
            for address in (*hub_addresses, *wan.hub_address):
                if address in subnet:
                    problems.add(f"inner.{key}", f"{subnet} of wan[{place}] contains the hub's address {address}")


def _check_tunnels(config: SiteConfig, problems: Problems) -> None:
    taken = {entry.interface: path for path, entry in each(config.wan, "wan")}
    taken |= {entry.interface: path for path, entry in each(config.lan, "lan")}
    names = {entry.name: path for path, entry in each(config.wan, "wan")}
    for path, wan, tunnels in tunnels_of(config):
        if not tunnels:
            problems.add(path, "carries none of this host's classes", join("matrix", wan.name))
        for name in tunnels:
            check_interface_length(path, "tunnel", name, problems)
            if name in names:
                problems.add(f"{names[name]}.name", f'"{name}" is the name of a tunnel of {path}')
            elif name in taken:
                problems.add(path, f"its tunnel {name} has the name of the interface of {taken[name]}")
            taken[name] = path


def _check_matrix(config: SiteConfig, problems: Problems) -> None:
    names = [wan.name for _, wan in each(config.wan, "wan")]
    for name, carried in config.matrix.items():
        path = join("matrix", name)
        if name not in names and names:
            problems.add(path, f'no WAN "{name}"{nearest(name, names)}', *names_of(config.wan, "wan"))
        for index, traffic_class in enumerate(carried):
            check_class(config, f"{path}[{index}]", traffic_class, problems)
            if traffic_class in carried[:index]:
                problems.add(f"{path}[{index}]", f"{traffic_class.name.lower()} is there twice")


def _check_rules(config: SiteConfig, problems: Problems) -> None:
    for name, entry in config.sets.items():
        path = join("set", name)
        if not _SET_NAME.fullmatch(name):
            problems.add(path, "is no name of a set (up to 32 letters, digits, - and _)")
        if not entry.prefixes and not entry.ports:
            problems.add(path, "is empty", f"{path}.prefixes", f"{path}.ports")
        check_prefixes(f"{path}.prefixes", entry.prefixes, problems)
    rules = list(each(config.rule, "rule"))
    places = [place for place, rule in enumerate(config.rule) if rule is not None]
    names = [(path, rule_name(place, rule)) for place, (path, rule) in zip(places, rules, strict=True)]
    problems.check_unique("rule", "name", names)
    for path, rule in rules:
        check_class(config, f"{path}.class", rule.traffic_class, problems)
        if rule.name == CATCH_ALL.name:
            problems.add(f"{path}.name", f'"{rule.name}" is what matches no rule')
        if rule.ports and rule.protocol not in WITH_PORTS:
            problems.add(f"{path}.ports", f"need protocol = {', '.join(WITH_PORTS)}", f"{path}.protocol")
        _check_sets(config, f"{path}.ports", rule.ports, "ports", problems)
        versions = {4, 6}
        for key, prefixes in (("source", rule.source), ("destination", rule.destination)):
            _check_sets(config, f"{path}.{key}", prefixes, "prefixes", problems)
            check_prefixes(f"{path}.{key}", prefixes, problems)
            versions &= _versions(config, prefixes) or versions
        if not versions:
            problems.add(path, "matches nothing: source and destination are of different IP versions")


def _check_sets(config: SiteConfig, path: str, items: Sequence[object], key: str, problems: Problems) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, str):
            continue
        entry, there = config.sets.get(item[1:]), join("set", item[1:])
        if entry is None:
            problems.add(f"{path}[{index}]", f'no set "{item[1:]}"{nearest(item[1:], config.sets)}', there)
        elif not getattr(entry, key):
            problems.add(f"{path}[{index}]", f'the set "{item[1:]}" has no {key}', f"{there}.{key}")


def _versions(config: SiteConfig, prefixes: Sequence[Prefixes]) -> set[int]:
    """IP versions of prefixes and of those in sets."""
    sets = (config.sets[item[1:]].prefixes for item in prefixes if isinstance(item, str) and item[1:] in config.sets)
    return {n.version for n in (*prefixes, *chain.from_iterable(sets)) if not isinstance(n, str)}
