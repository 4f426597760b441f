"""The nftables table as text: `ruleset.render`. That the kernel takes it is for tests/netns/test_ruleset.py."""

from __future__ import annotations

from mpq_supervisor.config import parse
from mpq_supervisor.plan import make_plan
from mpq_supervisor.ruleset import render
from tests.unit.test_network import HUB, SITE


def chain(text: str, name: str) -> list[str]:
    """The rules of a chain."""
    _, _, rest = text.partition(f"chain {name} {{\n")
    assert rest, f"no chain {name}"
    return [line.strip() for line in rest.partition("\t}\n")[0].splitlines()]


def test_default_classifier() -> None:
    text = render(make_plan(parse(SITE)))
    assert chain(text, "classify6") == [
        "meta l4proto udp th dport { 5060, 10000-20000 } goto rule_voice",
        "ip6 dscp { 46 } goto rule_expedited",
        "meta l4proto . th dport vmap "
        "{ tcp . 80 : goto rule_web, tcp . 443 : goto rule_web, tcp . 8443 : goto rule_web, "
        "udp . 443 : goto rule_quic, "
        "tcp . 5001-6000 : goto rule_iperf }",
        "goto rule_other",
    ]
    assert chain(text, "rule_web") == ['counter name "rule_web" goto default']
    assert chain(text, "rule_other") == ['counter name "rule_other" goto bulk']


def test_an_interface_with_a_class_decides_for_what_begins_there() -> None:
    text = render(make_plan(parse(SITE.replace('wan = "wan4" }]', 'wan = "wan4", class = "default" }]'))))
    known, first = chain(text, "from_lan")[2:4]
    assert known.startswith("ct mark and 0x001f0000 vmap { 0x00010000 : goto flow_cr1,")
    assert first == 'iifname vmap { "lan1" : goto default }'


def test_a_flow_is_of_the_zone_of_its_lan_and_is_answered_by_that() -> None:
    text = render(make_plan(parse(SITE)))
    assert chain(text, "zones")[1] == 'ct original zone set iifname map { "lan1" : 61603 }'
    assert chain(text, "from_lan")[0] == 'iifname vmap { "lan1" : jump lan_lan1 }'
    assert chain(text, "lan_lan1") == ["meta mark set meta mark and 0xf01fffff or 0x00200000"]
    answered = "ct original zone vmap { 61603 : goto lan_lan1 }"
    assert chain(text, "from_tunnel")[1] == answered
    assert chain(text, "answers")[1] == answered, "also of a WAN's address, whose rule leads elsewhere"
    assert chain(text, "from_lan")[1] == "ct direction reply ct original zone vmap { 61603 : jump lan_lan1 }"


def test_a_tunnel_has_its_mark_and_leaves_the_other_bits_alone() -> None:
    assert chain(render(make_plan(parse(SITE))), "flow_br1") == [
        "ct mark set ct mark and 0xffe0ffff or 0x00020000",
        "meta mark set meta mark and 0xffe0ffff or 0x00020000",
    ]


def test_a_class_that_no_tunnel_of_the_lan_takes_is_refused() -> None:
    text = render(make_plan(parse(f'{SITE}matrix = {{ wan4 = ["critical"] }}\n')))
    assert chain(text, "critical")[0] == 'iifname vmap { "lan1" : goto flow_cr1 }'
    assert chain(text, "bulk") == [
        'fib daddr type unicast fib daddr oifname != { "lan1" } counter name "refused_bulk"'
    ], "without a mark it gets no further than this host and the LANs"


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
