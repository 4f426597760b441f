"""A host's plan as files of systemd-networkd: its WANs, LANs and VLANs, and what networkd must leave alone. Pure.

networkd then makes the VLANs and gives the addresses; mpq uses what it finds, and sets what is missing. The routes to
what is behind a LAN stay with mpq: they are in tables of its own. See systemd.network(5) and systemd.netdev(5); 252.

A LAN without `address` and `vlan` is set up by somebody else, whose file ours would come before: it has none, also
where it is a trunk. networkd makes the VLANs on it when that file names them; until then mpq does.
"""

from __future__ import annotations

from collections.abc import Iterator

from mpq_supervisor.plan import HostPlan

METRIC = 100
"""Of a WAN's default routes, plus its suffix: no two are the same."""

_Section = tuple[str, list[tuple[str, object]]]


def networkd(plan: HostPlan) -> dict[str, str]:
    """The files, by their path below /."""
    files: dict[str, list[_Section]] = {
        "etc/systemd/networkd.conf.d/mpq.conf": [
            ("Network", [("ManageForeignRoutes", "no"), ("ManageForeignRoutingPolicyRules", "no")])
        ],
        _path("tunnels", "network"): [
            ("Match", [("Name", " ".join(worker.tun for worker in plan.workers))]),
            ("Link", [("Unmanaged", "yes")]),
        ],
        **_vlans(plan),
        **{_path(name, "network"): sections for name, sections in _interfaces(plan).items()},
    }
    head = f"# {plan.role} {plan.name}: made by `mpq-supervisor export networkd`\n"
    texts = {path: head + "".join(_text(*section) for section in sections) for path, sections in files.items()}
    for lan in plan.lans:
        if lan.parent in _others(plan):
            path = _path(lan.interface, "netdev")
            hint = f"# for networkd to make it, the file of {lan.parent} needs VLAN={lan.interface} in [Network]\n"
            texts[path] = texts[path].replace(head, head + hint)
    return texts


# ---------------------------------------------------------------- helpers


def _vlans(plan: HostPlan) -> dict[str, list[_Section]]:
    return {
        _path(lan.interface, "netdev"): [
            ("NetDev", [("Name", lan.interface), ("Kind", "vlan")]),
            ("VLAN", [("Id", lan.vlan)]),
        ]
        for lan in plan.lans
        if lan.vlan is not None
    }


def _interfaces(plan: HostPlan) -> dict[str, list[_Section]]:
    """The sections of each interface: a trunk may be a WAN or a LAN as well."""
    trunks: dict[str, list[tuple[str, object]]] = {}
    for lan in plan.lans:
        if lan.parent is not None:
            trunks.setdefault(lan.parent, []).append(("VLAN", lan.interface))
    found = {
        name: [("Network", [("LinkLocalAddressing", "no"), *vlans])]
        for name, vlans in trunks.items()
        if name not in _others(plan)
    }
    for lan in plan.lans:
        if lan.interface not in _others(plan):
            addresses = [("Address", address) for address in lan.addresses]
            alone = [("IPv6AcceptRA", "no"), ("ConfigureWithoutCarrier", "yes")]
            found[lan.interface] = [("Network", [*addresses, *alone, *trunks.get(lan.interface, ())])]
    keep = ("KeepConfiguration", "dhcp-on-stop")  # a restart of networkd is no event for a tunnel
    for wan in plan.wans:
        metric: list[tuple[str, object]] = [("RouteMetric", METRIC + wan.suffix)]
        found[wan.interface] = [
            ("Network", [("DHCP", "yes"), ("IPv6AcceptRA", "yes"), keep, *trunks.get(wan.interface, ())]),
            ("DHCPv4", metric),
            ("IPv6AcceptRA", metric),
        ]
    return {name: [*_head(name), *sections] for name, sections in found.items()}


def _others(plan: HostPlan) -> set[str]:
    """LANs that somebody else sets up."""
    return {lan.interface for lan in plan.lans if not lan.addresses and lan.vlan is None}


def _head(interface: str) -> Iterator[_Section]:
    yield "Match", [("Name", interface)]
    yield "Link", [("RequiredForOnline", "no")]  # mpq waits by itself, for each link on its own


def _text(section: str, entries: list[tuple[str, object]]) -> str:
    return f"\n[{section}]\n" + "".join(f"{key}={value}\n" for key, value in entries)


def _path(name: str, kind: str) -> str:
    return f"etc/systemd/network/10-mpq-{name}.{kind}"
