"""Route netlink: what the kernel has, and the messages that change it. The only importer of pyroute2.

pyroute2 encodes and decodes; the transport is one plain socket, because its own is an asyncio loop that
cannot run inside the supervisor's. The kernel answers a request before `send` returns, so nothing here waits.

Every entry that is ours carries `network.PROTOCOL`, a link `ALIAS`. `changes` counts what is asked to be changed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from mpq_supervisor.network import (
    ANY,
    MAIN_TABLE,
    PROTOCOL,
    Address,
    Link,
    Route,
    Rule,
    Snapshot,
    TunLink,
)

# linux/rtnetlink.h, linux/netlink.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
_REPLACE, EXCLUDE, CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_HEADER = struct.Struct("=IHHII")
_RECEIVE = 1 << 18
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SOL_NETLINK = 270
_DUMP_ATTEMPTS = 3

_IFF_UP = 0x1
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_ADDRESS_UNUSABLE = 0x01 | 0x08 | 0x20 | 0x40  # secondary or temporary, duplicate, deprecated, tentative
_NO_PREFIX_ROUTE = 0x200
_NO_DAD = 0x02
_UNICAST, _UNREACHABLE = 1, 7  # rtm_type
_ONLINK = 4
_CLONED = 0x200
_TO_TABLE, _ACT_UNREACHABLE = 1, 7  # FRA action
_LINK_SCOPE, _UNIVERSE = 253, 0
_FAMILY = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
_VERSION = {family: version for version, family in _FAMILY.items()}

# What a TUN of ours gets with RTM_NEWLINK, since /proc/sys is not ours to write: src_valid_mark (IFLA_AF_SPEC,
# AF_INET, IFLA_INET_CONF), and no link-local address, which would only send router solicitations. Without the
# mark the reverse path filter looks as an unmarked packet from the LAN would, which the rules refuse.
_IPV4_SRC_VALID_MARK = 24
_GENERATE_NONE = 1


ALIAS = "mpq"


class Netlink:
    """A connection to the kernel's routing tables, in the network namespace in which it was opened."""

    def __init__(self) -> None:
        self.changes = 0
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    # ------------------------------------------------------------ reading

    def snapshot(self) -> Snapshot:
        """Links, usable addresses, and the routes of the main table that are not ours."""
        links = self.links()
        addresses = self._addresses(links)
        main = [r for r in self._routes(links, ours=False) if r.table == MAIN_TABLE]
        return Snapshot(
            links=links,
            addresses=tuple(address for address, _ in addresses),
            own_addresses=frozenset(address for address, protocol in addresses if protocol == PROTOCOL),
            routes=tuple(sorted(main, key=lambda r: r.metric)),
            ipv6=os.path.exists("/proc/net/if_inet6"),
        )

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        request = _body(ifinfmsg, {"family": 0}, IFLA_EXT_MASK=_SKIP_STATISTICS)
        links = (_decode_link(raw) for raw in self.dump(_GETLINK, request))
        return {link.name: link for link in links}

    def own_routes(self, links: dict[str, Link]) -> frozenset[Route]:
        """Our routes in every table."""
        return frozenset(self._routes(links, ours=True))

    def own_rules(self) -> frozenset[Rule]:
        """Our policy rules."""
        dumps = (self.dump(_GETRULE, _body(fibmsg, {"family": family})) for family in _VERSION)
        return frozenset(rule for dump in dumps for raw in dump if (rule := _decode_rule(raw)) is not None)

    def _addresses(self, links: dict[str, Link]) -> list[tuple[Address, int]]:
        """All usable addresses of global scope, and by whom they were set."""
        names = {link.index: link.name for link in links.values()}
        found = (_decode_address(raw) for raw in self.dump(_GETADDR, _body(ifaddrmsg, {"family": 0})))
        return [(Address(names[i], text, prefix), by) for i, text, prefix, by in filter(None, found) if i in names]

    def _routes(self, links: dict[str, Link], ours: bool) -> Iterator[Route]:
        names = {link.index: link.name for link in links.values()}
        for family in _VERSION:
            for raw in self.dump(_GETROUTE, _body(rtmsg, {"family": family})):
                table, protocol, kind = raw[20], raw[21], raw[23]  # struct rtmsg, behind the 16 byte header
                if (protocol == PROTOCOL) != ours or kind not in (_UNICAST, _UNREACHABLE):
                    continue
                if not ours and table != MAIN_TABLE:
                    continue
                for index, route in _decode_route(raw):
                    if not ours and route.destination.lower().startswith(("fe80:", "ff")):
                        continue
                    if index is None:
                        yield route
                    elif index in names:
                        yield _with_interface(route, names[index])

    # ------------------------------------------------------------ changing; each raises OSError

    def set_tun(self, tun: TunLink, index: int) -> None:
        """Sets MTU, queue length and up, and that its reverse path is looked up by mark; no link-local address."""
        # In this order: the link-local address would come with up, and one message is applied the other way.
        self.change(_NEWLINK, _body(ifinfmsg, {"family": 0, "index": index}) + _tun_families())
        up = {"family": 0, "index": index, "flags": _IFF_UP, "change": _IFF_UP}
        self.change(_NEWLINK, _body(ifinfmsg, up, IFLA_MTU=tun.mtu, IFLA_TXQLEN=tun.txqueuelen))

    def add_vlan(self, name: str, parent: int, vlan: int) -> None:
        """Makes an 802.1Q interface that is known as ours by its alias; it is not up yet."""
        self.change(_NEWLINK, vlan_body(name, parent, vlan), CREATE | EXCLUDE)

    def set_up(self, index: int) -> None:
        """Sets an interface up."""
        self.change(_NEWLINK, _body(ifinfmsg, {"family": 0, "index": index, "flags": _IFF_UP, "change": _IFF_UP}))

    def delete_link(self, index: int) -> None:
        """Removes an interface; it may be gone already."""
        self.delete(_DELLINK, _body(ifinfmsg, {"family": 0, "index": index}))

    def add_address(self, address: Address, index: int, *, prefix_route: bool) -> None:
        """Adds it without duplicate address detection, with or without a route to its subnet."""
        flags = _NO_DAD if prefix_route else _NO_DAD | _NO_PREFIX_ROUTE
        body = _address_body(address, index, IFA_FLAGS=flags, IFA_PROTO=PROTOCOL)
        self.change(_NEWADDR, body, CREATE | _REPLACE)

    def delete_address(self, address: Address, index: int) -> None:
        """Removes an address; it may be gone already."""
        self.delete(_DELADDR, _address_body(address, index))

    def add_route(self, route: Route, index: int | None) -> None:
        """Adds a route, in the place of one with the same table, destination and metric."""
        self.change(_NEWROUTE, _route_body(route, index), CREATE | _REPLACE)

    def delete_route(self, route: Route, index: int | None) -> None:
        """Removes a route; it may be gone already."""
        self.delete(_DELROUTE, _route_body(route, index))

    def add_rule(self, rule: Rule) -> None:
        """Adds a rule."""
        self.change(_NEWRULE, _rule_body(rule), CREATE | EXCLUDE)

    def delete_rule(self, rule: Rule) -> None:
        """Removes a rule; it may be gone already."""
        self.delete(_DELRULE, _rule_body(rule))

    # ------------------------------------------------------------ transport

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Sends one request and waits for its acknowledgement. Raises OSError."""
        self.changes += 1
        self._send(kind, body, _REQUEST | _ACK | flags)
        for _message in self._receive():
            pass

    def delete(self, kind: int, body: bytes) -> None:
        """Like `change`, for a deletion: it is no error if there is nothing to delete."""
        try:
            self.change(kind, body)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL):
                raise

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All messages of a dump, whole; again if the kernel's tables changed meanwhile.

        Sequence and port number are blanked, so that the same entry is the same bytes at the next dump.
        """
        for _attempt in range(_DUMP_ATTEMPTS):
            self._send(kind, body, _REQUEST | _DUMP)
            messages = list(self._receive())
            if not any(_HEADER.unpack_from(m)[2] & _DUMP_INTERRUPTED for m in messages):
                break
        return [message[:8] + bytes(8) + message[16:] for message in messages]

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> Iterator[bytes]:
        """Messages up to the end of this answer. Raises OSError when the kernel refuses."""
        while True:
            data = self._socket.recv(_RECEIVE)
            offset = 0
            while offset < len(data):
                length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
                message = data[offset : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an answer that ended in an error
                if kind in (_ERROR, _DONE):
                    code = struct.unpack_from("=i", message, _HEADER.size)[0] if length > _HEADER.size else 0
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield message


# ---------------------------------------------------------------- encoding


def _body(message: Any, fields: dict[str, Any], **attributes: Any) -> bytes:
    """A message without its header. Attributes that are None are left out."""
    encoded = message()
    encoded.update(fields)
    encoded["attrs"] = [(name, value) for name, value in attributes.items() if value is not None]
    encoded.encode()
    return bytes(encoded.data[_HEADER.size :])


def vlan_body(name: str, parent: int, vlan: int) -> bytes:
    """RTM_NEWLINK for an 802.1Q interface, without its header."""
    data = {"attrs": [("IFLA_VLAN_ID", vlan)]}
    info = {"attrs": [("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data)]}
    fields = {"family": 0, "index": 0}
    return _body(ifinfmsg, fields, IFLA_IFNAME=name, IFLA_LINK=parent, IFLA_IFALIAS=ALIAS, IFLA_LINKINFO=info)


def _address_body(address: Address, index: int, **attributes: Any) -> bytes:
    fields = {"family": _FAMILY[address.version], "prefixlen": address.prefix, "index": index, "scope": 0}
    return _body(ifaddrmsg, fields, IFA_LOCAL=address.address, IFA_ADDRESS=address.address, **attributes)


def _route_body(route: Route, index: int | None) -> bytes:
    prefix = ip_network(route.destination)
    direct = route.version == 4 and route.interface is not None and route.gateway is None
    fields = {
        "family": _FAMILY[route.version],
        "dst_len": prefix.prefixlen,
        "table": route.table if route.table < 256 else 0,
        "proto": PROTOCOL,
        "scope": _LINK_SCOPE if direct else _UNIVERSE,
        "type": _UNICAST if route.interface is not None else _UNREACHABLE,
        # The gateway came out of a route that the kernel has accepted; it need not be looked up again.
        "flags": _ONLINK if route.gateway is not None else 0,
    }
    return _body(
        rtmsg,
        fields,
        RTA_TABLE=route.table,
        RTA_DST=None if route.is_default else str(prefix.network_address),
        RTA_OIF=index,
        RTA_GATEWAY=route.gateway,
        RTA_PRIORITY=route.metric,
        RTA_PREFSRC=route.source,
    )


def _rule_body(rule: Rule) -> bytes:
    fields = {
        "family": _FAMILY[rule.version],
        "src_len": 0 if rule.source is None else 32 if rule.version == 4 else 128,
        "action": _ACT_UNREACHABLE if rule.table is None else _TO_TABLE,
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
        FRA_PROTOCOL=PROTOCOL,
    )


def _tun_families() -> bytes:
    ipv4 = attribute(1, attribute(_IPV4_SRC_VALID_MARK, struct.pack("=I", 1)))  # IFLA_INET_CONF
    ipv6 = attribute(8, struct.pack("=B", _GENERATE_NONE))  # IFLA_INET6_ADDR_GEN_MODE
    nested = attribute(int(socket.AF_INET), ipv4)
    if os.path.exists("/proc/net/if_inet6"):
        nested += attribute(int(socket.AF_INET6), ipv6)
    return attribute(26, nested)  # IFLA_AF_SPEC


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded: for what pyroute2 can decode but not encode."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The payloads of a run of attributes, by kind."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return found


# ---------------------------------------------------------------- decoding: 0.1 ms a message, so remembered


def _parse(message: Any, raw: bytes) -> Any:
    parsed = message(raw)
    parsed.decode()
    return parsed


@lru_cache(maxsize=256)
def _decode_link(raw: bytes) -> Link:
    link = _parse(ifinfmsg, raw)
    return Link(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        up=bool(link["flags"] & _IFF_UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        mtu=link.get_attr("IFLA_MTU"),
        txqueuelen=link.get_attr("IFLA_TXQLEN"),
        alias=link.get_attr("IFLA_IFALIAS") or "",
    )


@lru_cache(maxsize=1024)
def _decode_address(raw: bytes) -> tuple[int, str, int, int] | None:
    address = _parse(ifaddrmsg, raw)
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    if address["scope"] != _UNIVERSE or flags & _ADDRESS_UNUSABLE:
        return None
    return (
        address["index"],
        address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"),
        address["prefixlen"],
        address.get_attr("IFA_PROTO") or 0,
    )


@lru_cache(maxsize=8192)
def _decode_route(raw: bytes) -> tuple[tuple[int | None, Route], ...]:
    """(interface index, route) for every next hop; what we could not write again is left out."""
    message = _parse(rtmsg, raw)
    version = _VERSION[message["family"]]
    destination = message.get_attr("RTA_DST")
    if message["flags"] & _CLONED or message.get_attr("RTA_VIA") is not None or message["tos"]:
        return ()
    route = Route(
        table=message.get_attr("RTA_TABLE") or message["table"],
        destination=f"{destination}/{message['dst_len']}" if destination is not None else ANY[version],
        gateway=message.get_attr("RTA_GATEWAY"),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        source=message.get_attr("RTA_PREFSRC"),
    )
    if message["type"] == _UNREACHABLE:  # in IPv6 it names the loopback
        return ((None, route),)
    hops = message.get_attr("RTA_MULTIPATH")
    if hops is None:
        return ((message.get_attr("RTA_OIF"), route),)
    return tuple((hop["oif"], _with_gateway(route, hop.get_attr("RTA_GATEWAY"))) for hop in hops)


@lru_cache(maxsize=1024)
def _decode_rule(raw: bytes) -> Rule | None:
    message = _parse(fibmsg, raw)
    if message.get_attr("FRA_PROTOCOL") != PROTOCOL:
        return None
    return Rule(
        version=_VERSION[message["family"]],
        priority=message.get_attr("FRA_PRIORITY") or 0,
        table=message.get_attr("FRA_TABLE") if message["action"] == _TO_TABLE else None,
        source=message.get_attr("FRA_SRC"),
        mark=message.get_attr("FRA_FWMARK"),
        mask=message.get_attr("FRA_FWMASK"),
        input=message.get_attr("FRA_IIFNAME"),
        output=message.get_attr("FRA_OIFNAME"),
    )


def _with_interface(route: Route, name: str) -> Route:
    return Route(route.table, route.destination, name, route.gateway, route.metric, route.source)


def _with_gateway(route: Route, gateway: str | None) -> Route:
    return Route(route.table, route.destination, None, gateway, route.metric, route.source)
