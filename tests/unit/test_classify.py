"""Which rule and tunnel: `classifier`, `classify`; tests/netns/test_classifier.py compares them with the kernel."""

from __future__ import annotations

import pytest

from mpq_supervisor.classifier import CATCH_ALL, Packet, first_match
from mpq_supervisor.classify import Verdict, parse_packet, rule_counts, verdicts
from mpq_supervisor.config import parse
from mpq_supervisor.network import MAIN_TABLE, Route, Snapshot
from mpq_supervisor.plan import HostPlan, make_plan
from tests.unit.test_network import SITE

LANS = """
lan = [
    { name = "all", interface = "lan1", wan = "wan4" },
    { name = "voice", interface = "enp6s20.11", wan = "wan4", class = "critical" },
    { name = "data", interface = "enp6s20.12", wan = "wan5", class = "bulk" },
]
"""
RULES = """
rule = [
    { class = "critical", name = "ssh", protocol = "tcp", ports = ["@admin", 2222], source = ["@office"] },
    { class = "default", destination = ["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"] },
]
[set.office]
prefixes = ["10.0.0.0/8", "fd00::/8"]
[set.admin]
ports = [22, 23, "24-30"]
"""
ROUTES = (
    Route(MAIN_TABLE, "172.16.1.0/24", "lan1"),
    Route(MAIN_TABLE, "172.16.0.0/16", "enp6s20.11"),
    Route(MAIN_TABLE, "172.16.0.0/16", "enp6s20.12"),
    Route(MAIN_TABLE, "0.0.0.0/0", "lan1"),
)


@pytest.fixture
def plan() -> HostPlan:
    return make_plan(parse(SITE[: SITE.index("lan =")] + LANS + RULES))


@pytest.mark.parametrize(
    ("source", "destination", "packet"),
    [
        ("172.16.2.9:5060/udp", "8.8.8.8", Packet("172.16.2.9", "8.8.8.8", "udp", 5060)),
        ("172.16.2.9/tcp", "8.8.8.8:443", Packet("172.16.2.9", "8.8.8.8", "tcp", 443)),
        ("[fd00::9]:1/udp", "[2001:db8::1]:53", Packet("fd00::9", "2001:db8::1", "udp", 53)),
        ("[fd00::9]/udp", "[2001:db8::1]:53", Packet("fd00::9", "2001:db8::1", "udp", 53)),
        ("fd00::9/icmpv6", "2001:db8::1", Packet("fd00::9", "2001:db8::1", "icmpv6")),
    ],
)
def test_a_packet_in_words(source: str, destination: str, packet: Packet) -> None:
    assert parse_packet(source, destination) == packet


@pytest.mark.parametrize(
    ("source", "destination", "dscp", "text"),
    [
        ("172.16.2.9", "8.8.8.8", 0, "does not end in one of /tcp, /udp"),
        ("172.16.2.9/tcp", "8.8.8.8", 0, "tcp needs a port: 8.8.8.8:PORT"),
        ("172.16.2.9/tcp", "8.8.8.8:0", 0, "is no port"),
        ("172.16.2.9/tcp", "8.8.8.8:\u0663", 0, "is no port"),
        ("172.16.2.9/tcp", "8.8.8.8:", 0, "is no port"),
        ("[fd00::9]5060/udp", "2001:db8::1", 0, "is neither .ADDRESS. nor"),
        ("[fd00::9/udp", "[2001:db8::1]:1", 0, "is neither .ADDRESS. nor"),
        ("172.16.2.9/tcp", "2001:db8::1", 0, "different IP versions"),
        ("172.16.2.9/tcp", "host:1", 0, "does not appear to be"),
        ("172.16.2.9/udp", "224.0.0.251:5353", 0, "224.0.0.251 is in 224.0.0.0/4, which is not routed"),
        ("172.16.2.9/udp", "255.255.255.255:67", 0, "not routed"),
        ("172.16.2.9/udp", "127.0.0.1:80", 0, "not routed"),
        ("172.16.2.9/udp", "0.0.0.0:80", 0, "not routed"),
        ("fd00::9/icmpv6", "ff02::1", 0, "not routed"),
        ("fe80::9/icmpv6", "2001:db8::1", 0, "not routed"),
        ("172.16.2.9/esp", "8.8.8.8", 64, "not within 0-63"),
    ],
)
def test_what_is_no_packet(source: str, destination: str, dscp: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_packet(source, destination, dscp)


@pytest.mark.parametrize(
    ("packet", "name"),
    [
        (Packet("10.1.2.3", "8.8.8.8", "tcp", 30), "ssh"),
        (Packet("10.1.2.3", "8.8.8.8", "tcp", 2222), "ssh"),
        (Packet("10.1.2.3", "8.8.8.8", "udp", 30), "other"),
        (Packet("11.1.2.3", "192.0.2.200", "tcp", 30), "1"),
        (Packet("fd00::1", "2001:db8::1", "tcp", 31), "1"),
        (Packet("fd00::1", "2001:db9::1", "tcp", 22), "ssh"),
    ],
)
def test_the_first_rule_that_matches_decides(plan: HostPlan, packet: Packet, name: str) -> None:
    assert first_match(plan.rules, plan.sets, packet).name == name


def test_what_overlaps_in_a_rule_is_put_together(plan: HostPlan) -> None:
    assert [(p.first, p.last) for p in plan.rules[0].ports] == [(22, 30), (2222, 2222)]
    assert plan.rules[1].destination == ("192.0.2.0/24", "2001:db8::/32")


THERE = Snapshot(
    routes=ROUTES,
    local=frozenset(
        {"127.0.0.0/8", "172.16.1.1/32", "172.16.1.255/32", "100.64.4.77/32", "100.64.4.255/32", "::1/128"}
    ),
)


def test_the_lan_is_that_of_the_longest_prefix(plan: HostPlan) -> None:
    assert verdicts(plan, THERE, (), Packet("172.16.1.9", "192.0.2.1", "udp", 9)) == (
        Verdict("all", "1", "default", "df1", "df1"),
    )
    assert verdicts(plan, THERE, (), Packet("172.16.2.9", "192.0.2.1", "udp", 9)) == (
        Verdict("voice", "", "critical", "cr1", "cr1"),
        Verdict("data", "", "bulk", "br2", "br2"),
    )
    assert verdicts(plan, THERE, (), Packet("10.0.0.1", "192.0.2.1", "udp", 9)) == ()


def test_what_is_behind_a_router_of_a_lan_is_in_that_lan() -> None:
    """The main table knows nothing of it."""
    lan = 'interface = "lan1", address = ["172.16.1.1/30"], prefixes = ["192.168.1.0/24"], gateway = ["172.16.1.2"]'
    plan = make_plan(parse(SITE.replace('interface = "lan1"', lan)))
    said = verdicts(plan, Snapshot(), (), Packet("192.168.1.9", "192.0.2.1", "udp", 5060))
    assert said == (Verdict("lan1", "voice", "critical", "cr1", "cr1"),)


@pytest.mark.parametrize(
    ("wan", "masquerade", "down", "tunnel", "said"),
    [
        ("wan4", True, (), "cr1", "cr1"),
        ("wan4", True, ("cr1", "br2"), "cr2", "cr2 (cr1 when all are up)"),
        ("wan4", True, ("cr1", "cr2"), "", "refused (cr1 when all are up)"),
        ("wan4", False, ("cr1",), "", "refused (cr1 when all are up)"),
        ("wan5", True, ("cr2",), "", "refused (cr2 when all are up)"),
    ],
)
def test_a_tunnel_that_is_down_is_not_taken(
    wan: str, masquerade: bool, down: tuple[str, ...], tunnel: str, said: str
) -> None:
    lan = f'interface = "lan1", wan = "{wan}", masquerade = {str(masquerade).lower()}'
    text = SITE.replace('interface = "lan1", wan = "wan4"', lan).replace("rate_mbit = 18.0", 'fallback = ["wan5"]')
    (verdict,) = verdicts(make_plan(parse(text)), THERE, down, Packet("172.16.1.9", "192.0.2.1", "udp", 5060))
    assert verdict.tunnel == tunnel
    assert str(verdict) == f"lan1: rule voice, critical, {said}"


@pytest.mark.parametrize(
    "destination", ["172.16.1.1", "172.16.1.77", "172.16.2.9", "172.16.1.255", "100.64.4.77", "100.64.4.255"]
)
def test_what_is_here_takes_no_tunnel(plan: HostPlan, destination: str) -> None:
    (verdict,) = verdicts(plan, THERE, ("br1",), Packet("172.16.1.9", destination, "udp", 9))
    assert str(verdict) == "all: rule other, bulk, for this host or a LAN"


def test_what_this_host_sends_is_no_packet_of_a_lan(plan: HostPlan) -> None:
    with pytest.raises(ValueError, match=r"172\.16\.1\.1 is this host's"):
        verdicts(plan, THERE, (), Packet("172.16.1.1", "192.0.2.1", "udp", 9))


def test_a_site_without_inner_ipv6_refuses_it() -> None:
    plan = make_plan(parse(SITE.replace(', ipv6 = "fd6d:7071::/64"', "")))
    there = Snapshot(routes=(Route(MAIN_TABLE, "fd00:1::/64", "lan1"),))
    assert verdicts(plan, there, (), Packet("fd00:1::9", "2001:db8::1", "udp", 5060)) == (
        Verdict("lan1", "voice", "critical", "", ""),
    )


def test_the_lines_with_their_counters(plan: HostPlan) -> None:
    counts = rule_counts(plan, {"rule_ssh": 4, "leak": 1})
    assert [(c.rule, c.traffic_class, c.flows) for c in counts] == [
        ("ssh", "critical", 4),
        ("1", "default", 0),
        (CATCH_ALL.name, "bulk", 0),
    ]
    assert [c.matches for c in counts] == [
        "tcp port 22-30,2222 from @office",
        "to 192.0.2.0/24,2001:db8::/32",
        "everything",
    ]
