"""The nftables table `inet mpq_guard` of a hub: how much of its ports strangers may use. Pure.

An address that the hub answers in an established connection is known for a day; everybody else is a stranger. First
packets (QUIC Initials) are limited by source, known or not, and all that strangers send by port: so neither spoofed
addresses nor noise reach a worker faster than it can refuse them, and known sites do not notice. Only what is for
these ports meets these rules: the bytes of `@th` mean something else in every other protocol. It is a table of its
own, so that a reload of what sites may do forgets nobody.
"""

from __future__ import annotations

from mpq_supervisor.plan import HostPlan
from mpq_worker.contract import MAX_RESET

TABLE = "inet mpq_guard"
_UDP_HEADER = 8
_LARGEST_SET = 65_535
_SHORT_HEADER = "@th,64,2 1"  # RFC 9000 section 17.3
_INITIAL = "@th,64,4 0xc"  # section 17.2.2
_KNOWN_FOR = "1d"


def render(plan: HostPlan) -> str:
    """The table as text for `nft -f`. Its ports are not tracked: a flood would fill the table of connections."""
    ports = "{ " + ", ".join(map(str, sorted({worker.port for worker in plan.hub_workers}))) + " }"
    first, strangers = plan.limits.first_packets, plan.limits.strangers
    known = f"udp sport {ports} udp length > {_UDP_HEADER + MAX_RESET} {_SHORT_HEADER}"
    flood = f"limit rate over {first}/second burst {2 * first} packets }} counter name first drop"
    noise = f"limit rate over {strangers}/second burst {strangers} packets }} counter name strangers drop"
    return f"""table {TABLE} {{
	counter first {{ }}
	counter strangers {{ }}
	set known4 {{ type ipv4_addr; flags dynamic,timeout; timeout {_KNOWN_FOR}; size {_LARGEST_SET}; }}
	set known6 {{ type ipv6_addr; flags dynamic,timeout; timeout {_KNOWN_FOR}; size {_LARGEST_SET}; }}
	set first4 {{ type ipv4_addr; flags dynamic,timeout; timeout 10s; size {_LARGEST_SET}; }}
	set first6 {{ type ipv6_addr; flags dynamic,timeout; timeout 10s; size {_LARGEST_SET}; }}
	set ports {{ type inet_service; flags dynamic,timeout; timeout 10s; size {_LARGEST_SET}; }}
	chain arriving {{
		type filter hook prerouting priority raw; policy accept;
		udp dport {ports} fib daddr type local notrack
	}}
	chain leaving {{
		type filter hook output priority raw; policy accept;
		udp sport {ports} notrack
		{known} update @known4 {{ ip daddr }}
		{known} update @known6 {{ ip6 daddr }}
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		udp dport {ports} goto workers
	}}
	chain workers {{
		{_INITIAL} update @first4 {{ ip saddr {flood}
		{_INITIAL} update @first6 {{ ip6 saddr and ffff:ffff:ffff:ffff:: {flood}
		ip saddr @known4 accept
		ip6 saddr @known6 accept
		update @ports {{ udp dport {noise}
	}}
}}
"""
