"""Desired state from a plan and what is there: `desired`."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.desired import Desired, closed, desired
from mpq_supervisor.netlink_decode import decode_route
from mpq_supervisor.netlink_encode import route_body
from mpq_supervisor.network import BACKSTOP_METRIC, MAIN_TABLE, Address, Route, Rule, Snapshot, TunLink
from mpq_supervisor.plan import HostPlan, make_plan
from tests.unit.rtnetlink import with_header
from tests.unit.test_network import HUB, SITE, THERE


@pytest.fixture
def site() -> HostPlan:
    return make_plan(parse(SITE))


@pytest.fixture
def hub() -> HostPlan:
    return make_plan(parse(HUB))


def rules_of(want: Desired, version: int = 4) -> list[Rule]:
    return sorted((r for r in want.rules if r.version == version), key=lambda r: r.priority)


def test_site_rules_in_their_order(site: HostPlan) -> None:
    rules = rules_of(desired(site, THERE))
    assert rules[:5] == [
        Rule(4, 10000, input="lan1", mark=0x200000, mask=0xFE00000, goto=10005),
        Rule(4, 10001, table=137, mark=0x200000, mask=0xFE00000),
        Rule(4, 10003, table=100, output="wan4"),
        Rule(4, 10004, table=100, source="100.64.4.2"),
        Rule(4, 10005, table=109),
    ], "by the interface first: two WANs may have the same address"
    assert Rule(4, 10020, table=110, source="10.200.10.1") in rules
    assert Rule(4, 10020, table=110, output="cr1") in rules
    assert Rule(4, 10030, table=110, mark=0x10000, mask=0x1F0000) in rules
    assert rules[-1] == Rule(4, 10040, input="lan1"), "what has no mark is refused, not sent by the main table"


def test_site_tables(site: HostPlan) -> None:
    routes = desired(site, THERE).routes
    assert {r for r in routes if r.table == 110 and r.version == 4} == {
        Route(110, "0.0.0.0/0", "cr1"),
        Route(110, "10.200.10.254/32", "cr1"),
        Route(110, "0.0.0.0/0", metric=BACKSTOP_METRIC),
    }
    assert {r for r in routes if r.table == 100} == {
        Route(100, "100.64.4.0/24", "wan4", metric=0, source="100.64.4.2"),
        Route(100, "0.0.0.0/0", "wan4", "100.64.4.1", metric=100),
        Route(100, "0.0.0.0/0", metric=BACKSTOP_METRIC),
    }, "a WAN without a default route refuses what is from its address"
    assert {r for r in routes if r.table == 109} == {
        Route(109, "172.16.1.0/24", "lan1", metric=0, source="172.16.1.1")
    }, "a LAN's default route is not how to get to the LAN"


def test_site_tuns(site: HostPlan) -> None:
    want = desired(site, THERE)
    assert TunLink("br2", 1400, 500) in want.links
    assert {a for a in want.addresses if a.interface == "br2"} == {
        Address("br2", "10.200.11.5", 32),
        Address("br2", "fd6d:7071:0:1::5", 128),
    }


def test_closed_keeps_what_refuses_and_nothing_else(site: HostPlan) -> None:
    want, left = desired(site, THERE), closed(site, THERE)
    assert left.rules < want.rules
    assert left.routes < want.routes
    assert {r.priority for r in left.rules} == {10000, 10001, 10005, 10030, 10040}
    assert {r.interface for r in left.routes} == {None, "lan1"}
    assert (left.links, left.addresses, left.shapers) == (frozenset(), frozenset(), frozenset())


def test_every_mark_leads_to_a_table_with_a_backstop_in_both_families(site: HostPlan) -> None:
    left = closed(site, THERE)
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        marked = {r.table for r in left.rules if r.priority == 10030 and r.version == version}
        assert len(marked) == 6
        backstops = {r.table for r in left.routes if r.destination == everything and r.interface is None}
        assert marked == backstops


def test_without_ipv6_in_the_kernel_there_is_none_in_the_rules(site: HostPlan) -> None:
    want = closed(site, msgspec.structs.replace(THERE, ipv6=False))
    assert not rules_of(want, 6)
    assert all(r.version == 4 for r in want.routes)


def test_of_two_routes_that_replace_each_other_the_first_is_copied(site: HostPlan) -> None:
    twice = Route(MAIN_TABLE, "0.0.0.0/0", "wan4", "100.64.4.99", metric=100)
    there = msgspec.structs.replace(THERE, routes=(*THERE.routes, twice))
    assert desired(site, there).routes == desired(site, THERE).routes


def test_a_copied_route_keeps_its_metrics(site: HostPlan) -> None:
    """MTU 1300, as the kernel and our own message have it."""
    default = Route(MAIN_TABLE, "0.0.0.0/0", "wan4", "100.64.4.1", 100, attributes=bytes.fromhex("0800020014050000"))
    there = msgspec.structs.replace(THERE, routes=(default,))
    (copy,) = (r for r in desired(site, there).routes if r.table == 100 and r.gateway)
    assert copy.attributes == default.attributes
    body = route_body(copy, 3)
    assert decode_route(with_header(body)) == ((3, msgspec.structs.replace(copy, interface=None)),)


def test_hub_routes_its_sites_to_the_tun_of_the_class(hub: HostPlan) -> None:
    routes = desired(hub, Snapshot()).routes
    assert Route(MAIN_TABLE, "10.200.10.1/32", "mt4c") in routes
    assert Route(MAIN_TABLE, "fd6d:7071::5/128", "mt4b") in routes
    assert Route(MAIN_TABLE, "172.16.2.0/24", "mt4d") in routes
    assert closed(hub, Snapshot()).routes == {
        Route(MAIN_TABLE, prefix, metric=BACKSTOP_METRIC)
        for prefix in ("10.200.10.0/24", "fd6d:7071::/64", "172.16.2.0/24")
    }
    assert Address("mt4c", "10.200.10.254", 32) in desired(hub, Snapshot()).addresses


def test_a_wan_has_its_link_local_neighbours_in_its_own_table(site: HostPlan) -> None:
    there = msgspec.structs.replace(THERE, addresses=(*THERE.addresses, Address("wan5", "2001:db8:5::2", 64)))
    want = desired(site, there)
    assert {r for r in want.routes if r.table == 101} == {
        Route(101, "::/0", metric=BACKSTOP_METRIC),
        Route(101, "fe80::/64", "wan5"),
    }
    assert Rule(6, 10003, table=101, output="wan5") in want.rules


FALLBACK = SITE.replace('interface = "wan5" }', 'interface = "wan5", fallback = ["wan4"] }')


@pytest.mark.parametrize(
    ("down", "ways"),
    [
        ((), {"cr1": "cr1", "cr2": "cr2", "br2": "br2"}),
        (("cr2",), {"cr1": "cr1", "cr2": "cr1", "br2": "br2"}),
        (("cr1", "br2"), {"cr1": None, "cr2": "cr2", "br2": "br1"}),
        (("cr1", "cr2"), {"cr1": None, "cr2": None, "br2": "br2"}),
    ],
)
def test_the_traffic_of_a_tunnel_that_is_down_takes_the_next_of_its_class(
    down: tuple[str, ...], ways: dict[str, str | None]
) -> None:
    plan = make_plan(parse(FALLBACK))
    routes = desired(plan, THERE, down).routes
    for name, way in ways.items():
        (table,) = (t.table for t in plan.tunnels if t.name == name)
        found = {r.interface for r in routes if r.table == table and r.destination == "0.0.0.0/0"}
        assert found == {None, way}, "over the backstop"
    assert Route(110, "10.200.10.254/32", "cr1") in routes, "what belongs to the tunnel itself stays"


def test_a_wan_that_is_away_keeps_the_rules_of_its_address_unless_another_has_it(site: HostPlan) -> None:
    away = msgspec.structs.replace(THERE, addresses=())
    last = {("wan4", 4): "100.64.4.2"}
    kept = Rule(4, 10004, table=100, source="100.64.4.2")
    assert kept in desired(site, away, last=last).rules
    assert Route(100, "0.0.0.0/0", metric=BACKSTOP_METRIC) in desired(site, away, last=last).routes
    assert kept not in desired(site, away).rules
    moved = msgspec.structs.replace(THERE, addresses=(Address("wan5", "100.64.4.2", 24),))
    assert kept not in desired(site, moved, last=last).rules


def test_a_lan_that_keeps_its_addresses_takes_no_other_tunnel() -> None:
    """The hub would drop what comes by another."""
    text = FALLBACK.replace('"lan1", wan = "wan4"', '"lan1", wan = "wan5", masquerade = false')
    plan = make_plan(parse(text))
    assert not [r for r in desired(plan, THERE).rules if r.priority == 10025]
    refused = [r for r in desired(plan, THERE, ("cr2", "br1")).rules if r.priority == 10025]
    assert {r.version for r in refused} == {4, 6}
    assert {(r.mark, r.mask, r.table) for r in refused} == {(0x240000, 0xFFF0000, None)}, "cr2, br1 is not its own"


VLANS = """
[[lan]]
name = "lan1"
interface = "lan1"
wan = "wan4"
[[lan]]
name = "voice"
interface = "enp6s20.11"
parent = "enp6s20"
vlan = 11
wan = "wan4"
class = "critical"
address = ["172.16.11.1/30", "fd00:11::1/64"]
prefixes = ["192.168.1.0/24", "fd00:1::/64", "10.9.0.0/16"]
gateway = ["172.16.11.2", "fd00:11::2"]
[[lan]]
name = "data"
interface = "enp6s20.12"
wan = "wan4"
class = "bulk"
address = "172.16.12.1/30"
prefixes = ["192.168.1.0/24"]
gateway = "172.16.12.2"
"""


def test_a_lan_is_reached_by_its_mark_whoever_else_has_its_prefix() -> None:
    plan = make_plan(parse(SITE[: SITE.index("lan =")] + VLANS))
    want, left = desired(plan, THERE), closed(plan, THERE)
    assert {r for r in want.routes if r.table in (137, 138, 139)} == {
        Route(137, "172.16.1.0/24", "lan1", metric=0, source="172.16.1.1"),
        Route(138, "172.16.11.0/30", "enp6s20.11", metric=0, source="172.16.11.1"),
        Route(138, "fd00:11::/64", "enp6s20.11", metric=256),
        Route(139, "172.16.12.0/30", "enp6s20.12", metric=0, source="172.16.12.1"),
        Route(138, "192.168.1.0/24", "enp6s20.11", "172.16.11.2"),
        Route(138, "10.9.0.0/16", "enp6s20.11", "172.16.11.2"),
        Route(138, "fd00:1::/64", "enp6s20.11", "fd00:11::2"),
        Route(139, "192.168.1.0/24", "enp6s20.12", "172.16.12.2"),
    }
    assert Route(109, "192.168.1.0/24", "enp6s20.11", "172.16.11.2") in want.routes, "of several the first is for all"
    assert {r for r in rules_of(want) if 10000 < r.priority <= 10002} == {
        *(Rule(4, 10001, table=137 + n, mark=(n + 1) << 21, mask=0xFE00000) for n in range(3)),
        Rule(4, 10002, table=138, input="cr1"),
        Rule(4, 10002, table=139, input="br1"),
    }, "the latter for what begins outside"
    assert (
        want.lan_addresses
        == left.lan_addresses
        == (
            Address("enp6s20.11", "172.16.11.1", 30),
            Address("enp6s20.11", "fd00:11::1", 64),
            Address("enp6s20.12", "172.16.12.1", 30),
        )
    )
