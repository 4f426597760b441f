"""The other end of a site's trunk: the uci commands for an OpenWrt router in front of it. Pure.

    each [[lan]] with a `vlan`   an interface of the router on the trunk (mpq11, for IPv6 mpq11_6), by the site; on
                                 the second of several trunks it is mpq11t2
    these together               the firewall zone `mpq`, which the zone `lan` may forward to
    LANs with a class            mwan3: a policy per class over their interfaces in the order of the file, and the
                                 classifier's rules; an interface is good while the hub answers through its tunnel
    LANs without one             the classifier's rules as DSCP marks

Names in mwan3 have 15 characters at most, so they are made of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from itertools import product
from typing import NamedTuple

from mpq_supervisor.classifier import CATCH_ALL, RulePlan
from mpq_supervisor.network import version_of
from mpq_supervisor.plan import HostPlan, LanPlan
from mpq_worker.contract import TrafficClass

FIRST_METRIC = 10
_FAMILY = {4: "ipv4", 6: "ipv6"}


class TrunkFault(Exception):
    """Why the VLANs cannot be on these trunks."""


class _Vlan(NamedTuple):
    """A LAN as the router has it: on which of its devices, and how its interface for IPv4 is called."""

    lan: LanPlan
    trunk: str
    name: str


def openwrt(plan: HostPlan, trunks: Sequence[str]) -> list[str]:
    """The commands, with comments; `trunks` are the router's devices that lead to the site: one for all, or one for
    each parent of VLANs, in the order of the file. Raises TrunkFault."""
    lans = _vlans(plan, trunks)
    bound = [one for one in lans if one.lan.traffic_class is not None]
    return [
        *(line for place, one in enumerate(lans) for line in _interfaces(one, FIRST_METRIC + place)),
        *_zone(lans),
        *(_mwan3(plan, bound) if bound else ()),
        *(_marks(plan) if len(bound) < len(lans) else ()),
        *(f"uci commit {package}" for package in ("network", "firewall", *(["mwan3"] if bound else []))),
        "service network reload",
        "service firewall restart",
        *(["service mwan3 restart"] if bound else []),
    ]


# ---------------------------------------------------------------- network and firewall


def _vlans(plan: HostPlan, trunks: Sequence[str]) -> list[_Vlan]:
    parents = list(dict.fromkeys(lan.parent for lan in plan.lans if lan.parent is not None))
    if not parents:
        raise TrunkFault("lan: none has a vlan, so there is no trunk to a router")
    if len(trunks) not in (1, len(parents)):
        raise TrunkFault(f"--trunk: one for all, or one each for {', '.join(parents)}")
    of = dict(zip(parents, [*trunks] * len(parents), strict=False))
    devices = list(dict.fromkeys(trunks))
    found: dict[tuple[str, int], _Vlan] = {}
    for lan in plan.lans:
        if lan.vlan is None or lan.parent is None:
            continue
        trunk = of[lan.parent]
        number = devices.index(trunk) + 1
        other = found.get((trunk, lan.vlan))
        if other is not None:
            text = f"VLAN {lan.vlan} is there twice on {trunk}: {other.lan.interface} and {lan.interface}"
            raise TrunkFault(f"{text}; --trunk: one each for {', '.join(parents)}")
        found[trunk, lan.vlan] = _Vlan(lan, trunk, f"mpq{lan.vlan}" + (f"t{number}" if number > 1 else ""))
    return list(found.values())


def _interfaces(vlan: _Vlan, metric: int) -> Iterator[str]:
    lan, trunk, _ = vlan
    yield f"# {lan.name}: VLAN {lan.vlan}"
    device = f"{trunk}.{lan.vlan}"
    yield from _section(
        f"network.{_name(vlan, 4)}_dev", "device", {"type": "8021q", "ifname": trunk, "vid": lan.vlan, "name": device}
    )
    for version, (own, site) in _ends(lan).items():
        keys = ("ipaddr", "gateway") if version == 4 else ("ip6addr", "ip6gw")
        addresses = dict(zip(keys, (own, site), strict=True))
        yield from _section(
            f"network.{_name(vlan, version)}",
            "interface",
            {"device": device, "proto": "static", **addresses, "metric": metric},
        )
    if not _ends(lan):
        yield f"# the router's address is not known: lan {lan.name} has no address with a gateway in its subnet"


def _zone(lans: list[_Vlan]) -> Iterator[str]:
    yield "# the site masquerades, the router does not"
    networks = " ".join(_name(one, version) for one in lans for version in _ends(one.lan))
    zone = {"name": "mpq", "network": networks, "input": "REJECT", "output": "ACCEPT", "forward": "REJECT"}
    yield from _section("firewall.mpq", "zone", {**zone, "masq": 0, "mtu_fix": 1})
    yield from _section("firewall.mpq_lan", "forwarding", {"src": "lan", "dest": "mpq"})


def _ends(lan: LanPlan) -> dict[int, tuple[str, str]]:
    """By IP version, the router's address (with prefix length) and the site's; where the file names a gateway."""
    found: dict[int, tuple[str, str]] = {}
    for own, gateway in product(map(ip_interface, lan.addresses), {gateway for _, gateway in lan.behind if gateway}):
        if ip_address(gateway) in own.network:
            found.setdefault(own.version, (f"{gateway}/{own.network.prefixlen}", str(own.ip)))
    return found


# ---------------------------------------------------------------- which class goes where


def _mwan3(plan: HostPlan, lans: list[_Vlan]) -> Iterator[str]:
    members: dict[TrafficClass, list[str]] = {}
    for one, tunnel in product(lans, plan.tunnels):
        lan = one.lan
        if lan.traffic_class is None or tunnel.name != lan.bound:
            continue
        others = members.setdefault(lan.traffic_class, [])
        metric = len(others) + 1
        for version, peer in ((version_of(peer), peer) for peer in tunnel.peers):
            if version in _ends(lan):
                name = _name(one, version)
                yield f"# {name}: {tunnel.name}"
                yield from _section(f"mwan3.{name}", "interface", {"enabled": 1, "family": _FAMILY[version]})
                yield from _list(f"mwan3.{name}.track_ip", [peer])
                member = {"interface": name, "metric": metric, "weight": 1}
                yield from _section(f"mwan3.{name}_m", "member", member)
                others.append(f"{name}_m")
    for traffic_class, names in members.items():
        policy = f"mwan3.{_policy(traffic_class)}"
        yield from _section(policy, "policy", {"last_resort": "unreachable"})
        yield from _list(f"{policy}.use_member", names)
    for place, rule in enumerate((*plan.rules, CATCH_ALL)):
        yield f"# {rule.name}: {rule}"
        if rule.traffic_class not in members:
            yield "# no interface is of its class: the rules below decide"
        elif rule.dscp:
            yield "# mwan3 does not look at DSCP: the rules below decide"
        else:
            for number, fields in enumerate(_matches(rule, plan)):
                fields["use_policy"] = _policy(rule.traffic_class)
                yield from _section(f"mwan3.mpq_{place}_{number}", "rule", fields)


def _marks(plan: HostPlan) -> Iterator[str]:
    dscp = {entry.traffic_class: entry.dscp for entry in plan.classes}
    yield "# for interfaces without a class: DSCP tells the site, where a rule of its own looks at it"
    for place, rule in enumerate(plan.rules):
        for number, fields in enumerate(_matches(rule, plan) if not rule.dscp else ()):
            way = {"name": f"mpq {rule.name}", "src": "lan", "dest": "mpq"}
            ports = {"dest_port": fields["dest_port"].replace(":", "-").replace(",", " ")} if rule.ports else {}
            mark = {"target": "DSCP", "set_dscp": dscp[rule.traffic_class]}
            values = {**way, "proto": "all", **fields, **ports, **mark}
            yield from _section(f"firewall.mpq_{place}_{number}", "rule", values)


def _policy(traffic_class: TrafficClass) -> str:
    return f"mpq_{traffic_class.name.lower()}"


def _matches(rule: RulePlan, plan: HostPlan) -> Iterator[dict[str, str]]:
    """The fields of a rule but for DSCP, in the words of mwan3, once for each pair of prefixes of one IP version."""
    ports = ",".join(str(p.first) if p.first == p.last else f"{p.first}:{p.last}" for p in rule.ports)
    fixed = {"proto": rule.protocol or "", "dest_port": ports}
    for source, destination in product(*(_prefixes(items, plan) for items in (rule.source, rule.destination))):
        if source and destination and version_of(source) != version_of(destination):
            continue
        fields = {**fixed, "src_ip": source, "dest_ip": destination}
        if source or destination:
            fields["family"] = _FAMILY[version_of(source or destination)]
        yield {key: value for key, value in fields.items() if value}


def _prefixes(items: tuple[str, ...], plan: HostPlan) -> list[str]:
    return [p for item in items for p in (plan.sets[item[1:]] if item[0] == "@" else (item,))] or [""]


# ---------------------------------------------------------------- uci


def _name(vlan: _Vlan, version: int) -> str:
    return vlan.name if version == 4 else f"{vlan.name}_6"


def _section(path: str, kind: str, values: Mapping[str, object]) -> Iterator[str]:
    yield f"uci set {path}={kind}"
    yield from (f"uci set {path}.{key}='{value}'" for key, value in values.items())


def _list(path: str, values: Iterable[str]) -> Iterator[str]:
    """A list of exactly these, whatever there was."""
    yield f"uci -q delete {path}"
    yield from (f"uci add_list {path}='{value}'" for value in values)
