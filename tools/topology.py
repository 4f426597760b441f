"""What the lab looks like, as text for `ip -batch`, `tc` and `nft`. Pure: it renders, `lab.py` executes.

      lan               site               link             router              hub             server
    ┌──────┐         ┌───────────┐     ┌───────────┐     ┌──────────┐      ┌───────────┐      ┌────────┐
    │ lan1 ├─────────┤ lan1 wan4 ├─────┤ s4 ═══ u4 ├─────┤ r4       │      │           │      │        │
    │ lan2 ├─────────┤ lan2 wan5 ├─────┤ s5 ═══ u5 ├─────┤ r5  core ├──────┤ ens3  srv ├──────┤ eth0   │
    │ lan3 ├─────────┤ lan3 wan6 ├─────┤ s6 ═══ u6 ├─────┤ r6       │      │           │      │        │
    └──────┘         └───────────┘     └───────────┘     └──────────┘      └───────────┘      └────────┘
     up ────>  .9 172.16.N.0/24 .1     ═ the relay:      core  .1  198.51.100.0/24    .2  ens3
    <──── down ::9 fd00:16:N::/64 ::1  delay, reorder          ::1 2001:db8:100::/64  ::2
                                                         srv   .1  203.0.113.0/24     .10 eth0
     wanK .2  100.64.K.0/24     .1  rK                         ::1 2001:db8:200::/64  ::10
          ::2 2001:db8:K::/64  ::1

A WAN's rate is limited by TBF at the router's side: u upwards, r downwards. Loss and leaks are nft rules in the
router. Namespaces are called `{prefix}-{role}`. Without a relay there is no link: wanK and rK are one veth.
A WAN behind a NAT is seen by the hub as 198.18.K.N.
The router has no route to the LANs or the inner addresses, and counts whoever tries: that is traffic in clear.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Literal

LANS = (1, 2, 3)
WANS = (4, 5, 6)
HUB = "198.51.100.2"
HUB6 = "2001:db8:100::2"
SERVER = "203.0.113.10"
SERVER6 = "2001:db8:200::10"

Role = Literal["lan", "site", "link", "router", "hub", "server"]
Direction = Literal["up", "down", "both"]
ROLES: tuple[Role, ...] = ("lan", "site", "link", "router", "hub", "server")

# Addresses that must never be seen outside a tunnel: the LANs, the inner networks, and every unique local one.
INNER = "{ 172.16.0.0/16, 10.200.0.0/16 }"
INNER6 = "fd00::/8"
_NAT = "198.18.{wan}.0/24"
_PORTS = "{ " + ", ".join(f'"r{k}"' for k in WANS) + " }"


@dataclass(frozen=True)
class Flow:
    """Packets between site and hub, in the router: of the site's UDP ports, the hub's, a WAN; no field, all."""

    sports: tuple[int, ...] = ()
    port: int | None = None
    wan: int | None = None


@dataclass(frozen=True)
class Loss:
    """What the router does to a flow: drop this many packets per thousand, each by its own lot."""

    flow: Flow
    permille: int
    direction: Direction


def directions(direction: Direction) -> tuple[Literal["up", "down"], ...]:
    """`both` spelt out."""
    return ("up", "down") if direction == "both" else (direction,)


def lan_address(lan: int) -> str:
    """IPv4 address of the host behind the site on LAN `lan`."""
    return f"172.16.{lan}.9"


def sysctls(role: Role) -> dict[str, str]:
    """Settings of one namespace below /proc/sys, to be made before it has interfaces (they inherit `default`)."""
    values = {
        "net/ipv4/ping_group_range": "0 2147483647",  # unprivileged ICMP echo sockets: the kernel sorts replies
        "net/ipv6/conf/default/keep_addr_on_down": "1",
    }
    for scope in ("all", "default"):
        values[f"net/ipv6/conf/{scope}/accept_dad"] = "0"
        values[f"net/ipv4/conf/{scope}/rp_filter"] = "2" if role in ("site", "hub") else "0"
        if role in ("site", "hub", "router"):
            values[f"net/ipv6/conf/{scope}/forwarding"] = "1"
            values[f"net/ipv6/conf/{scope}/accept_ra"] = "2"
        if role == "link":
            values[f"net/ipv6/conf/{scope}/disable_ipv6"] = "1"
    if role in ("site", "hub", "router"):
        values["net/ipv4/ip_forward"] = "1"
    return values


def links(prefix: str, relay: bool) -> list[str]:
    """`ip -batch` lines that make every veth pair, each end born in its namespace."""

    def veth(one: Role, name: str, other: Role, peer: str) -> str:
        return f"link add {name} netns {prefix}-{one} type veth peer name {peer} netns {prefix}-{other}"

    lines = [veth("lan", f"lan{n}", "site", f"lan{n}") for n in LANS]
    for k in WANS:
        if relay:
            lines += [veth("site", f"wan{k}", "link", f"s{k}"), veth("link", f"u{k}", "router", f"r{k}")]
        else:
            lines.append(veth("site", f"wan{k}", "router", f"r{k}"))
    return [*lines, veth("router", "core", "hub", "ens3"), veth("hub", "srv", "server", "eth0")]


def addresses(role: Role) -> list[str]:
    """`ip -batch` lines to run inside the namespace of `role`: links up, addresses, routes, rules."""
    return ["link set lo up", *_ADDRESSES[role]()]


def link_up(device: str, *prefixes: str) -> list[str]:
    """`ip -batch` lines that set an interface up and give it addresses."""
    return [f"link set {device} up", *(f"addr add {p} dev {device}{' nodad' * (':' in p)}" for p in prefixes)]


def _default(address: str) -> str:
    """The default route of an address's family; `ip -batch` knows no -6 and tells the family by the prefix."""
    return "::/0" if ":" in address else "0.0.0.0/0"


def _lan() -> list[str]:
    lines = []
    for n in LANS:
        lines += link_up(f"lan{n}", f"{lan_address(n)}/24", f"fd00:16:{n}::9/64")
        for gateway in (f"172.16.{n}.1", f"fd00:16:{n}::1"):
            route = f"route add {_default(gateway)} via {gateway} dev lan{n}"
            lines += [f"{route} table {n}", f"{route} metric {n}"]
        lines.append(f"rule add from {lan_address(n)} table {n}")
    return lines


def lan_rules6() -> list[str]:
    """`ip -6 -batch` lines for the LAN host: rules are the one thing whose family ip does not tell by the address."""
    return [f"rule add from fd00:16:{n}::9 table {n}" for n in LANS]


def _site() -> list[str]:
    lines = []
    for n in LANS:
        lines += link_up(f"lan{n}", f"172.16.{n}.1/24", f"fd00:16:{n}::1/64")
    for k in WANS:
        lines.append(f"link set wan{k} up")
        lines += [*wan_lease(k, f"100.64.{k}.2/24"), *wan_lease(k, f"2001:db8:{k}::2/64")]
    return lines


def wan_lease(wan: int, address: str) -> list[str]:
    """Address and default route of a WAN as DHCP would set them, in place of those of the same family it had."""
    interface = ip_interface(address)
    default = _default(address)
    return [
        f"addr flush dev wan{wan} to {default} scope global",
        f"addr add {address} dev wan{wan}{' nodad' * (interface.version == 6)}",
        f"route replace {default} via {interface.network[1]} dev wan{wan} proto dhcp metric {100 + wan}",
    ]


def router_address(address: str) -> str:
    """The router's address, with prefix length, in the subnet of a WAN's `address`: the first one."""
    network = ip_interface(address).network
    return f"{network[1]}/{network.prefixlen}"


def _link() -> list[str]:
    return [f"link set {side}{k} up arp off" for k in WANS for side in "su"]


def _router() -> list[str]:
    lines = []
    for k in WANS:
        lines += link_up(f"r{k}", f"100.64.{k}.1/24", f"2001:db8:{k}::1/64")
    return [
        *lines,
        *link_up("core", "198.51.100.1/24", "2001:db8:100::1/64"),
        f"route add 203.0.113.0/24 via {HUB}",
        f"route add 2001:db8:200::/64 via {HUB6}",
    ]


def _hub() -> list[str]:
    return [
        *link_up("ens3", f"{HUB}/24", f"{HUB6}/64"),
        *link_up("srv", "203.0.113.1/24", "2001:db8:200::1/64"),
        "route add default via 198.51.100.1",
        "route add ::/0 via 2001:db8:100::1",
    ]


def _server() -> list[str]:
    return [
        *link_up("eth0", f"{SERVER}/24", f"{SERVER6}/64"),
        "route add default via 203.0.113.1",
        "route add ::/0 via 2001:db8:200::1",
    ]


_ADDRESSES = {"lan": _lan, "site": _site, "link": _link, "router": _router, "hub": _hub, "server": _server}


def leak_table() -> str:
    """nft table of the router that counts and drops what should have been in a tunnel, by the end that sent it."""
    return f"""
table inet leak {{
    counter site {{ }}
    counter hub {{ }}
    chain prerouting {{
        type filter hook prerouting priority raw;
        iifname {_PORTS} ip saddr {INNER} counter name "site" drop
        iifname {_PORTS} ip6 saddr {INNER6} counter name "site" drop
        iifname "core" ip daddr {INNER} counter name "hub" drop
        iifname "core" ip6 daddr {INNER6} counter name "hub" drop
    }}
}}
"""


def loss_table(losses: list[Loss]) -> str:
    """nft transaction that puts exactly these losses in force, with counters `seen<i>` and `lost<i>` at 0."""
    counters = [f"counter {name}{i} {{ }}" for i in range(len(losses)) for name in ("seen", "lost")]
    rules = []
    for i, loss in enumerate(losses):
        for direction in directions(loss.direction):
            match = _match(loss.flow, direction)
            rules.append(f'{match} counter name "seen{i}"')
            if loss.permille:
                lot = f"numgen random mod 1000 < {loss.permille} " if loss.permille < 1000 else ""
                rules.append(f'{match} {lot}counter name "lost{i}" drop')
    body = "\n    ".join(counters)
    chain = "\n        ".join(["type filter hook forward priority filter;", *rules])
    return f"""
table inet loss
delete table inet loss
table inet loss {{
    {body}
    chain forward {{
        {chain}
    }}
}}
"""


def nat_table(bindings: dict[int, tuple[str, int]]) -> str:
    """nft transaction of a NAT without memory: each WAN's address (with prefix length) has the `n`th public one.

    What comes for an earlier public address is dropped without a word, as behind a NAT that has forgotten.
    """
    rules = []
    for wan, (address, n) in bindings.items():
        inside, outside = ip_interface(address).ip, ip_interface(_NAT.format(wan=wan)).network
        public = outside[1 + n % (outside.num_addresses - 2)]
        rules += [
            f'iifname "r{wan}" ip saddr {inside} ip saddr set {public}',
            f'iifname "core" ip daddr {public} ip daddr set {inside}',
            f'iifname "core" ip daddr {outside} drop',
        ]
    chain = "\n        ".join(["type filter hook prerouting priority mangle;", *rules])
    return f"""
table inet nat
delete table inet nat
table inet nat {{
    chain prerouting {{
        {chain}
    }}
}}
"""


def _match(flow: Flow, direction: Literal["up", "down"]) -> str:
    near, far = ("sport", "dport") if direction == "up" else ("dport", "sport")
    port = f'"r{flow.wan}"' if flow.wan else _PORTS
    parts = [f"{'iifname' if direction == 'up' else 'oifname'} {port}"]
    if flow.sports:
        parts.append(f"udp {near} {{ {', '.join(map(str, flow.sports))} }}")
    if flow.port is not None:
        parts.append(f"udp {far} {flow.port}")
    return " ".join(parts)


def tbf(mbit: float) -> str:
    """Parameters of a token bucket: a burst of 1 ms (two full frames at least), a queue of 50 ms, in bytes."""
    bytes_per_second = mbit * 1e6 / 8
    burst = max(int(bytes_per_second * 0.001), 2 * 1514)
    return f"tbf rate {mbit}mbit burst {burst} limit {max(int(bytes_per_second * 0.05), 2 * burst)}"
