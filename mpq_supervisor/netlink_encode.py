"""The Structs of `network` as route netlink's messages, without their header. With `netlink_decode` the only importer
of pyroute2.

Every entry that is ours carries `network.PROTOCOL`, a link `ALIAS`.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_network
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from mpq_supervisor.netlink_socket import HEADER, attribute
from mpq_supervisor.network import PROTOCOL, Address, Route, Rule

ALIAS = "mpq"

# linux/rtnetlink.h
_IFF_UP = 0x1
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_UNICAST, _UNREACHABLE, _THROW = 1, 7, 9  # rtm_type
_ONLINK = 4
_METRICS = 8  # RTA
_TO_TABLE, _GOTO, _ACT_UNREACHABLE = 1, 2, 7  # FRA action
_LINK_SCOPE, _UNIVERSE = 253, 0
_FAMILY = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}

# What a TUN of ours gets with RTM_NEWLINK, since /proc/sys is not ours to write: src_valid_mark (IFLA_AF_SPEC,
# AF_INET, IFLA_INET_CONF), and no link-local address, which would only send router solicitations. Without the
# mark the reverse path filter looks as an unmarked packet from the LAN would, which the rules refuse.
_IPV4_SRC_VALID_MARK = 24
_GENERATE_NONE = 1


def link_body(index: int, *, up: bool = False, mtu: int | None = None, txqueuelen: int | None = None) -> bytes:
    """What is given of an interface that exists; `up` false leaves it as it is."""
    flags = _IFF_UP if up else 0
    fields = {"family": 0, "index": index, "flags": flags, "change": flags}
    return _body(ifinfmsg, fields, IFLA_MTU=mtu, IFLA_TXQLEN=txqueuelen)


def vlan_body(name: str, parent: int, vlan: int) -> bytes:
    """A new 802.1Q interface."""
    data = {"attrs": [("IFLA_VLAN_ID", vlan)]}
    info = {"attrs": [("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data)]}
    return _body(ifinfmsg, {"family": 0, "index": 0}, IFLA_IFNAME=name, IFLA_LINK=parent, IFLA_LINKINFO=info)


def alias_body(name: str) -> bytes:
    """Makes an interface that exists known as ours."""
    return _body(ifinfmsg, {"family": 0, "index": 0}, IFLA_IFNAME=name, IFLA_IFALIAS=ALIAS)


def address_body(address: Address, index: int, flags: int | None = None) -> bytes:
    """An address; with `flags` (IFA_FLAGS) one of ours to be added."""
    fields = {"family": _FAMILY[address.version], "prefixlen": address.prefix, "index": index, "scope": 0}
    whose = None if flags is None else PROTOCOL
    local = address.address
    return _body(ifaddrmsg, fields, IFA_LOCAL=local, IFA_ADDRESS=local, IFA_FLAGS=flags, IFA_PROTO=whose)


def route_body(route: Route, index: int | None) -> bytes:
    """A route of ours by the interface of that index; None for one that has none."""
    prefix = ip_network(route.destination)
    without = _THROW if route.throw else _UNREACHABLE
    direct = route.version == 4 and route.interface is not None and route.gateway is None
    fields = {
        "family": _FAMILY[route.version],
        "dst_len": prefix.prefixlen,
        "table": route.table if route.table < 256 else 0,
        "proto": PROTOCOL,
        "scope": _LINK_SCOPE if direct else _UNIVERSE,
        "type": _UNICAST if route.interface is not None else without,
        # The gateway came out of a route that the kernel has accepted; it need not be looked up again.
        "flags": _ONLINK if route.gateway is not None else 0,
    }
    body = _body(
        rtmsg,
        fields,
        RTA_TABLE=route.table,
        RTA_DST=None if route.is_default else str(prefix.network_address),
        RTA_OIF=index,
        RTA_GATEWAY=route.gateway,
        RTA_PRIORITY=route.metric,
        RTA_PREFSRC=route.source,
    )
    return body + attribute(_METRICS, route.attributes) if route.attributes else body


def rule_body(rule: Rule) -> bytes:
    """A policy rule of ours."""
    action = _GOTO if rule.goto is not None else _TO_TABLE if rule.table is not None else _ACT_UNREACHABLE
    fields = {
        "family": _FAMILY[rule.version],
        "src_len": 0 if rule.source is None else 32 if rule.version == 4 else 128,
        "action": action,
    }
    return _body(
        fibmsg,
        fields,
        FRA_TABLE=rule.table,
        FRA_PRIORITY=rule.priority,
        FRA_SRC=rule.source,
        FRA_FWMARK=rule.mark,
        FRA_FWMASK=rule.mask,
        FRA_IIFNAME=rule.input,
        FRA_OIFNAME=rule.output,
        FRA_GOTO=rule.goto,
        FRA_PROTOCOL=PROTOCOL,
    )


def tun_families_body(index: int) -> bytes:
    """What the address families shall do with a TUN of ours, see above."""
    ipv4 = attribute(1, attribute(_IPV4_SRC_VALID_MARK, struct.pack("=I", 1)))  # IFLA_INET_CONF
    ipv6 = attribute(8, struct.pack("=B", _GENERATE_NONE))  # IFLA_INET6_ADDR_GEN_MODE
    nested = attribute(int(socket.AF_INET), ipv4)
    if os.path.exists("/proc/net/if_inet6"):
        nested += attribute(int(socket.AF_INET6), ipv6)
    return link_body(index) + attribute(26, nested)  # IFLA_AF_SPEC


def _body(message: Any, fields: dict[str, Any], **attributes: Any) -> bytes:
    """A message without its header. Attributes that are None are left out."""
    encoded = message()
    encoded.update(fields)
    encoded["attrs"] = [(name, value) for name, value in attributes.items() if value is not None]
    encoded.encode()
    return bytes(encoded.data[HEADER.size :])


ALL_LINKS = _body(ifinfmsg, {"family": 0}, IFLA_EXT_MASK=_SKIP_STATISTICS)
ALL_ADDRESSES = _body(ifaddrmsg, {"family": 0})
ALL_ROUTES = tuple(_body(rtmsg, {"family": family}) for family in _FAMILY.values())
ALL_RULES = tuple(_body(fibmsg, {"family": family}) for family in _FAMILY.values())
"""Requests for dumps; the last two for each IP version."""
