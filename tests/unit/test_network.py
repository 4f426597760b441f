"""What the kernel has, and the state of a WAN that follows: `network`."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.network import (
    BACKSTOP_METRIC,
    MAIN_TABLE,
    Address,
    Link,
    LinkState,
    Route,
    Rule,
    Snapshot,
    link_state,
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


def test_the_condition_of_a_wan_in_words(site: HostPlan) -> None:
    state = link_state(site.wans[0], THERE)
    assert state.condition == ("ready", "wan4 has 100.64.4.2 via 100.64.4.1")
    for change, word in (
        ({"index": 0}, "missing"), ({"carrier": False}, "carrier"), ({"flaps": True}, "flaps"),
        ({"address4": None, "address6": None}, "address"),
    ):  # fmt: skip
        assert msgspec.structs.replace(state, **change).condition[0] == word


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
