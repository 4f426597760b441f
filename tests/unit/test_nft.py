"""The nftables table as text: `nft.render`. That the kernel takes it is for tests/netns/test_network.py."""

from __future__ import annotations

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.nft import render
from mpq_supervisor.plan import make_plan
from tests.unit.test_network import HUB, SITE


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain."""
    _, _, rest = text.partition(f"chain {name} {{\n")
    assert rest, f"no chain {name}"
    return [line.strip() for line in rest.partition("\t}\n")[0].splitlines()]


def test_default_classifier() -> None:
    assert chain(render(make_plan(parse(SITE))), "classify") == [
        "udp dport { 5060, 10000-20000 } goto critical",
        "ip dscp { 46 } goto critical",
        "ip6 dscp { 46 } goto critical",
        "tcp dport { 80, 443, 8443 } goto default",
        "goto bulk",
    ]


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ('class = "default", protocol = "icmp"', ["meta l4proto icmp goto default"]),
        (
            'class = "critical", protocol = "udp", ports = [53], dscp = [46, 34]',
            [
                "udp dport { 53 } ip dscp { 46, 34 } goto critical",
                "udp dport { 53 } ip6 dscp { 46, 34 } goto critical",
            ],
        ),
    ],
)
def test_a_rule_matches_all_its_fields(rule: str, matches: list[str]) -> None:
    text = render(make_plan(parse(f"{SITE}rule = [{{ {rule} }}]\n")))
    assert chain(text, "classify") == [*matches, "goto bulk"]


def test_a_tunnel_has_its_mark_and_leaves_the_other_bits_alone() -> None:
    assert chain(render(make_plan(parse(SITE))), "flow_br1") == [
        "ct mark set ct mark and 0xff00ffff or 0x00020000",
        "meta mark set meta mark and 0xff00ffff or 0x00020000",
    ]


def test_a_class_that_no_tunnel_of_the_lan_takes_is_refused() -> None:
    text = render(make_plan(parse(f'{SITE}matrix = {{ wan4 = ["critical"] }}\n')))
    assert chain(text, "critical")[0] == 'iifname vmap { "lan1" : goto flow_cr1 }'
    assert chain(text, "bulk") == ['counter name "refused" drop']


def test_lan_to_wan_is_dropped_before_anything_else() -> None:
    rules = chain(render(make_plan(parse(SITE))), "forward")
    assert rules[1].startswith('iifname { "lan1", "cr1"')
    assert rules[1].endswith('oifname { "wan4", "wan5" } counter name "leak" drop')


def test_counters_tell_the_classes_of_what_enters_the_tunnels() -> None:
    rules = chain(render(make_plan(parse(SITE))), "forward")
    assert 'oifname { "br1", "br2" } counter name "bulk"' in rules


def test_mss_follows_the_mtu_of_the_tunnel() -> None:
    text = render(make_plan(parse(SITE.replace('"wan5" }]', '"wan5", mtu = 1280 }]'))))
    sizes = [line.rpartition(" ")[2] for line in chain(text, "forward") if '"cr2"' in line and "maxseg" in line]
    assert sizes == ["1240", "1220", "1240", "1220"]


def test_hub_masquerades_inner_addresses_and_passes_what_has_an_inner_end() -> None:
    text = render(make_plan(parse(HUB)))
    assert chain(text, "postrouting")[1:] == [
        'oifname "srv" ip saddr @inner4 masquerade',
        'oifname "srv" ip6 saddr @inner6 masquerade',
    ]
    assert "elements = { 10.200.10.0/24, 172.16.2.0/24 }" in text
    assert 'iifname { "mt4c", "mt4d", "mt4b" } ip saddr != @behind4 counter name "foreign" drop' in chain(
        text, "forward"
    )


def test_hub_without_nat_has_no_nat_chain() -> None:
    assert "chain postrouting" not in render(make_plan(parse(HUB.replace('nat = { interface = "srv" }', ""))))
