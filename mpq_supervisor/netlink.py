"""Route netlink: what the kernel has, and the messages that change it.

netlink_socket   one request, one answer
netlink_encode   the Structs of `network` as messages, each marked as ours
netlink_decode   messages as these Structs
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from mpq_supervisor.netlink_decode import decode_address, decode_link, decode_route, decode_rule
from mpq_supervisor.netlink_encode import (
    ALL_ADDRESSES,
    ALL_LINKS,
    ALL_ROUTES,
    ALL_RULES,
    address_body,
    alias_body,
    link_body,
    route_body,
    rule_body,
    tun_families_body,
    vlan_body,
)
from mpq_supervisor.netlink_socket import CREATE, EXCLUDE, REPLACE, NetlinkSocket
from mpq_supervisor.network import MAIN_TABLE, PROTOCOL, Address, Link, Route, Rule, Snapshot, TunLink

# linux/rtnetlink.h
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_NO_PREFIX_ROUTE, _NO_DAD = 0x200, 0x02
_UNICAST, _UNREACHABLE, _THROW = 1, 7, 9  # rtm_type
_FOR_THIS_HOST = (2, 3, 4)  # local, broadcast, anycast
_LOCAL_TABLE = 255
_TABLE, _PROTOCOL, _TYPE = 20, 21, 23  # bytes of a route's message: struct rtmsg, behind the header


class Netlink(NetlinkSocket):
    """The kernel's links, addresses, routes and rules."""

    # ------------------------------------------------------------ reading

    def snapshot(self) -> Snapshot:
        """Links, addresses, and the routes of the main table that are not ours."""
        links = self.links()
        found = self._addresses(links)
        routes = self._dump_routes()
        main = self._routes(routes, links, ours=False)
        local = (raw for raw in routes if raw[_TABLE] == _LOCAL_TABLE and raw[_TYPE] in _FOR_THIS_HOST)
        return Snapshot(
            links=links,
            addresses=tuple(address for address, _, usable in found if usable),
            assigned=frozenset(address for address, _, _ in found),
            own_addresses=frozenset(address for address, protocol, _ in found if protocol == PROTOCOL),
            routes=tuple(sorted(main, key=lambda r: r.metric)),
            local=frozenset(route.destination for raw in local for _, route in decode_route(raw)),
            ipv6=os.path.exists("/proc/net/if_inet6"),
        )

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        links = map(decode_link, self.dump(_GETLINK, ALL_LINKS))
        return {link.name: link for link in links}

    def own_routes(self, links: dict[str, Link]) -> frozenset[Route]:
        """Our routes in every table."""
        return frozenset(self._routes(self._dump_routes(), links, ours=True))

    def own_rules(self) -> frozenset[Rule]:
        """Our policy rules."""
        dumps = (self.dump(_GETRULE, request) for request in ALL_RULES)
        return frozenset(rule for dump in dumps for raw in dump if (rule := decode_rule(raw)) is not None)

    def _addresses(self, links: dict[str, Link]) -> list[tuple[Address, int, bool]]:
        """All addresses, by whom they were set, and whether one may send from them."""
        names = {link.index: link.name for link in links.values()}
        found = map(decode_address, self.dump(_GETADDR, ALL_ADDRESSES))
        return [(Address(names[i], text, length), by, usable) for i, text, length, by, usable in found if i in names]

    def _dump_routes(self) -> list[bytes]:
        return [raw for request in ALL_ROUTES for raw in self.dump(_GETROUTE, request)]

    def _routes(self, dump: list[bytes], links: dict[str, Link], ours: bool) -> Iterator[Route]:
        """Our routes, or those of the main table that are not."""
        names = {link.index: link.name for link in links.values()}
        for raw in dump:
            if (raw[_PROTOCOL] == PROTOCOL) != ours or raw[_TYPE] not in (_UNICAST, _UNREACHABLE, _THROW):
                continue
            if not ours and raw[_TABLE] != MAIN_TABLE:
                continue
            for index, route in decode_route(raw):
                if not ours and route.destination.startswith(("fe80:", "ff")):
                    continue
                if index is None:
                    yield route
                elif index in names:
                    yield msgspec.structs.replace(route, interface=names[index])

    # ------------------------------------------------------------ changing; each raises OSError

    def set_tun(self, tun: TunLink, index: int) -> None:
        """Sets MTU, queue length and up, and that its reverse path is looked up by mark; no link-local address."""
        # In this order: the link-local address would come with up, and one message is applied the other way.
        self.change(_NEWLINK, tun_families_body(index))
        self.change(_NEWLINK, link_body(index, up=True, mtu=tun.mtu, txqueuelen=tun.txqueuelen))

    def add_vlan(self, name: str, parent: int, vlan: int) -> None:
        """Makes an 802.1Q interface that is known as ours by its alias; it is not up yet."""
        self.change(_NEWLINK, vlan_body(name, parent, vlan), CREATE | EXCLUDE)
        self.change(_NEWLINK, alias_body(name))  # the kernel heeds no alias of an interface that is just made

    def set_up(self, index: int) -> None:
        """Sets an interface up."""
        self.change(_NEWLINK, link_body(index, up=True))

    def delete_link(self, index: int) -> None:
        """Removes an interface; it may be gone already."""
        self.delete(_DELLINK, link_body(index))

    def add_address(self, address: Address, index: int, *, prefix_route: bool) -> None:
        """Adds it without duplicate address detection, with or without a route to its subnet."""
        flags = _NO_DAD if prefix_route else _NO_DAD | _NO_PREFIX_ROUTE
        self.change(_NEWADDR, address_body(address, index, flags), CREATE | REPLACE)

    def delete_address(self, address: Address, index: int) -> None:
        """Removes an address; it may be gone already."""
        self.delete(_DELADDR, address_body(address, index))

    def add_route(self, route: Route, index: int | None) -> None:
        """Adds a route, in the place of one with the same table, destination and metric."""
        self.change(_NEWROUTE, route_body(route, index), CREATE | REPLACE)

    def delete_route(self, route: Route, index: int | None) -> None:
        """Removes a route; it may be gone already."""
        self.delete(_DELROUTE, route_body(route, index))

    def add_rule(self, rule: Rule) -> None:
        """Adds a rule."""
        self.change(_NEWRULE, rule_body(rule), CREATE | EXCLUDE)

    def delete_rule(self, rule: Rule) -> None:
        """Removes a rule; it may be gone already."""
        self.delete(_DELRULE, rule_body(rule))
