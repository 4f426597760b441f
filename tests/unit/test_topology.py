"""Texts for ip, tc and nft."""

from __future__ import annotations

import pytest

from tools.topology import ROLES, Flow, Loss, loss_table, router_address, sysctls, tbf, wan_lease


def test_a_flow_is_matched_from_both_ends() -> None:
    rules = [
        line.strip()
        for line in loss_table([Loss(Flow(sports=(46011, 46014), port=45011, wan=5), 300, "both")]).splitlines()
    ]
    up = 'iifname "r5" udp sport { 46011, 46014 } udp dport 45011'
    down = 'oifname "r5" udp dport { 46011, 46014 } udp sport 45011'
    lot = 'numgen random mod 1000 < 300 counter name "lost0" drop'
    assert [line for line in rules if "name" in line] == [
        f'{up} counter name "seen0"',
        f"{up} {lot}",
        f'{down} counter name "seen0"',
        f"{down} {lot}",
    ]


def test_no_loss_only_counts_and_all_draws_no_lot() -> None:
    text = loss_table([Loss(Flow(port=1), 0, "up"), Loss(Flow(), 1000, "down")])
    ports = '{ "r4", "r5", "r6" }'
    assert text.count("drop") == 1
    assert f'oifname {ports} counter name "lost1" drop' in text
    assert f'iifname {ports} udp dport 1 counter name "seen0"' in text


def test_the_loss_table_replaces_the_one_before() -> None:
    assert loss_table([]).split("\n")[1:4] == ["table inet loss", "delete table inet loss", "table inet loss {"]


@pytest.mark.parametrize(
    ("mbit", "parameters"),
    [
        (20, "tbf rate 20mbit burst 3028 limit 125000"),
        (100, "tbf rate 100mbit burst 12500 limit 625000"),
        (0.5, "tbf rate 0.5mbit burst 3028 limit 6056"),
    ],
)
def test_a_bucket_holds_a_millisecond_and_queues_fifty(mbit: float, parameters: str) -> None:
    assert tbf(mbit) == parameters


def test_a_lease_replaces_its_own_family_only() -> None:
    assert wan_lease(5, "100.64.55.2/24") == [
        "addr flush dev wan5 to 0.0.0.0/0 scope global",
        "addr add 100.64.55.2/24 dev wan5",
        "route replace 0.0.0.0/0 via 100.64.55.1 dev wan5 proto dhcp metric 105",
    ]
    assert all("::/0" in line or "nodad" in line for line in wan_lease(5, "2001:db8:55::2/64"))
    assert router_address("2001:db8:55::2/64") == "2001:db8:55::1/64"


def test_only_those_who_route_forward() -> None:
    assert [role for role in ROLES if "net/ipv4/ip_forward" in sysctls(role)] == ["site", "router", "hub"]
    assert sysctls("link")["net/ipv6/conf/all/disable_ipv6"] == "1"
