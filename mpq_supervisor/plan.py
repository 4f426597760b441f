"""A configuration worked out to the last number: what a host runs, and with what. Pure.

The arithmetic is in `arithmetic`; here it is put together into one frozen `HostPlan`, which is all that the
rest of the supervisor knows of a configuration.
"""

from __future__ import annotations

from collections.abc import Iterable

from mpq_supervisor.arithmetic import (
    DEFAULT,
    DEFAULT_CLASSES,
    HUB_HOST,
    LAN_TABLES,
    TUNNEL_ORDER,
    ClassPlan,
    class_plans,
    host,
    hub_port,
    hub_tun,
    hub_worker_names,
    identity_name,
    inner_number,
    lan_mark,
    lan_worker,
    lan_zones,
    mark_shift,
    nth_subnet,
    site_inner,
    source_ports,
    suffix_of,
    tunnel_names,
    wan_table,
)
from mpq_supervisor.classifier import RulePlan, plan_rules
from mpq_supervisor.entries import HostPlan, HubWorkerPlan, LanPlan, TunnelPlan, UnknownName, WanPlan
from mpq_supervisor.schema import (
    Address,
    Config,
    FloodLimits,
    HubConfig,
    Lan,
    Listener,
    Site,
    SiteConfig,
    Wan,
)
from mpq_worker.contract import SiteEntry, TrafficClass, door_of, slot_of

__all__ = [
    "ClassPlan",
    "HostPlan",
    "HubWorkerPlan",
    "LanPlan",
    "RulePlan",
    "TunnelPlan",
    "UnknownName",
    "WanPlan",
    "make_plan",
    "select",
]


def select(plan: HostPlan, word: str) -> tuple[str, ...]:
    """Names of the workers that `word` means: a worker, its TUN, a class, a WAN, a listener, or "all".

    Raises UnknownName.
    """
    groups: dict[str, dict[str, None]] = {"all": {}}
    for worker in plan.workers:
        traffic_class = worker.traffic_class
        words = {"all", worker.name, worker.tun, worker.group}
        if traffic_class is not None:
            words.add(traffic_class.name.lower())
        for known in words:
            groups.setdefault(known, {})[worker.name] = None
    if word not in groups:
        raise UnknownName(word, groups)
    return tuple(groups[word])


def make_plan(config: Config) -> HostPlan:
    """The plan of a configuration that `config.load` accepted."""
    return _plan_site(config) if isinstance(config, SiteConfig) else _plan_hub(config)


# ---------------------------------------------------------------- the two roles


def _plan_site(config: SiteConfig) -> HostPlan:
    classes = class_plans(config.classes)
    wans, tunnels, carried = [], [], {}
    zones = lan_zones(lan.interface for lan in config.lan)
    for place, wan in enumerate(config.wan):
        suffix = suffix_of(place, wan)
        addresses = _texts(wan.hub_address or config.hub.address)
        port = hub_port(suffix, wan)
        wans.append(
            WanPlan(
                name=wan.name,
                interface=wan.interface,
                suffix=suffix,
                table=wan_table(config.supervisor.table_base, suffix, wan),
                hub_addresses=addresses,
                hub_port=port,
                rate_mbit=wan.rate_mbit,
                fallback=wan.fallback,
            )
        )
        names = tunnel_names(config, suffix, wan)
        carried[wan.name] = names
        tunnels += [_plan_tunnel(config, suffix, wan, name, c, addresses, port) for name, c in names.items()]
    return HostPlan(
        role="site",
        name=identity_name(config.identity),
        identity=config.identity,
        hub_name=config.hub.name,
        classes=tuple(classes.values()),
        wans=tuple(wans),
        lans=tuple(
            _plan_lan(config, place, lan, carried[lan.wan], zones[lan.interface])
            for place, lan in enumerate(config.lan)
        ),
        rules=plan_rules(config.rule, config.sets, classes),
        sets={name: tuple(map(str, entry.prefixes)) for name, entry in config.sets.items()},
        tunnels=tuple(tunnels),
        hub_workers=(),
        nat_interface=None,
        nat_lans=False,
        limits=FloodLimits(),
        supervisor=config.supervisor,
        watchdog=config.watchdog,
        portal=config.portal,
    )


def _plan_tunnel(
    config: SiteConfig,
    suffix: int,
    wan: Wan,
    name: str,
    traffic_class: TrafficClass | None,
    hub_addresses: tuple[str, ...],
    port: int,
) -> TunnelPlan:
    supervisor, inner = config.supervisor, config.inner
    position = TUNNEL_ORDER.index(traffic_class) if traffic_class is not None else 0
    index = 3 * (suffix - 1) + position
    net4 = nth_subnet(inner.ipv4, suffix - 1) if inner.ipv4 else None
    net6 = nth_subnet(inner.ipv6, suffix - 1) if inner.ipv6 else None
    number = inner_number(inner.number, traffic_class)
    kind = _kind(class_plans(config.classes), traffic_class)
    return TunnelPlan(
        name=name,
        traffic_class=traffic_class,
        wan=wan.name,
        interface=wan.interface,
        index=index,
        source_ports=source_ports(supervisor.source_port_base, suffix, traffic_class),
        hub_addresses=hub_addresses,
        hub_port=port,
        door=door_of(traffic_class),
        inner4=host(net4, number) if net4 else None,
        inner6=host(net6, number) if net6 else None,
        peer4=host(net4, HUB_HOST) if net4 else None,
        peer6=host(net6, HUB_HOST) if net6 else None,
        mtu=wan.mtu,
        table=supervisor.table_base + index,
        mark=(index + 1) << mark_shift(supervisor.mark_mask),
        dscp=kind.dscp,
        priority=kind.priority,
        txqueuelen=kind.txqueuelen,
        uid=supervisor.uid_base + index,
    )


def _plan_lan(
    config: SiteConfig, place: int, lan: Lan, carried: dict[str, TrafficClass | None], zone: int
) -> LanPlan:
    routers = {gateway.version: str(gateway) for gateway in lan.gateway}
    return LanPlan(
        name=lan.name,
        interface=lan.interface,
        wan=lan.wan,
        tunnels=_lan_tunnels(carried),
        traffic_class=lan.traffic_class,
        vlan=lan.vlan,
        parent=lan.parent,
        addresses=tuple(map(str, lan.address)),
        behind=tuple((str(prefix), routers.get(prefix.version)) for prefix in lan.prefixes),
        masquerade=lan.masquerade,
        table=config.supervisor.table_base + LAN_TABLES + place,
        mark=lan_mark(config.supervisor.mark_mask, place),
        zone=zone,
    )


def _lan_tunnels(names: dict[str, TrafficClass | None]) -> dict[TrafficClass, str]:
    """A class that a WAN does not carry goes down to the next lower one that it does, never up: bulk must not
    get at the tunnel of critical. What is left out has no tunnel and is refused."""
    by_class = {c: name for name, c in names.items()}
    chosen: dict[TrafficClass, str] = {}
    for place, traffic_class in enumerate(TrafficClass):
        for candidate in (None, *tuple(TrafficClass)[place:]):
            if candidate in by_class:
                chosen[traffic_class] = by_class[candidate]
                break
    return chosen


def _plan_hub(config: HubConfig) -> HostPlan:
    workers = [
        _plan_hub_worker(config, place, listener, name, traffic_class)
        for place, listener in enumerate(config.listener)
        for name, traffic_class in hub_worker_names(config, listener).items()
    ]
    return HostPlan(
        role="hub",
        name=identity_name(config.identity),
        identity=config.identity,
        hub_name=identity_name(config.identity),
        classes=tuple(class_plans(config.classes).values()),
        wans=(),
        lans=(),
        rules=(),
        sets={},
        tunnels=(),
        hub_workers=tuple(workers),
        nat_interface=config.nat.interface if config.nat else None,
        nat_lans=config.nat.lans if config.nat else False,
        limits=config.limits,
        supervisor=config.supervisor,
        watchdog=config.watchdog,
        portal=config.portal,
    )


def _plan_hub_worker(
    config: HubConfig, place: int, listener: Listener, name: str, traffic_class: TrafficClass | None
) -> HubWorkerPlan:
    index = 3 * place + (traffic_class or 0)
    networks = [network for network in (listener.ipv4, listener.ipv6) if network is not None]
    kind = _kind(class_plans(config.classes), traffic_class)
    known = (_site_entry(config, site, listener, name, traffic_class) for site in config.site)
    entries = tuple(entry for entry in known if entry is not None)
    return HubWorkerPlan(
        name=name,
        listener=listener.name,
        traffic_class=traffic_class,
        tun=hub_tun(listener, traffic_class),
        index=index,
        slot=slot_of(traffic_class),
        port=listener.port,
        addresses=_texts(listener.address),
        inner4=host(listener.ipv4, HUB_HOST) if listener.ipv4 else None,
        inner6=host(listener.ipv6, HUB_HOST) if listener.ipv6 else None,
        subnets=tuple(str(network) for network in networks),
        sites=entries,
        routes=tuple(
            route
            for entry in entries
            for route in (*(f"{a}/{128 if ':' in a else 32}" for a in entry.inner), *entry.prefixes)
        ),
        mtu=listener.mtu,
        dscp=kind.dscp,
        priority=kind.priority,
        txqueuelen=kind.txqueuelen,
        uid=config.supervisor.uid_base + index,
    )


def _site_entry(
    config: HubConfig, site: Site, listener: Listener, worker: str, traffic_class: TrafficClass | None
) -> SiteEntry | None:
    """What a worker is told of a site; None if the site has no address there. Who is revoked is told so."""
    if site.revoked:
        return SiteEntry(site.name, site.uri, ())
    inner = site_inner(site, listener, worker, traffic_class)
    lans = (lan for lan in site.lan if lan_worker(config, lan.listener, lan.traffic_class) == worker)
    return SiteEntry(site.name, site.uri, inner, tuple(str(lan.prefix) for lan in lans)) if inner else None


def _kind(plans: dict[TrafficClass, ClassPlan], traffic_class: TrafficClass | None) -> ClassPlan:
    """A worker without a class carries all of them and is marked as default."""
    wanted = DEFAULT if traffic_class is None else traffic_class
    return plans.get(wanted, DEFAULT_CLASSES[wanted])


def _texts(addresses: Iterable[Address]) -> tuple[str, ...]:
    return tuple(str(address) for address in addresses)
