"""The classifier's rules as lines of nftables: `rulemap`. That the kernel does the same is for tests/netns."""

from __future__ import annotations

import pytest

from mpq_supervisor.classifier import RulePlan
from mpq_supervisor.rulemap import LARGEST_MAP, rule_lines
from mpq_supervisor.schema import PortRange
from mpq_worker.contract import TrafficClass

BULK = TrafficClass.BULK
SETS = {"office": ("10.1.0.0/16", "2001:db8:1::/48"), "old": ("10.2.0.0/16",)}


def rule(name: str, **fields: object) -> RulePlan:
    ports = tuple(PortRange(*p) for p in fields.pop("ports", ()))  # type: ignore[attr-defined]  # values of several types
    return RulePlan(name, BULK, ports=ports, **fields)  # type: ignore[arg-type]  # values of several types


def lines(*rules: RulePlan, version: int = 4) -> list[str]:
    return list(rule_lines(rules, SETS, version))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "goto rule_a"),
        ({"protocol": "icmp"}, "meta l4proto icmp goto rule_a"),
        ({"dscp": (34, 46)}, "ip dscp { 34, 46 } goto rule_a"),
        ({"protocol": "udp", "ports": [(53, 53), (60, 70)]}, "meta l4proto udp th dport { 53, 60-70 } goto rule_a"),
        ({"source": ("10.0.0.0/8", "fd00::/8")}, "ip saddr { 10.0.0.0/8 } goto rule_a"),
        ({"destination": ("@office",), "protocol": "tcp"}, "ip daddr @set_office_4 meta l4proto tcp goto rule_a"),
    ],
)
def test_one_rule_is_one_line(fields: dict[str, object], line: str) -> None:
    assert lines(rule("a", **fields)) == [line]


def test_sets_and_prefixes_beside_each_other_are_a_line_each() -> None:
    both = rule("a", source=("10.9.0.0/16", "@office"), destination=("@old", "@office"))
    assert lines(both) == [
        "ip saddr { 10.9.0.0/16 } ip daddr @set_old_4 goto rule_a",
        "ip saddr { 10.9.0.0/16 } ip daddr @set_office_4 goto rule_a",
        "ip saddr @set_office_4 ip daddr @set_old_4 goto rule_a",
        "ip saddr @set_office_4 ip daddr @set_office_4 goto rule_a",
    ]
    assert lines(both, version=6) == ["ip6 saddr @set_office_6 ip6 daddr @set_office_6 goto rule_a"]


def test_a_rule_for_the_other_version_has_no_line() -> None:
    assert lines(rule("a", source=("@old",)), rule("b", destination=("10.0.0.0/8",)), version=6) == []


def test_neighbours_with_the_same_fields_share_a_map() -> None:
    assert lines(
        rule("a", destination=("10.0.0.0/9", "10.200.0.0/16")), rule("b", destination=("192.0.2.0/24",))
    ) == ["ip daddr vmap { 10.0.0.0/9 : goto rule_a, 10.200.0.0/16 : goto rule_a, 192.0.2.0/24 : goto rule_b }"]
    assert lines(
        rule("a", protocol="tcp", ports=[(1, 5)], source=("10.0.0.0/9",)),
        rule("b", protocol="udp", ports=[(1, 5)], source=("10.0.0.0/9",)),
    ) == [
        "ip saddr . meta l4proto . th dport vmap { 10.0.0.0/9 . tcp . 1-5 : goto rule_a, "
        "10.0.0.0/9 . udp . 1-5 : goto rule_b }"
    ]


def test_what_overlaps_comes_later() -> None:
    first, second = lines(
        rule("a", destination=("10.1.0.0/16",)),
        rule("b", destination=("192.0.2.0/24",)),
        rule("c", destination=("10.0.0.0/8",)),
    )
    assert "rule_a, 192.0.2.0/24 : goto rule_b }" in first
    assert second == "ip daddr { 10.0.0.0/8 } goto rule_c"


def test_a_map_has_its_bounds() -> None:
    wide = [rule(str(port), protocol="tcp", ports=[(port, port)]) for port in range(1, LARGEST_MAP + 2)]
    assert [line.count(" : goto") for line in lines(*wide)] == [LARGEST_MAP, 0]
    huge = rule("a", protocol="tcp", ports=[(p, p) for p in range(1, 1000, 2)])
    assert len(lines(huge, huge)) == 2
