"""Applying twice changes nothing, whatever the configuration: `reconcile`, `netlink` and its messages against a
kernel that only remembers. It spells addresses as the C library does, and keeps secondary addresses as Linux does."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from ipaddress import ip_interface
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from mpq_supervisor.config import parse
from mpq_supervisor.desired import Desired, closed, desired
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.netlink_encode import route_body
from mpq_supervisor.network import MAIN_TABLE, PROTOCOL, Link, Route, Snapshot
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.reconcile import Outcome, reconcile
from tests.unit.rtnetlink import decoded, with_header
from tests.unit.test_network import SITE

_NEWLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_SECONDARY, _NO_PREFIX_ROUTE = 0x01, 0x200
_INET, _KERNEL = 2, 2  # family, and the protocol of the kernel's own routes
_AF_SPEC = b"\x1a\x00"
_PORTS = ("wan4", "wan5", "lan1", "lan2")


class Assigned(msgspec.Struct):
    """An address as the kernel keeps it."""

    index: int
    text: str
    length: int
    flags: int
    protocol: int

    @property
    def subnet(self) -> tuple[int, object]:
        return self.index, ip_interface(f"{self.text}/{self.length}").network

    def body(self) -> bytes:
        family = 10 if ":" in self.text else _INET
        fields = {"family": family, "prefixlen": self.length, "index": self.index, "scope": 0}
        attrs = {"ADDRESS": self.text, "LOCAL": self.text, "FLAGS": self.flags, "PROTO": self.protocol}
        return _encoded(ifaddrmsg, fields, {f"IFA_{key}": value for key, value in attrs.items()})


class Kernel(Netlink):
    """Interfaces, addresses, routes and rules; no qdiscs."""

    def __init__(self, *names: str) -> None:
        self.changes = 0
        self.there = {name: Link(name, 2 + i, True, True, 1500, 1000) for i, name in enumerate(names)}
        self.addresses: list[Assigned] = []
        self.routes: dict[tuple[object, ...], bytes] = {}
        self.rules: dict[bytes, None] = {}

    def links(self) -> dict[str, Link]:
        return dict(self.there)

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.changes += 1
        doing: dict[int, Callable[[bytes], None]] = {
            _NEWLINK: self._set_link, _NEWADDR: self.give, _DELADDR: self._take, _NEWROUTE: self._add_route,
            _DELROUTE: self._delete_route, _NEWRULE: self._add_rule, _DELRULE: self._delete_rule,
        }  # fmt: skip
        doing[kind](body)

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        found = {
            _GETADDR: [a.body() for a in self.addresses],
            _GETROUTE: [*self.routes.values(), *self._prefix_routes()],
            _GETRULE: list(self.rules),
        }.get(kind, [])
        family = body[0]
        return [with_header(one) for one in found if family in (0, one[0])]

    def _set_link(self, body: bytes) -> None:
        message = decoded(ifinfmsg, body)
        (name,) = (name for name, link in self.there.items() if link.index == message["index"])
        changes = {"mtu": message.get_attr("IFLA_MTU"), "txqueuelen": message.get_attr("IFLA_TXQLEN")}
        changes |= {"up": True if message["flags"] & 1 else None, "tun_families": _AF_SPEC in body[16:] or None}
        given = {key: value for key, value in changes.items() if value is not None}
        self.there[name] = msgspec.structs.replace(self.there[name], **given)

    def give(self, body: bytes) -> None:
        message = decoded(ifaddrmsg, body)
        flags, protocol = message.get_attr("IFA_FLAGS") or 0, message.get_attr("IFA_PROTO") or 0
        new = Assigned(message["index"], message.get_attr("IFA_LOCAL"), message["prefixlen"], flags, protocol)
        ipv4 = message["family"] == _INET
        for old in self.addresses:
            if (old.index, old.text) == (new.index, new.text) and (old.length == new.length or not ipv4):
                return  # its length and whose it is stay
        if ipv4 and any(old.subnet == new.subnet for old in self.addresses):
            new.flags |= _SECONDARY
        self.addresses.append(new)

    def _take(self, body: bytes) -> None:
        message = decoded(ifaddrmsg, body)
        key = message["index"], message.get_attr("IFA_LOCAL"), message["prefixlen"]
        found = [a for a in self.addresses if (a.index, a.text, a.length) == key]
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        gone = found if found[0].flags & _SECONDARY or message["family"] != _INET else None
        gone = gone or [a for a in self.addresses if a.subnet == found[0].subnet]
        self.addresses = [a for a in self.addresses if a not in gone]
        texts = {a.text for a in gone} - {a.text for a in self.addresses}
        for place, route in list(self.routes.items()):
            if decoded(rtmsg, route).get_attr("RTA_PREFSRC") in texts:
                del self.routes[place]

    def _prefix_routes(self) -> list[bytes]:
        """The main table's routes that come with addresses."""
        names = {link.index: name for name, link in self.there.items()}
        bodies = []
        for address in self.addresses:
            subnet = ip_interface(f"{address.text}/{address.length}").network
            if address.flags & (_SECONDARY | _NO_PREFIX_ROUTE) or subnet.num_addresses == 1:
                continue
            ipv4 = subnet.version == 4
            source = address.text if ipv4 else None
            route = Route(MAIN_TABLE, str(subnet), names[address.index], None, 0 if ipv4 else 256, source)
            body = bytearray(route_body(route, address.index))
            body[5] = _KERNEL
            bodies.append(bytes(body))
        return bodies

    def _add_route(self, body: bytes) -> None:
        source = decoded(rtmsg, body).get_attr("RTA_PREFSRC")
        if source is not None and source not in {a.text for a in self.addresses}:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.routes[_route_key(body)] = body

    def _delete_route(self, body: bytes) -> None:
        if self.routes.pop(_route_key(body), None) is None:
            raise OSError(errno.ESRCH, "No such process")

    def _add_rule(self, body: bytes) -> None:
        if body in self.rules:
            raise OSError(errno.EEXIST, "File exists")
        self.rules[body] = None

    def _delete_rule(self, body: bytes) -> None:
        if body not in self.rules:
            raise OSError(errno.ENOENT, "No such file or directory")
        del self.rules[body]


def _route_key(body: bytes) -> tuple[object, ...]:
    message = decoded(rtmsg, body)
    attrs = [message.get_attr(name) for name in ("RTA_TABLE", "RTA_DST", "RTA_PRIORITY")]
    return (message["family"], message["dst_len"], *attrs)


def _encoded(kind: Any, fields: dict[str, Any], attrs: dict[str, Any]) -> bytes:
    message = kind()
    message.update(fields)
    message["attrs"] = list(attrs.items())
    message.encode()
    return bytes(message.data[16:])


def kernel(plan: HostPlan) -> Kernel:
    return Kernel(*_PORTS, *(tunnel.tun for tunnel in plan.tunnels))


def settle(there: Kernel, wanted: Callable[[Snapshot], Desired]) -> Outcome:
    """Applies it, and again, which must change nothing."""
    outcome = reconcile(there, wanted)
    assert outcome.refused == ()
    before = there.changes
    again = reconcile(there, wanted)
    assert (there.changes - before, again.refused, again.done) == (0, (), ())
    assert outcome.in_place == again.in_place
    return again


def shown(there: Kernel) -> tuple[object, ...]:
    snapshot = there.snapshot()
    return snapshot.own_addresses, there.own_routes(snapshot.links), there.own_rules()


# ---------------------------------------------------------------- whatever the configuration

NO_LANS = (
    SITE[: SITE.index("lan =")].replace(", rate_mbit = 18.0", "")
    + 'matrix = { wan4 = ["critical"], wan5 = ["critical", "bulk"] }\n'
)
ADDRESSES = st.lists(
    st.sampled_from([
        "172.16.1.1/24", "172.16.1.2/24", "172.16.1.3/24", "172.16.1.130/25", "172.16.9.1/30", "192.0.2.8/31",
        "192.0.2.1/32", "10.0.0.1/9", "FD00:0:0:1::1/64", "fd00:0:0:1:0:0:0:2/64", "fd00::9/128", "::1:2/112",
        "64:ff9b::192.0.2.1/96", "2001:DB8::C000:201/48",
    ]),
    max_size=5, unique=True,
)  # fmt: skip
PREFIXES = st.lists(
    st.sampled_from([
        "192.168.1.0/24", "192.168.1.7/32", "172.16.1.0/24", "10.0.0.0/9", "FD00:AA::/64", "fd00:0:0:1::/64",
        "::1:0/112", "64:FF9B::192.0.2.0/120", "64:ff9b::/96", "2001:db8:0:0:0::/127",
    ]),
    max_size=4,
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> HostPlan:
    text = NO_LANS
    for name in draw(st.lists(st.sampled_from(["lan1", "lan2"]), max_size=2, unique=True)):
        addresses, prefixes = draw(ADDRESSES), draw(PREFIXES)
        text += f'[[lan]]\nname = "{name}"\ninterface = "{name}"\nwan = "{draw(st.sampled_from(["wan4", "wan5"]))}"\n'
        text += f"address = {addresses}\nprefixes = {prefixes}\n"
        gateways = ["FE80:0::2"] if any(":" in prefix for prefix in prefixes) and draw(st.booleans()) else []
        if any("." in p and ":" not in p for p in prefixes) and not any(":" not in a for a in addresses):
            gateways += ["172.16.1.254"]
        text += f"gateway = {gateways}\n"
        text += draw(st.sampled_from(["", 'class = "critical"\n', 'class = "bulk"\n']))
    return make_plan(parse(text))


@settings(max_examples=20, deadline=None)
@given(first=plans(), second=plans(), foreign=ADDRESSES)
def test_applying_twice_changes_nothing(first: HostPlan, second: HostPlan, foreign: list[str]) -> None:
    """Nor does it matter what was there before."""
    there, other = kernel(first), kernel(first)
    for host in (there, other):
        _give(host, 2, "100.64.4.2", 24)
        for text in foreign:  # of somebody else on a WAN
            address, _, length = text.lower().partition("/")
            _give(host, 3, address, int(length))
    settle(there, partial(desired, first))
    settle(there, partial(desired, second))
    settle(other, partial(desired, second))
    assert shown(there) == shown(other)
    settle(there, partial(closed, second))
    settle(there, lambda _: Desired())
    assert shown(there) == (frozenset(), frozenset(), frozenset())


def _give(there: Kernel, index: int, address: str, length: int) -> None:
    there.give(Assigned(index, address, length, 0, 0).body())


# ---------------------------------------------------------------- one by one


def plan_of(lines: str) -> HostPlan:
    return make_plan(parse(f'{NO_LANS}[[lan]]\nname = "a"\ninterface = "lan1"\nwan = "wan4"\n{lines}'))


def test_the_first_address_of_a_subnet_is_the_first_of_the_file() -> None:
    plan = plan_of('address = ["172.16.1.7/24", "172.16.1.1/24", "172.16.1.3/24"]')
    there = kernel(plan)
    settle(there, partial(desired, plan))
    assert [a.text for a in there.addresses if not a.flags & _SECONDARY and a.index == 4] == ["172.16.1.7"]


def test_another_address_of_the_same_subnet_takes_the_place_of_the_first() -> None:
    one, two = plan_of('address = "172.16.1.1/24"'), plan_of('address = "172.16.1.2/24"')
    there = kernel(one)
    settle(there, partial(desired, one))
    settle(there, partial(desired, two))
    assert [a.text for a in there.addresses if a.index == 4] == ["172.16.1.2"]


def test_an_address_that_may_not_be_used_is_there_all_the_same() -> None:
    """As one that duplicate address detection has found elsewhere, or whose time is over."""
    plan = plan_of('address = "fd00::1/64"')
    there = kernel(plan)
    there.addresses.append(Assigned(4, "fd00::1", 64, 0x08 | 0x40, 0))
    settle(there, partial(desired, plan))


def test_an_ipv6_address_of_somebody_else_with_another_length_is_told_and_left() -> None:
    plan = plan_of('address = "fd00::1/64"')
    there = kernel(plan)
    _give(there, 4, "fd00::1", 80)
    for _ in range(2):
        before = there.changes
        assert reconcile(there, partial(desired, plan)).refused == ("address fd00::1/64 dev lan1: is there as /80",)
    assert there.changes == before


def test_a_length_that_changes_in_the_file_changes_in_the_kernel() -> None:
    one, two = plan_of('address = "fd00::1/64"'), plan_of('address = "fd00::1/80"')
    there = kernel(one)
    settle(there, partial(desired, one))
    settle(there, partial(desired, two))
    assert [(a.text, a.length) for a in there.addresses if a.index == 4] == [("fd00::1", 80)]


def test_an_interface_that_got_another_name_keeps_nothing_of_ours() -> None:
    plan = plan_of('address = ["172.16.1.1/24", "fd00::1/64"]\nprefixes = ["fd00:1::/64"]')
    there = kernel(plan)
    settle(there, partial(desired, plan))
    there.there["lan9"] = msgspec.structs.replace(there.there.pop("lan1"), name="lan9")
    settle(there, partial(desired, plan))
    assert not any(route.interface == "lan9" for route in there.own_routes(there.links()))
    assert not any(a.index == there.there["lan9"].index for a in there.addresses)


@pytest.mark.parametrize("change", [{"mtu": 1500}, {"txqueuelen": 7}, {"up": False}, {"tun_families": False}])
def test_a_tun_that_somebody_has_set_otherwise_is_set_again(change: dict[str, Any]) -> None:
    plan = plan_of("")
    there = kernel(plan)
    settle(there, partial(desired, plan))
    before = there.there["cr1"]
    there.there["cr1"] = msgspec.structs.replace(before, **change)
    assert [str(thing) for thing in reconcile(there, partial(desired, plan)).done] == [
        "link cr1 mtu 1400 txqueuelen 100 up"
    ]
    assert there.there["cr1"] == before


def test_whose_a_rule_or_route_is_decides() -> None:
    """What carries another protocol number is not looked at."""
    plan = plan_of("")
    there = kernel(plan)
    settle(there, partial(desired, plan))
    rule = next(iter(there.rules))
    foreign = _encoded(fibmsg, {"family": _INET, "action": 1}, {"FRA_PRIORITY": 77, "FRA_PROTOCOL": PROTOCOL + 1})
    there.rules[foreign] = None
    del there.rules[rule]
    settle(there, partial(desired, plan))
    assert {rule, foreign} <= there.rules.keys()
