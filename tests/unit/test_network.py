"""Desired state from a plan and what is there: `network`."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.network import (
    BACKSTOP_METRIC,
    MAIN_TABLE,
    Address,
    Desired,
    Link,
    LinkState,
    Route,
    Rule,
    Snapshot,
    TunLink,
    closed,
    desired,
    link_state,
    shaper,
)
from mpq_supervisor.plan import HostPlan, make_plan

SITE = """
role = "site"
identity = { certificate = "/a/ship1.crt", key = "/a/ship1.key", ca = "/a/ca.crt" }
hub = { name = "hub.example.net", address = ["198.51.100.2", "2001:db8:100::2"] }
inner = { ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64" }
wan = [{ name = "wan4", interface = "wan4", rate_mbit = 18.0 }, { name = "wan5", interface = "wan5" }]
lan = [{ name = "lan1", interface = "lan1", wan = "wan4" }]
"""
HUB = """
role = "hub"
identity = { certificate = "/a/hub.crt", key = "/a/hub.key", ca = "/a/ca.crt" }
listener = [{ name = "mt4", port = 45010, ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64" }]
nat = { interface = "srv" }
[[site]]
name = "ship1"
number = 0
lan = [{ prefix = "172.16.2.0/24", class = "default" }]
"""
THERE = Snapshot(
    links={
        "wan4": Link("wan4", 3, True, True, 1500, 1000),
        "wan5": Link("wan5", 4, True, True, 1500, 1000),
        "lan1": Link("lan1", 5, True, True, 1500, 1000),
    },
    addresses=(Address("wan4", "192.168.100.9", 24), Address("wan4", "100.64.4.2", 24)),
    routes=(
        Route(MAIN_TABLE, "100.64.4.0/24", "wan4", metric=0, source="100.64.4.2"),
        Route(MAIN_TABLE, "172.16.1.0/24", "lan1", metric=0, source="172.16.1.1"),
        Route(MAIN_TABLE, "0.0.0.0/0", "wan4", "100.64.4.1", metric=100),
        Route(MAIN_TABLE, "0.0.0.0/0", "lan1", "172.16.1.7", metric=900),
    ),
)


@pytest.fixture
def site() -> HostPlan:
    return make_plan(parse(SITE))


@pytest.fixture
def hub() -> HostPlan:
    return make_plan(parse(HUB))


def rules_of(want: Desired, version: int = 4) -> list[Rule]:
    return sorted((r for r in want.rules if r.version == version), key=lambda r: r.priority)


def test_the_address_of_a_wan_is_the_one_in_its_gateways_subnet(site: HostPlan) -> None:
    state = link_state(site.wans[0], THERE)
    assert (state.address4, state.gateway4) == ("100.64.4.2", "100.64.4.1")
    assert (state.address6, state.gateway6) == (None, None)
    assert state.reach(("2001:db8:100::2", "198.51.100.2")) == ("100.64.4.2", "198.51.100.2")


def test_the_address_of_the_default_route_goes_before_that(site: HostPlan) -> None:
    default = Route(MAIN_TABLE, "0.0.0.0/0", "wan4", "100.64.4.1", metric=1, source="192.168.100.9")
    there = msgspec.structs.replace(THERE, routes=(default, *THERE.routes))
    assert link_state(site.wans[0], there).address4 == "192.168.100.9"


@pytest.mark.parametrize(
    "change",
    [{"carrier": False}, {"address4": None}, {"routes": ()}],
    ids=["no carrier", "no address", "no route"],
)
def test_a_wan_that_lacks_something_reaches_nothing(site: HostPlan, change: dict[str, object]) -> None:
    state = msgspec.structs.replace(link_state(site.wans[0], THERE), **change)
    assert state.reach(("198.51.100.2",)) is None


def test_a_route_to_somewhere_else_does_not_reach_the_hub(site: HostPlan) -> None:
    there = msgspec.structs.replace(THERE, routes=THERE.routes[:1])
    state = link_state(site.wans[0], there)
    assert state.reach(("198.51.100.2",)) is None
    assert state.reach(("100.64.4.77",)) is not None


def test_a_missing_wan_is_a_state_not_an_error(site: HostPlan) -> None:
    assert link_state(site.wans[0], Snapshot()) == LinkState("wan4", "wan4")
    assert not LinkState("wan4", "wan4").present
    assert desired(site, Snapshot()).rules


def test_site_rules_in_their_order(site: HostPlan) -> None:
    rules = rules_of(desired(site, THERE))
    assert rules[0] == Rule(4, 10000, table=100)
    assert rules[1] == Rule(4, 10010, table=101, source="100.64.4.2")
    assert Rule(4, 10020, table=110, source="10.200.10.1") in rules
    assert Rule(4, 10020, table=110, output="cr1") in rules
    assert Rule(4, 10030, table=110, mark=0x10000, mask=0xFF0000) in rules
    assert rules[-1] == Rule(4, 10040, input="lan1"), "what has no mark is refused, not sent by the main table"


def test_site_tables(site: HostPlan) -> None:
    routes = desired(site, THERE).routes
    assert {r for r in routes if r.table == 110 and r.version == 4} == {
        Route(110, "0.0.0.0/0", "cr1"),
        Route(110, "10.200.10.254/32", "cr1"),
        Route(110, "0.0.0.0/0", metric=BACKSTOP_METRIC),
    }
    assert {r for r in routes if r.table == 101} == {
        Route(101, "100.64.4.0/24", "wan4", metric=0, source="100.64.4.2"),
        Route(101, "0.0.0.0/0", "wan4", "100.64.4.1", metric=100),
    }
    assert {r for r in routes if r.table == 100} == {
        Route(100, "172.16.1.0/24", "lan1", metric=0, source="172.16.1.1")
    }, "a LAN's default route is not how to get to the LAN"


def test_site_tuns(site: HostPlan) -> None:
    want = desired(site, THERE)
    assert TunLink("br2", 1400, 200) in want.links
    assert {a for a in want.addresses if a.interface == "br2"} == {
        Address("br2", "10.200.11.5", 32),
        Address("br2", "fd6d:7071:0:1::5", 128),
    }


def test_closed_keeps_what_refuses_and_nothing_else(site: HostPlan) -> None:
    want, left = desired(site, THERE), closed(site, THERE)
    assert left.rules < want.rules
    assert left.routes < want.routes
    assert {r.priority for r in left.rules} == {10000, 10030, 10040}
    assert {r.interface for r in left.routes} == {None, "lan1"}
    assert (left.links, left.addresses, left.shapers) == (frozenset(), frozenset(), frozenset())


def test_every_mark_leads_to_a_table_with_a_backstop_in_both_families(site: HostPlan) -> None:
    left = closed(site, THERE)
    for version, everything in ((4, "0.0.0.0/0"), (6, "::/0")):
        marked = {r.table for r in left.rules if r.mark is not None and r.version == version}
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


def test_shaper_prefers_critical_and_assures_no_more_than_there_is(site: HostPlan) -> None:
    htb = shaper(site.wans[0], site.classes)
    assert htb is not None
    critical, default, bulk = htb.classes
    assert (critical.prio, default.prio, bulk.prio) == (0, 1, 2)
    assert (critical.dscp, default.dscp, bulk.dscp) == (46, None, 8)
    assert htb.rate == 18e6 / 8
    assert sum(c.rate for c in htb.classes) <= htb.rate
    assert {c.ceil for c in htb.classes} == {htb.rate}
    assert critical.limit == pytest.approx(0.020 * 18e6 / 8)
    assert shaper(site.wans[1], site.classes) is None


def test_what_the_kernel_refuses_is_told_in_its_own_words() -> None:
    said = [
        Address("cr1", "10.200.10.1", 24),
        Route(101, "0.0.0.0/0", "cr1"),
        Route(101, "::/0", metric=BACKSTOP_METRIC),
        Route(100, "0.0.0.0/0", "wan4", "192.0.2.1", source="192.0.2.2"),
        Rule(4, 130, table=101, mark=0x10, mask=0xFF),
        Rule(6, 140, input="lan1"),
    ]
    assert [str(thing) for thing in said] == [
        "address 10.200.10.1/24 dev cr1",
        "route 0.0.0.0/0 dev cr1 table 101 metric 1024",
        "route unreachable ::/0 table 101 metric 4294967295",
        "route 0.0.0.0/0 via 192.0.2.1 dev wan4 src 192.0.2.2 table 100 metric 1024",
        "IPv4 rule 130: fwmark 0x10/0xff lookup 101",
        "IPv6 rule 140: iif lan1 unreachable",
    ]
