"""Route netlink's messages as the Structs of `network`. With `netlink_encode` the only importer of pyroute2.

0.1 ms a message, so each is remembered.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import msgspec
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from mpq_supervisor.netlink_socket import attributes
from mpq_supervisor.network import ANY, PROTOCOL, Link, Route, Rule

# linux/rtnetlink.h
_IFF_UP = 0x1
_ADDRESS_UNUSABLE = 0x01 | 0x08 | 0x20 | 0x40  # secondary or temporary, duplicate, deprecated, tentative
_UNREACHABLE, _THROW = 7, 9  # rtm_type
_CLONED = 0x200
_BEHIND_RTMSG = 28  # bytes of header and struct rtmsg
_METRICS = 8  # RTA
_TO_TABLE, _GOTO = 1, 2  # FRA action
_UNIVERSE = 0
_VERSION = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}
_GENERATE_NONE = 1  # IFLA_INET6_ADDR_GEN_MODE


@lru_cache(maxsize=256)
def decode_link(raw: bytes) -> Link:
    """An interface."""
    link = _parse(ifinfmsg, raw)
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        up=bool(link["flags"] & _IFF_UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        mtu=link.get_attr("IFLA_MTU"),
        txqueuelen=link.get_attr("IFLA_TXQLEN"),
        alias=link.get_attr("IFLA_IFALIAS") or "",
        parent=link.get_attr("IFLA_LINK") or 0,
        vlan=link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID") if _kind(link) == "vlan" else None,
        tun_families=_tun_families(link),
    )


@lru_cache(maxsize=1024)
def decode_address(raw: bytes) -> tuple[int, str, int, int, bool]:
    """(interface index, address, prefix length, by whom it was set, whether one may send from it)."""
    address = _parse(ifaddrmsg, raw)
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    return (
        address["index"],
        _spelt(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")),
        address["prefixlen"],
        address.get_attr("IFA_PROTO") or 0,
        address["scope"] == _UNIVERSE and not flags & _ADDRESS_UNUSABLE,
    )


@lru_cache(maxsize=8192)
def decode_route(raw: bytes) -> tuple[tuple[int | None, Route], ...]:
    """(interface index, route) for every next hop; what we could not write again is left out."""
    message = _parse(rtmsg, raw)
    version = _VERSION[message["family"]]
    destination = message.get_attr("RTA_DST")
    if message["flags"] & _CLONED or message.get_attr("RTA_VIA") is not None or message["tos"]:
        return ()
    route = Route(
        table=message.get_attr("RTA_TABLE") or message["table"],
        destination=f"{_spelt(destination)}/{message['dst_len']}" if destination is not None else ANY[version],
        gateway=_spelt(message.get_attr("RTA_GATEWAY")),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        source=_spelt(message.get_attr("RTA_PREFSRC")),
        throw=message["type"] == _THROW,
        attributes=attributes(raw[_BEHIND_RTMSG:]).get(_METRICS, b""),
    )
    if message["type"] in (_UNREACHABLE, _THROW):  # in IPv6 it names the loopback
        return ((None, route),)
    hops = message.get_attr("RTA_MULTIPATH")
    if hops is None:
        return ((message.get_attr("RTA_OIF"), route),)
    gateways = [(hop["oif"], _spelt(hop.get_attr("RTA_GATEWAY"))) for hop in hops]
    return tuple((index, msgspec.structs.replace(route, gateway=gateway)) for index, gateway in gateways)


@lru_cache(maxsize=1024)
def decode_rule(raw: bytes) -> Rule | None:
    """A rule of ours; None for any other."""
    message = _parse(fibmsg, raw)
    if message.get_attr("FRA_PROTOCOL") != PROTOCOL:
        return None
    return Rule(
        version=_VERSION[message["family"]],
        priority=message.get_attr("FRA_PRIORITY") or 0,
        table=message.get_attr("FRA_TABLE") if message["action"] == _TO_TABLE else None,
        source=_spelt(message.get_attr("FRA_SRC")),
        mark=message.get_attr("FRA_FWMARK"),
        mask=message.get_attr("FRA_FWMASK"),
        input=message.get_attr("FRA_IIFNAME"),
        output=message.get_attr("FRA_OIFNAME"),
        goto=message.get_attr("FRA_GOTO") if message["action"] == _GOTO else None,
    )


def _kind(link: Any) -> str | None:
    kind: str | None = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
    return kind


def _tun_families(link: Any) -> bool:
    """Whether `netlink_encode.tun_families_body` would change nothing."""
    ipv4 = link.get_nested("IFLA_AF_SPEC", "AF_INET") or {}
    ipv6 = link.get_nested("IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE")
    return bool(ipv4.get("src_vmark")) and ipv6 in (None, _GENERATE_NONE)


def _spelt(text: str | None) -> Any:
    """An address as `ipaddress` spells it, and so the configuration: the C library has ::ffff:192.0.2.1 for
    ::ffff:c000:201."""
    return None if text is None else str(ip_address(text))


def _parse(message: Any, raw: bytes) -> Any:
    parsed = message(raw)
    parsed.decode()
    return parsed
