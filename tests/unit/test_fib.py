"""Which way a packet takes by what `desired` has: `fib`; tests/netns/test_lans.py asks the kernel."""

from __future__ import annotations

import msgspec
import pytest

from mpq_supervisor.classifier import Packet
from mpq_supervisor.config import parse
from mpq_supervisor.desired import Desired, desired
from mpq_supervisor.fib import way
from mpq_supervisor.network import MAIN_TABLE, Route
from mpq_supervisor.plan import HostPlan, make_plan
from tests.unit.test_network import SITE, THERE

LANS = """
[[lan]]
name = "wide"
interface = "lan1"
wan = "wan4"
prefixes = ["172.20.0.0/14", "192.168.0.0/16", "192.168.1.0/24"]
gateway = "172.16.1.9"
[[lan]]
name = "same"
interface = "lan2"
wan = "wan4"
prefixes = ["192.168.1.0/24"]
gateway = "172.16.2.9"
[[lan]]
name = "inside"
interface = "lan3"
wan = "wan5"
address = "172.21.0.1/16"
"""
MANAGEMENT = Route(MAIN_TABLE, "172.22.0.0/16", "mgmt", metric=0, source="172.22.0.1")
LOCAL = "lo"
"""What this host itself sends."""


@pytest.fixture
def plan() -> HostPlan:
    return make_plan(parse(SITE[: SITE.index("lan =")] + LANS))


@pytest.fixture
def want(plan: HostPlan) -> Desired:
    return desired(plan, msgspec.structs.replace(THERE, routes=(*THERE.routes, MANAGEMENT)))


def mark(plan: HostPlan, lan: str, tunnel: str = "cr1") -> int:
    """That of a packet which belongs to a flow of this LAN and takes this tunnel."""
    return next(m.mark for m in plan.lans if m.name == lan) | next(t.mark for t in plan.tunnels if t.name == tunnel)


def test_what_a_lan_begins_goes_to_the_lan_of_the_longest_prefix(plan: HostPlan, want: Desired) -> None:
    packet = Packet("172.16.1.9", "172.21.0.9", "icmp")
    assert way(want, packet, "lan1", mark(plan, "wide")) == "lan3"
    away = Packet("172.16.1.9", "172.20.0.9", "icmp")
    assert way(want, away, "lan3", mark(plan, "inside")) == "lan1"
    assert way(want, Packet("172.21.0.9", "8.8.8.8", "icmp"), "lan3", mark(plan, "inside", "cr2")) == "cr2"


@pytest.mark.parametrize("interface", ["lan3", "cr1", LOCAL])
def test_an_answer_goes_to_the_lan_that_began(plan: HostPlan, want: Desired, interface: str) -> None:
    """Wherever it comes from."""
    packet = Packet("172.21.0.9", "192.168.1.9", "icmp")
    assert way(want, packet, interface, mark(plan, "wide")) == "lan1"
    assert way(want, packet, interface, mark(plan, "same")) == "lan2"


def test_what_is_from_a_wan_leaves_by_it_whatever_lans_have(want: Desired) -> None:
    """As a dish is looked at."""
    assert way(want, Packet("100.64.4.2", "192.168.100.1", "icmp"), LOCAL, 0) == "wan4"
    assert way(want, Packet("172.16.1.1", "192.168.100.1", "icmp"), LOCAL, 0) == "lan1"


def test_what_the_host_has_elsewhere_is_not_behind_a_lan(plan: HostPlan, want: Desired) -> None:
    """Its programs get there by the main table, behind all rules of ours; what a LAN sends takes its tunnel."""
    assert Route(109, "172.22.0.0/16", throw=True) in want.routes
    assert way(want, Packet("172.22.0.1", "172.22.0.9", "icmp"), LOCAL, 0) is None
    assert way(want, Packet("172.22.0.1", "172.23.0.9", "icmp"), LOCAL, 0) == "lan1"
    assert way(want, Packet("172.16.1.9", "172.22.0.9", "icmp"), "lan1", mark(plan, "wide")) == "cr1"


def test_of_what_is_elsewhere_only_what_lies_within_a_lans_prefix_is_left_out(plan: HostPlan) -> None:
    others = (
        Route(MAIN_TABLE, "172.16.0.0/12", "mgmt"),
        Route(MAIN_TABLE, "172.20.0.0/14", "mgmt"),
        Route(MAIN_TABLE, "10.0.0.0/8", "mgmt"),
        Route(MAIN_TABLE, "fd00::/64", "mgmt"),
    )
    want = desired(plan, msgspec.structs.replace(THERE, routes=(*THERE.routes, *others)))
    assert not [route for route in want.routes if route.throw]
