"""The nftables table `inet mpq` as text. Pure.

Site: what comes in from a LAN is classified once per flow (`rulemap`), or belongs to the class of its interface; the
flow's mark (kept in conntrack) names its tunnel, and from there the rules of `desired` take it. Its zone names the
LAN, for the way back: several may have the same prefix. LAN to WAN is dropped whatever else happens, so that nothing
leaves in clear. Hub: packets through its TUNs must have an inner end, and are masqueraded to the Internet. Both clamp
the MSS of TCP to the tunnel's MTU (RFC 4821 section 3 is no help where ICMP is filtered).

    raw          zones     flows of a LAN are not mixed up with those of another
    mangle       prerouting → from_lan → lan_NAME, classify4|6 → rule_NAME → critical|default|bulk → flow_TUNNEL
                            → lan_NAME   of an answer, that of the LAN which began
                 prerouting → from_tunnel → flow_TUNNEL, lan_NAME
                 answers → lan_NAME   of this host itself
    mangle + 1   refused   counts what no tunnel takes: the routing tables are about to refuse it
    filter       forward   leak, counters per class, MSS
    srcnat       postrouting
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mpq_supervisor.arithmetic import lan_mask, tunnel_mask
from mpq_supervisor.classifier import CATCH_ALL
from mpq_supervisor.network import version_of
from mpq_supervisor.plan import HostPlan, TunnelPlan
from mpq_supervisor.rulemap import rule_lines, set_name
from mpq_worker.contract import TrafficClass

TABLE = "inet mpq"
_HEADERS = {4: 40, 6: 60}  # bytes of IP and TCP header without options
_FAMILY = {4: "ip", 6: "ip6"}


def render(plan: HostPlan) -> str:
    """The table as text for `nft -f`."""
    lines = _site(plan) if plan.role == "site" else _hub(plan)
    return f"table {TABLE} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _site(plan: HostPlan) -> Iterator[str]:
    tuns = [tunnel.tun for tunnel in plan.tunnels]
    lans = [lan.interface for lan in plan.lans]
    routed = [lan.interface for lan in plan.lans if not lan.masquerade]
    wans = [wan.interface for wan in plan.wans]
    by_class: dict[str, list[str]] = {}
    for tunnel in plan.tunnels:
        by_class.setdefault(_class_name(tunnel), []).append(tunnel.tun)
    refused = dict.fromkeys([*by_class, *(c.name.lower() for c in TrafficClass)])
    rules = [*plan.rules, CATCH_ALL]
    for name in (*by_class, *(f"refused_{name}" for name in refused), "crossed", "leak", "transit"):
        yield f"counter {name} {{ }}"
    for rule in rules:
        yield f"counter rule_{rule.name} {{ }}"
    for name, prefixes in plan.sets.items():
        for version in _FAMILY:
            yield from _set(set_name(name, version), version, prefixes)

    yield from _marks(plan)
    for rule in rules:
        to = rule.traffic_class.name.lower()
        yield from _chain(f"rule_{rule.name}", f'counter name "rule_{rule.name}" goto {to}')
    for version in _FAMILY:
        lines = rule_lines(plan.rules, plan.sets, version)
        yield from _chain(f"classify{version}", *lines, f"goto rule_{CATCH_ALL.name}")
    if lans:
        yield from _arriving(plan, lans)
    yield from _chain(
        "from_tunnel",
        # Marked as well: for its reverse path (netlink.set_tun) and for the answer to a flow that begins outside.
        f"iifname {_verdicts({tunnel.tun: f'flow_{tunnel.name}' for tunnel in plan.tunnels}, 'jump')}",
        *([_lan_of_flow(plan)] if lans else []),
    )
    yield from _chain(
        "prerouting",
        "type filter hook prerouting priority mangle; policy accept;",
        # What is for all on its link stays there, and is no news for the rules.
        *([f"iifname {_names(lans)} meta pkttype host goto from_lan"] if lans else []),
        f"iifname {_names(tuns)} goto from_tunnel",
    )
    through = (
        f'iifname {_names([*lans, *tuns])} oifname {_names(wans)} counter name "leak" drop',
        f'iifname {_names(tuns)} oifname {_names(tuns)} counter name "crossed" drop',
        f'iifname {_names(wans)} oifname {_names(wans)} counter name "transit" drop',
        *(f'oifname {_names(names)} counter name "{name}"' for name, names in by_class.items()),
    )
    yield from _forward(through, ((t.tun, t.mtu) for t in plan.tunnels))
    yield from _chain(
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        *([f"iifname {_names(routed)} oifname {_names(tuns)} accept"] if routed else []),
        f"oifname {_names(tuns)} masquerade",
    )


def _marks(plan: HostPlan) -> Iterator[str]:
    """A flow keeps the tunnel of its first packet. A chain for each mark: nft cannot merge two under a mask."""
    mask = plan.supervisor.mark_mask
    for tunnel in plan.tunnels:
        merge = _merge(tunnel_mask(mask), tunnel.mark)
        yield from _chain(f"flow_{tunnel.name}", f"ct mark set ct mark {merge}", f"meta mark set meta mark {merge}")
    for lan in plan.lans:
        yield from _chain(f"lan_{lan.name}", f"meta mark set meta mark {_merge(lan_mask(mask), lan.mark)}")
    lans = [lan.interface for lan in plan.lans]
    elsewhere = f"fib daddr type unicast fib daddr oifname != {_names(lans)}"
    for traffic_class in TrafficClass:
        name = traffic_class.name.lower()
        to = {
            lan.interface: f"flow_{lan.tunnels[traffic_class]}" for lan in plan.lans if traffic_class in lan.tunnels
        }
        # What is left has no mark of a tunnel. The rules pass it to this host and to LANs, and refuse all else.
        yield from _chain(
            name,
            *([f"iifname {_verdicts(to)}"] if to else []),
            *([f'{elsewhere} counter name "refused_{name}"'] if lans else []),
        )


def _arriving(plan: HostPlan, lans: list[str]) -> Iterator[str]:
    mask = tunnel_mask(plan.supervisor.mark_mask)
    marks = {lan.interface: f"lan_{lan.name}" for lan in plan.lans}
    known = ", ".join(f"{tunnel.mark:#010x} : goto flow_{tunnel.name}" for tunnel in plan.tunnels)
    bound = {lan.interface: lan.traffic_class.name.lower() for lan in plan.lans if lan.traffic_class is not None}
    by_version = ", ".join(f"ipv{version} : goto classify{version}" for version in _FAMILY)
    yield from _chain(
        "from_lan",
        # Its own mark is for what it is told by ICMP; answers have that of the LAN that they are for.
        f"iifname {_verdicts(marks, 'jump')}",
        f"ct direction reply {_lan_of_flow(plan, 'jump')}",
        f"ct mark and {mask:#010x} vmap {{ {known} }}",
        *([f"iifname {_verdicts(bound)}"] if bound else []),
        f"meta nfproto vmap {{ {by_version} }}",
    )
    zones = ", ".join(f'"{lan.interface}" : {lan.zone}' for lan in plan.lans)
    yield from _chain(
        "zones",
        "type filter hook prerouting priority raw; policy accept;",
        f"ct original zone set iifname map {{ {zones} }}",
    )
    yield from _chain(
        "answers",
        "type route hook output priority mangle; policy accept;",
        _lan_of_flow(plan),
    )
    # The FIB is asked what it will say, so this counts also when nobody is left to know the tunnels' states.
    counters = ", ".join(f'{tunnel.mark:#010x} : "refused_{_class_name(tunnel)}"' for tunnel in plan.tunnels)
    yield from _chain(
        "refused",
        "type filter hook prerouting priority mangle + 1; policy accept;",
        f"iifname {_names(lans)} fib daddr . mark oif missing fib daddr type unicast "
        f"counter name meta mark and {mask:#010x} map {{ {counters} }}",
    )


def _lan_of_flow(plan: HostPlan, verb: str = "goto") -> str:
    """Marks what belongs to a flow that a LAN began with that LAN: its zone has been kept."""
    return "ct original zone vmap { " + ", ".join(f"{lan.zone} : {verb} lan_{lan.name}" for lan in plan.lans) + " }"


def _hub(plan: HostPlan) -> Iterator[str]:
    tuns = [worker.tun for worker in plan.hub_workers]
    subnets = [subnet for worker in plan.hub_workers for subnet in worker.subnets]
    prefixes = [prefix for worker in plan.hub_workers for site in worker.sites for prefix in site.prefixes]
    yield "counter foreign { }"
    for version in _FAMILY:
        yield from _set(f"inner{version}", version, subnets)
        yield from _set(f"behind{version}", version, (*subnets, *prefixes))
    through = [
        f'{direction} {_names(tuns)} {family} {end} != @behind{version} counter name "foreign" drop'
        for version, family in _FAMILY.items()
        for direction, end in (("iifname", "saddr"), ("oifname", "daddr"))
    ]
    yield from _forward(through, ((w.tun, w.mtu) for w in plan.hub_workers))
    inside = "behind" if plan.nat_lans else "inner"
    if plan.nat_interface is not None:
        yield from _chain(
            "postrouting",
            "type nat hook postrouting priority srcnat; policy accept;",
            *(
                f'oifname "{plan.nat_interface}" {family} saddr @{inside}{version} masquerade'
                for version, family in _FAMILY.items()
            ),
        )


def _forward(first: Iterable[str], mtus: Iterable[tuple[str, int]]) -> Iterator[str]:
    by_mtu: dict[int, list[str]] = {}
    for tun, mtu in mtus:
        by_mtu.setdefault(mtu, []).append(tun)
    yield from _chain(
        "forward",
        "type filter hook forward priority filter; policy accept;",
        *first,
        *(
            f"meta nfproto ipv{version} {direction} {_names(tuns)} tcp flags & (syn | rst) == syn "
            f"tcp option maxseg size set {mtu - header}"  # the kernel only ever lowers it
            for mtu, tuns in by_mtu.items()
            for direction in ("iifname", "oifname")
            for version, header in _HEADERS.items()
        ),
    )


def _class_name(tunnel: TunnelPlan) -> str:
    return "plain" if tunnel.traffic_class is None else tunnel.traffic_class.name.lower()


def _merge(mask: int, mark: int) -> str:
    """Puts a mark in the place of what is under its mask."""
    return f"and {~mask & 0xFFFFFFFF:#010x} or {mark:#010x}"


def _verdicts(chains: dict[str, str], verb: str = "goto") -> str:
    """A map from interfaces to the chains of their packets."""
    return "vmap { " + ", ".join(f'"{interface}" : {verb} {chain}' for interface, chain in chains.items()) + " }"


def _chain(name: str, *rules: str) -> Iterator[str]:
    yield f"chain {name} {{"
    yield from (f"\t{rule}" for rule in rules)
    yield "}"


def _set(name: str, version: int, prefixes: Iterable[str]) -> Iterator[str]:
    elements = ", ".join(dict.fromkeys(p for p in prefixes if version_of(p) == version))
    yield f"set {name} {{"
    yield f"\ttype ipv{version}_addr; flags interval; auto-merge;"
    if elements:
        yield f"\telements = {{ {elements} }}"
    yield "}"


def _names(interfaces: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in dict.fromkeys(interfaces)) + " }"
