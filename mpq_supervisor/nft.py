"""The nftables table `inet mpq`: renders it whole, and applies it as one transaction of the nft program.

Site: what comes in from a LAN is classified once per flow; the flow's mark (kept in conntrack) names its
tunnel, and from there the rules of `network` take it. LAN to WAN is dropped whatever else happens, so that
nothing leaves in clear. Hub: packets through its TUNs must have an inner end, and are masqueraded to the Internet.
Both clamp the MSS of TCP to the tunnel's MTU (RFC 4821 section 3 is no help where ICMP is filtered).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator

from mpq_supervisor.network import version_of
from mpq_supervisor.plan import LAST_RESORT, HostPlan, TunnelPlan
from mpq_supervisor.schema import Rule
from mpq_worker.contract import TrafficClass
from mpq_worker.errors import HostFault

TABLE = "inet mpq"
_TIMEOUT = 10.0  # seconds; it takes some 10 ms
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_HEADERS = {4: 40, 6: 60}  # bytes of IP and TCP header without options
_FAMILY = {4: "ip", 6: "ip6"}


class Table:
    """A table in the kernel, as this process last set it. The elements of its sets are part of it, unless packets
    put them there (`dynamic`)."""

    def __init__(self, name: str, *, dynamic: bool = False) -> None:
        self.changes = 0
        self._name = name
        self._list_options = ("--stateless", "--terse") if dynamic else ("--stateless",)
        self._text = ""
        self._listing = ""

    def apply(self, text: str) -> None:
        """Replaces the whole table by `text`, at once, unless it is there as we left it. Raises HostFault."""
        if text == self._text and self._listing == self._list():
            return
        self.changes += 1
        _nft(["-f", "-"], f"table {self._name}\ndelete table {self._name}\n{text}")
        self._text, self._listing = text, self._list()

    def remove(self) -> None:
        """Removes the table; it may be gone already."""
        self.changes += 1
        _nft(["-f", "-"], f"table {self._name}\ndelete table {self._name}\n")
        self._text = self._listing = ""

    def _list(self) -> str:
        """The table without its counters; empty if there is none."""
        try:
            return _nft([*self._list_options, "list", "table", *self._name.split()])
        except HostFault:
            return ""


def render(plan: HostPlan) -> str:
    """The table as text for `nft -f`."""
    lines = _site(plan) if plan.role == "site" else _hub(plan)
    return f"table {TABLE} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _site(plan: HostPlan) -> Iterator[str]:
    tuns = [tunnel.tun for tunnel in plan.tunnels]
    lans = [lan.interface for lan in plan.lans]
    wans = [wan.interface for wan in plan.wans]
    mask = plan.supervisor.mark_mask
    by_class: dict[str, list[str]] = {}
    for tunnel in plan.tunnels:
        by_class.setdefault(_class_name(tunnel), []).append(tunnel.tun)
    for name in (*by_class, "refused", "leak"):
        yield f"counter {name} {{ }}"

    # A flow keeps the tunnel of its first packet. One chain per tunnel: nft cannot merge two marks under a mask.
    for tunnel in plan.tunnels:
        merge = f"and {~mask & 0xFFFFFFFF:#010x} or {tunnel.mark:#010x}"
        yield from _chain(f"flow_{tunnel.name}", f"ct mark set ct mark {merge}", f"meta mark set meta mark {merge}")
    for traffic_class in TrafficClass:
        to = {lan.interface: lan.tunnels[traffic_class] for lan in plan.lans if traffic_class in lan.tunnels}
        yield from _chain(
            traffic_class.name.lower(),
            *([f"iifname {_verdicts(to)}"] if to else []),
            'counter name "refused" drop',
        )
    yield from _chain(
        "classify",
        *(f"{match} goto {rule.traffic_class.name.lower()}" for rule in plan.rules for match in _matches(rule)),
        f"goto {LAST_RESORT.name.lower()}",
    )
    known = ", ".join(f"{tunnel.mark:#010x} : goto flow_{tunnel.name}" for tunnel in plan.tunnels)
    yield from _chain("from_lan", f"ct mark and {mask:#010x} vmap {{ {known} }}", "goto classify")
    yield from _chain(
        "prerouting",
        "type filter hook prerouting priority mangle; policy accept;",
        *([f"iifname {_names(lans)} goto from_lan"] if lans else []),
        # Marked as well: for its reverse path (netlink.set_tun) and for the answer to a flow that begins outside.
        f"iifname {_verdicts({tunnel.tun: tunnel.name for tunnel in plan.tunnels})}",
    )
    through = (
        f'iifname {_names([*lans, *tuns])} oifname {_names(wans)} counter name "leak" drop',
        f'iifname {_names(tuns)} oifname {_names(tuns)} counter name "refused" drop',
        *(f'oifname {_names(names)} counter name "{name}"' for name, names in by_class.items()),
    )
    yield from _forward(through, ((t.tun, t.mtu) for t in plan.tunnels))
    yield from _chain(
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        f"oifname {_names(tuns)} masquerade",
    )


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
    if plan.nat_interface is not None:
        yield from _chain(
            "postrouting",
            "type nat hook postrouting priority srcnat; policy accept;",
            *(
                f'oifname "{plan.nat_interface}" {family} saddr @inner{version} masquerade'
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


def _matches(rule: Rule) -> Iterator[str]:
    """One or two nft matches for a rule of the classifier: DSCP is read differently in IPv4 and IPv6."""
    match = []
    if rule.ports:
        ports = ", ".join(str(p.first) if p.first == p.last else f"{p.first}-{p.last}" for p in rule.ports)
        match.append(f"{rule.protocol} dport {{ {ports} }}")  # the configuration wants one with ports
    elif rule.protocol is not None:
        match.append(f"meta l4proto {rule.protocol}")
    if not rule.dscp:
        yield " ".join(match)
        return
    for family in _FAMILY.values():
        yield " ".join([*match, f"{family} dscp {{ {', '.join(map(str, rule.dscp))} }}"])


def _class_name(tunnel: TunnelPlan) -> str:
    return "plain" if tunnel.traffic_class is None else tunnel.traffic_class.name.lower()


def _verdicts(tunnels: dict[str, str]) -> str:
    """A map from interfaces to the tunnels that their packets belong to."""
    return "vmap { " + ", ".join(f'"{i}" : goto flow_{name}' for i, name in tunnels.items()) + " }"


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


def _nft(arguments: list[str], text: str = "") -> str:
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostFault(f"nft: {error}") from error
    if done.returncode != 0:
        raise HostFault(f"nft: {done.stderr.strip()}")
    return done.stdout
